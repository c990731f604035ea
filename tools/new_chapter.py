"""Turn a chapter written as text into a notebook, for the first version of a chapter.

    cp tools/template.md draft.md                       # write the chapter
    python -m tools.new_chapter draft.md book/1-fragile-attributions/my-chapter.ipynb
    make run CHAPTER=my-chapter                         # once _toc.yml lists it

From then on the notebook is the source; the text is thrown away.
"""

import argparse
import re
import sys
from pathlib import Path

import yaml
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat import NotebookNode

from tools.chapters import write


def convert(text: str) -> NotebookNode:
    """Return the notebook written as MyST text: `{code-cell}` blocks, and `+++` between cells.

    Comment lines (`%`) are left out. Cell ids are numbered, so that the same text gives the same
    notebook.
    """
    text = re.sub(r"^%.*\n", "", text, flags=re.MULTILINE)
    notebook: NotebookNode = read_myst_markdown_notebook(text)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"c{number:03}"
        cell.source = cell.source.strip("\n")
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\n{3,}", "\n\n", cell.source)
    return notebook


def main(arguments: list[str] | None = None) -> int:
    """Convert one text."""
    parser = argparse.ArgumentParser(prog="python -m tools.new_chapter", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("text", type=Path)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--force", action="store_true", help="overwrite a notebook")
    options = parser.parse_args(arguments)
    if not options.text.is_file():
        parser.error(f"Expected text to be a file, got {options.text}")
    if options.notebook.exists() and not options.force:
        parser.error(f"Expected notebook to be new (or --force), got {options.notebook}")
    try:
        notebook = convert(options.text.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        parser.error(f"Expected text in MyST notebook form, got {options.text}: {error}")
    write(notebook, options.notebook)
    print(f"{options.notebook}: {len(notebook.cells)} cells")
    return 0


if __name__ == "__main__":
    sys.exit(main())
