# All commands run in .venv, which the first of them sets up from requirements.lock.
# PYTHON=/path/to/python3 makes .venv from that interpreter.
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHON VENV

# Tests run on workers with a thread each; `make unit WORKERS=0` runs them one by one.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help setup book run serve lab edit test lint unit notebooks pages speed bench grid refute lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup:  ## set up .venv (every other command does it, too)
	@bash tools/setup.sh

book: setup  ## build the HTML book from the stored outputs
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build . -n -W --keep-going
	@echo "The book is ready. Open $(CURDIR)/_build/html/index.html"

run: setup  ## execute all chapters and store their outputs; CHAPTER=name for one
	$(BIN)/python -m tools.execute $(CHAPTER)

serve: setup  ## show the book in a browser
	@test -e _build/html/index.html || $(MAKE) book
	@echo "The book is at http://localhost:8000 (stop with Ctrl-C)"
	@$(BIN)/python -m webbrowser -t http://localhost:8000 >/dev/null &
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

lab: setup  ## open plain copies of the chapters in JupyterLab, to run and to fill in
	$(BIN)/python -m tools.export --out lab
	$(BIN)/jupyter lab lab

edit: setup  ## open the sources of the chapters in JupyterLab
	$(BIN)/jupyter lab book

test: setup  ## run every check, and say what each part took
	@$(BIN)/python -m tools.parts "$(MAKE)" lint unit notebooks pages

lint: setup  ## style, types and direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup  ## test package, tools, notebooks' form and examples in docstrings
	$(PYTEST) --dist worksteal --cov --doctest-modules \
		tests attrlib --ignore=tests/book/test_pages.py

notebooks: setup  ## execute all chapters with the quick budget and check their claims
	unset ATTRLIB_BUDGET; $(PYTEST) --dist loadfile --nbval-lax --nbval-current-env book

pages: setup  ## build the book and check its pages in a browser
	$(BIN)/pytest tests/book/test_pages.py

speed: setup  ## measure how fast attributions and attacks are, and what terms of a loss cost
	$(BIN)/python -m tests.speed_terms
	$(BIN)/python -m tests.speed

bench: setup  ## measure six networks with quick attacks on and across maps: a small grid (10 minutes)
	$(BIN)/python -m attrlib bench --grid small

grid: setup  ## measure attacks, networks and certificates; adds what is missing in results/ (hours)
	$(BIN)/python -m attrlib bench strength
	$(BIN)/python -m attrlib bench --grid full
	$(BIN)/python -m attrlib bench benign
	$(BIN)/python -m attrlib bench transfer
	$(BIN)/python -m attrlib bench soundness

refute: setup  ## measure what three other attacks find below the suite (30 minutes)
	$(BIN)/python -m tests.refute
	$(BIN)/python -m tests.refute --attack crossing
	$(BIN)/python -m tests.squares

lock: setup  ## look for newer versions and write requirements.lock and environment.yml
	$(BIN)/python -m tools.lock

clean:  ## remove what was built, but not .venv
	rm -rf _build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
