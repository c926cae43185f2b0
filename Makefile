# `make demo` and `make test` set up everything they need; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo smoke simulators test longtest gputest lint format clean system mpi

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.demo ## simulate a small Euler ensemble and run the compression sweep on it, in about 11 minutes
	$(BIN)/python experiments/sweep_compression.py

smoke: $(VENV)/.demo ## the same in miniature, in 2 to 4 minutes
	$(BIN)/python experiments/sweep_compression.py smoke

simulators: $(VENV)/.simulators ## install the solvers of the other two systems, Dedalus and astronomix

test: $(VENV)/.dev ## run the tests in two processes, those that train or start a cluster first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long" --durations=12 \
		tests/unit tests/regression tests/integration

longtest: $(VENV)/.dev ## run the tests that take longest, which `make test` leaves out
	$(BIN)/python -m pytest -m long --durations=12

gputest: ## run the tests of tests/gpu on this machine's GPU, with the packages that $(PYTHON) has
	@$(PYTHON) -W ignore tests/gpu/ready.py
	PYTHONPATH=$(CURDIR) PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 \
		$(PYTHON) -m pytest -W default -p no:cacheprovider --durations=8 tests/gpu

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
	@$(call pip_install,.[simulate])
	@touch $@

$(VENV)/.dev: pyproject.toml | system $(VENV)/bin/python
	@$(call pip_install,.[dev])
	@touch $@ $(VENV)/.demo

$(VENV)/.simulators: pyproject.toml | system mpi $(VENV)/bin/python
	@export CC=mpicc FFTW_INCLUDE_PATH=$(FFTW)/include FFTW_LIBRARY_PATH=$(dir $(FFTW_LIBRARY)) \
	MPI_INCLUDE_PATH=$$(mpicc -showme:incdirs | cut -d' ' -f1) MPI_LIBRARY_PATH=$$(mpicc -showme:libdirs | cut -d' ' -f1); \
		$(call pip_install,.[simulate$(comma)simulate-rayleigh-benard$(comma)simulate-gravity-cooling])
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: name a newer one with 'make PYTHON=...'" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing: install python3-venv" >&2; exit 1; }
	@$(BIN)/pip install --quiet --upgrade pip

# Of pip's several hundred lines: downloads of 30 MB and more, what is compiled, and the start and the end of copying.
PIP_STEPS := \
	s/^ *(Downloading|Using cached) (.*\/)?([A-Za-z0-9_.]+)-([0-9][^-]*)-[^ ]*whl \((([3-9][0-9]|[0-9]{3,})\.[0-9] MB)\)$$/  \1 \3 \4, \5/p; \
	s/^ *Building wheel for ([^ ]+) .*: started$$/  compiling \1/p; \
	s/^Installing collected packages:.*/  copying all packages into $(subst /,\/,$(VENV)), the last step, which takes minutes/p; \
	s/^Successfully installed .*/  installed/p
comma := ,

define pip_install
echo "installing LOLA and what it needs into $(VENV): 7 GB, most of them PyTorch, in 3 to 20 minutes (pip's own lines: $(VENV)/pip.log)"; \
PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1 $(BIN)/pip install --progress-bar off --log $(VENV)/pip.log --editable '$(1)' | sed -unE '$(PIP_STEPS)'
endef

# Clawpack is built from source and needs a Fortran compiler; Dedalus needs FFTW and Open MPI.
FFTW ?= /usr
# Looked for anew wherever it is used: it may have been installed in between.
FFTW_LIBRARY ?= $(shell ls $(FFTW)/lib/*/libfftw3_mpi.so $(FFTW)/lib/libfftw3_mpi.so 2>/dev/null | head -n 1)

system:
	@command -v gfortran >/dev/null || { $(call install,gfortran); }

mpi:
	@command -v mpicc >/dev/null && [ -e "$(FFTW_LIBRARY)" ] \
		|| { $(call install,libfftw3-dev libfftw3-mpi-dev libopenmpi-dev openmpi-bin); }

define install
if [ "$$(id -u)" = 0 ]; then run=; elif sudo -n true 2>/dev/null; then run=sudo; else run=no; fi; \
if [ "$$run" = no ] || ! command -v apt-get >/dev/null; then \
	echo "$(1) missing: install it, for example with 'sudo apt-get install $(1)'" >&2; exit 1; fi; \
echo "installing $(1)"; \
{ $$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1); } >/dev/null
endef
