# make setup | demo | test | quick | oldest | check | bench | docs | dist | constraints

SHELL := bash

# The system's Python if rave-dist supports it, otherwise the newest supported one.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$python && break; \
	done || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PROCESSES := -n 3 --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/.installed
PROSE := rave_dist ray_jobs benchmarks docs tools .ci Makefile $(wildcard *.md *.yaml *.toml)

# Ray assigns the cores; a numerical library that uses all of them slows down every other process.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: setup demo test quick oldest style check bench docs dist constraints

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt tools/install.py
	$(PYTHON) tools/install.py $(VENV) dev
	touch $@

demo: setup
	$(BIN)/rave-dist demo

# Each part runs in a separate process, so that a crash, for example of Ray's driver, does not affect the others. The first
# two use both cores, with a third process for tests that wait. The others mostly wait, for example for a Ray of their own to
# start: a quiet machine can run two or three at a time (JOBS=3), a line per test.
JOBS ?= 1
PARTS := unit contract
WAITING_PARTS := end_to_end on_ray cluster examples gpu

test: setup
	@export TESTS_FOLDER=$$(mktemp -d); trap 'rm -rf "$$TESTS_FOLDER"' EXIT; \
	$(MAKE) --no-print-directory --keep-going $(PARTS:%=test-%); failed=$$?; \
	$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) $(WAITING_PARTS:%=test-%) && exit $$failed

# Each file in one process, since its fixtures may be expensive; in the order of tests/conftest.py.
$(PARTS:%=test-%): test-%:
	@echo "== $*"; $(BIN)/python -m pytest tests/$* $(PROCESSES) $(ARGS)

$(WAITING_PARTS:%=test-%): test-%:
	@set -o pipefail; $(BIN)/python -u -m pytest tests/$* -v $(ARGS) 2>&1 | sed -u "s/^/$*: /"

# Contract tests, and unit tests that do not train, export or start processes: under two minutes on two cores.
quick: setup
	$(BIN)/python -m pytest -q $(PROCESSES) -m "not slow" tests/contract tests/unit $(ARGS)

# The same with the oldest versions that pyproject.toml allows, in an environment of Python 3.11.
OLDEST := .venv-oldest
oldest: setup
	$(BIN)/uv venv --clear --python 3.11 $(OLDEST)
	$(BIN)/uv pip install --python $(OLDEST) --constraint constraints-oldest.txt --editable .[dev]
	$(BIN)/uv pip install --python $(OLDEST) --no-deps $$(grep '^acids-rave' constraints.in)
	touch $(OLDEST)/.installed
	$(MAKE) quick VENV=$(OLDEST)

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(PROSE)
	$(BIN)/mypy

check: style
	$(BIN)/python -m pytest -q $(PROCESSES) -m "not slow" tests/contract

bench: setup
	$(BIN)/python benchmarks/page.py

# The generated parts of the documents.
docs: setup
	$(BIN)/python -m rave_dist.library.table README.md
	$(BIN)/python docs/generate_api.py

# A wheel and a source archive in dist/, after a test that installs and uses such a wheel outside of this folder.
dist: setup
	$(BIN)/python -m pytest -q tests/end_to_end/test_wheel.py
	$(BIN)/python -m build --no-isolation --outdir dist

# The tested versions: the newest ones for every Python, and the oldest ones that pyproject.toml allows. acids-rave is not
# one of the dependencies, and CUDA's libraries belong to a build of PyTorch.
COMPILE := $(BIN)/uv pip compile --quiet --no-header --no-annotate --extra dev --python-version 3.11 pyproject.toml
constraints: setup
	$(COMPILE) --universal --constraint constraints.in --output-file constraints.txt
	$(COMPILE) --resolution lowest-direct --only-binary :all: --no-binary gputil --output-file constraints-oldest.txt
	sed -i '/^\(nvidia-\|cuda-\|triton=\)/d' constraints.txt constraints-oldest.txt
	grep '^acids-rave' constraints.in >> constraints.txt
