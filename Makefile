# Two commands do all set-up on a machine that has only Python, git and make:
#   make demo     own environment, a folder of healthy and broken checkpoints, the doctor run over it
#   make test     environment with the oracle (stock TensorFlow), format, lint, types, docs, whole suite
# Parts of them, and the rest:
#   make check    format, lint, types, layers, codes, documentation: no TensorFlow needed, under three minutes
#   make format   put the sources into form
#   make docs     write the generated pages and the pictures anew
#   make soak     the power cuts and kills of tests/fault SOAK=10 times as often, torch and Keras 300 kills each: minutes
#   make bench    every speed goal as a ratio against TensorFlow, safetensors and bare system calls
#   make clean    remove everything that these commands made
# PYTHON=python3.12 picks the interpreter (3.11 or newer), VENV=DIR the environment, JOBS=N the test processes.

NEWEST := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
            $$p -c '$(NEWEST)' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= auto
SOAK   ?= 10
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check lint format docs soak bench clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(NEWEST)' || \
	  { echo 'openckpt needs Python 3.11 or newer, and found none; name it: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'This Python cannot make environments: its modules venv and ensurepip are missing.' >&2; \
	    echo 'Debian and Ubuntu: sudo apt-get install python3-venv   Or use an environment of yours: make VENV=DIR ...' >&2; exit 1; }
	@echo 'Making the environment $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo 'Installing openckpt and what it stands on into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.check: pyproject.toml $(VENV)/.run
	@echo 'Installing linters and test tools into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --editable '.[test,check]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.check
	@echo 'Installing stock TensorFlow, the oracle of the tests, into $(VENV): some minutes ...'
	@$(BIN)/python -m pip install --quiet --editable '.[test,interop,check]'
	@touch $@

demo: $(VENV)/.run
	@$(BIN)/openckpt demo demo
	@command -v openckpt >/dev/null || echo 'openckpt lies in $(BIN); to type it as above: . $(BIN)/activate'

test: $(VENV)/.test
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

check: $(VENV)/.check
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_codes.py tests/test_face.py tests/docs

lint: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_docs.py --check

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.run
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python scripts/draw_pictures.py

soak: $(VENV)/.test
	OPENCKPT_SOAK=$(SOAK) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --timeout 0 tests/fault

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
