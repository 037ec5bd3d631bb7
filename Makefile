PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
BY_TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder
ALONE = $(shell grep --recursive --files-with-matches --include='test_*.py' 'mark\.alone\b' tests)

.PHONY: demo test lint format clean

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py

test: export PYTHONDONTWRITEBYTECODE =  # hundreds of processes import the same modules
test: $(INSTALLED)
	$(PYTEST) -m "not alone" $(BY_TWO)
	$(PYTEST) -m alone $(ALONE)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo_output

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py rayclip/model/exact_resize.c
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "rayclip needs Python 3.11, 3.12 or 3.13: say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)
