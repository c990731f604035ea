"""Numbers that a cell hands to the text around it."""

from typing import SupportsFloat

from IPython.display import display


def glue(**values: SupportsFloat | str) -> None:
    """Store values under their names, for ``{glue:text}`` roles in the text; nothing is shown.

    The same record as `myst_nb.glue` writes, without needing the book's builder where a notebook runs.

    Args:
        **values: Name to value; names are unique in a notebook. NumPy and torch scalars become plain
            Python numbers.

    Raises:
        TypeError: If a value is neither a number nor a string.
    """
    for name, value in values.items():
        plain = value if type(value) in (int, float, str) else float(value)
        display(  # type: ignore[no-untyped-call]
            {"application/papermill.record/text/plain": repr(plain)},
            metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
            raw=True,
        )
