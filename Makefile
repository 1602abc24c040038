# Two commands do all set-up on a machine that has only Python, git and make:
#   make demo   own environment, a folder of healthy and broken checkpoints, the doctor run over it
#   make test   environment with the oracle (stock TensorFlow), format, lint, types, layers, docs, whole suite
# Everything else here is a part of one of them, or `make bench`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= auto
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check format unit bench docs clean

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("openckpt needs Python 3.11 or newer; try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[test,interop,check]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/openckpt demo demo

test: $(VENV)/.test
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_docs.py --check
	$(BIN)/python -m pytest -q tests/test_layers.py tests/docs

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.run
	$(BIN)/python scripts/generate_docs.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
