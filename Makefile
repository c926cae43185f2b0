# `make demo` and `make test` set up everything they need; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help demo smoke test lint format clean system

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: $(VENV)/.demo ## simulate a small Euler ensemble and run the compression sweep on it
	$(BIN)/python experiments/sweep_compression.py

smoke: $(VENV)/.demo ## the same in miniature, in about a minute
	$(BIN)/python experiments/sweep_compression.py smoke

test: $(VENV)/.dev ## run the tests, fast ones first
	$(BIN)/python -m pytest tests/unit tests/regression tests/integration

lint: $(VENV)/.dev ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## format the source
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and caches; results stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.demo: pyproject.toml | system $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[simulate]'
	@touch $@

$(VENV)/.dev: pyproject.toml | system $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: name a newer one with 'make PYTHON=...'" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing: install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --upgrade pip

# Clawpack is built from source and needs a Fortran compiler.
system:
	@command -v gfortran >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ]; then run=; elif sudo -n true 2>/dev/null; then run=sudo; else run=no; fi; \
	if [ "$$run" = no ] || ! command -v apt-get >/dev/null; then \
		echo "gfortran is missing: install it, for example with 'sudo apt-get install gfortran'" >&2; exit 1; fi; \
	echo "installing gfortran"; \
	{ $$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gfortran; } >/dev/null
