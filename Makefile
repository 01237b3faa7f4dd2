# Everything a checkout can do. Each target makes what it needs first; nothing is installed outside of this folder but the
# environments of the plug-ins, which all checkouts share (PREFIX).

PYTHON ?= python3
TORCH ?= cpu
PREFIX ?=
WORKERS ?= 3

BIN := .venv/bin
PLUGINS := mace tblite
SETUP = $(BIN)/aiida-perovmlip setup --torch "$(TORCH)" $(addprefix --with ,$(PLUGINS))
GOAL = $(or $(firstword $(MAKECMDGOALS)),demo)
BOOTSTRAP = $(PYTHON) tools/bootstrap.py --python "$(PYTHON)" --goal "$(GOAL)"

ifneq ($(strip $(PREFIX)),)
export AIIDA_PEROVMLIP_PREFIX := $(abspath $(PREFIX))
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-long fuzz faults lint types docs benchmarks clean python venv venv-dev
.SILENT:

help:
	echo 'make demo        from nothing to a first potential and its page, in .demo'
	echo 'make test        the tests, but for those that take minutes each'
	echo 'make test-long   the tests that take minutes each: states, strategies and traps of the real trainers'
	echo 'make fuzz        read ten thousand damaged files; PEROVMLIP_FUZZ of each kind, PEROVMLIP_FUZZ_SEED others'
	echo 'make faults      kill, fill and cut off whatever can be, on a laptop and on a cluster with Slurm; half an hour'
	echo 'make lint        style of the code, and which layer may import which'
	echo 'make types       types of the code'
	echo 'make docs        documentation, in docs/_build/html'
	echo 'make benchmarks  measurements, in benchmarks'
	echo 'make clean       remove all that make put into this folder, the data of the demo too'
	echo
	echo 'PYTHON=python3.12   the Python to use, 3.11 or newer'
	echo 'PREFIX=DIR          where environments of plug-ins lie; else ~/.local/share/aiida-perovmlip'
	echo 'WORKERS=3            how many tests run at the same time'
	echo 'TORCH=cpu|gpu|as-is which build of torch may be installed'

demo: export AIIDA_PATH := $(CURDIR)/.demo
demo: venv
	$(SETUP)
	$(BIN)/verdi run examples/first_potential.py --output .demo/first-potential

test: MARKED := not long
test-long: MARKED := long
test test-long: export AIIDA_PATH := $(CURDIR)/.venv
test test-long: export OMP_NUM_THREADS := 1
test test-long: PLUGINS += allegro nep pyscf lammps
test test-long: venv-dev
	$(SETUP) --environments-only
	tools/ensure_programs.sh
	$(BIN)/python -m pytest -m "$(MARKED)" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    --durations 40 --durations-min 5

fuzz: export AIIDA_PATH := $(CURDIR)/.venv
fuzz: export PEROVMLIP_FUZZ ?= 2500
fuzz: export PEROVMLIP_FUZZ_SEED ?= 1
fuzz: venv-dev
	$(BIN)/python -m pytest tests/fuzz

faults: venv-dev
	tools/ensure_programs.sh
	$(BIN)/python tests/faults/faults.py --stack laptop
	$(BIN)/python tests/faults/faults.py --stack cluster

lint: venv-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: venv-dev
	$(BIN)/mypy

docs: export AIIDA_PATH := $(CURDIR)/.venv
docs: venv-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	echo 'docs/_build/html/index.html'

benchmarks: export AIIDA_PATH := $(CURDIR)/.venv
benchmarks: venv-dev
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf .venv .demo build dist docs/_build docs/reference/generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests tools examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

venv: python
	$(BOOTSTRAP)

venv-dev: python
	$(BOOTSTRAP) --dev

python:
	command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	    echo 'There is no `$(PYTHON)` here. Name a Python, 3.11 or newer: `make $(GOAL) PYTHON=python3.12`' >&2; exit 1; }
