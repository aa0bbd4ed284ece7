# Two commands do all the set-up: `make demo` and `make test`. Both need Python 3.10-3.13 and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check parity demo-model clean

demo: $(VENV)/.installed
	$(BIN)/litft demo

test: $(VENV)/.installed-dev check
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict benchmarks/convert.py benchmarks/finetune.py benchmarks/gpu.py benchmarks/ours benchmarks/prepare.py
	$(BIN)/lint-imports --no-logo

parity: $(VENV)/.installed-dev
	$(BIN)/python tests/parity/table.py

demo-model: $(VENV)/.installed
	$(BIN)/python scripts/build_demo_model.py

$(VENV)/.installed: pyproject.toml
	@echo "Installing litft and what it needs into $(VENV), once ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
