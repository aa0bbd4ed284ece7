# Two commands do all the set-up: `make demo` and `make test`. Both need Python 3.10-3.13 and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check parity faults poison fuzz demo-model bounds constraints audit sbom wheel clean

demo: $(VENV)/.installed
	$(BIN)/litft demo
	@echo "litft is $(BIN)/litft; \`source $(BIN)/activate\` puts it on your path."

test: $(VENV)/.installed-dev check
	$(BIN)/python -m pytest -n auto --cov --cov-report=

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict benchmarks/convert.py benchmarks/finetune.py benchmarks/gpu.py benchmarks/ours benchmarks/prepare.py
	$(BIN)/lint-imports --no-logo

parity: $(VENV)/.installed-dev
	$(BIN)/python tests/parity/table.py

# Kills, fills and corrupts for a quarter of an hour; a short form is in `make test`.
faults: $(VENV)/.installed-dev
	PYTHONPATH=tests:tests/unit:tests/faults $(BIN)/python tests/faults/table.py --out benchmarks/results/faults.md

# Takes away one guard against harmful input at a time: its test must fail then.
poison: $(VENV)/.installed-dev
	$(BIN)/python tests/poison/remove_guards.py

# Some thousand random changes of everything that is read, and requests; a few, the same each time, are in `make test`.
fuzz: $(VENV)/.installed-dev
	LITFT_FUZZ=2000 $(BIN)/python -m pytest -p no:xdist tests/contracts/test_poison_fuzz.py tests/unit/test_serve_hostile.py

demo-model: $(VENV)/.installed
	$(BIN)/python scripts/build_demo_model.py

# What stands around a release, with tools in an environment of its own (supply/).
TOOLS := .venv-supply

bounds: $(TOOLS)/.installed
	PYTHON=$(PYTHON) UV=$(TOOLS)/bin/uv supply/bounds.sh

constraints: $(VENV)/.installed-dev
	$(BIN)/python supply/versions.py > constraints.txt

audit: $(VENV)/.installed-dev $(TOOLS)/.installed
	$(BIN)/python supply/licences.py
	$(BIN)/python supply/versions.py --runtime | $(TOOLS)/bin/python supply/audit.py

sbom: $(VENV)/.installed-dev $(TOOLS)/.installed
	mkdir -p dist
	$(BIN)/python supply/versions.py --runtime > dist/runtime.txt
	$(TOOLS)/bin/cyclonedx-py requirements dist/runtime.txt --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file dist/litft.cdx.json

wheel: $(TOOLS)/.installed
	$(TOOLS)/bin/python supply/wheel.py

$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet uv pip-audit cyclonedx-bom build
	touch $@

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
