# make setup | demo | test | quick | check | bench | docs

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PARTS := unit contract gpu on_ray cluster end_to_end
INSTALLED := $(VENV)/.installed

# Cores are shared out by Ray; a numerical library that takes them all slows every other process down.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: setup demo test quick check bench docs

setup: $(INSTALLED)

# Every version is pinned, torch too: a range would take the newest build, with gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m rave_dist.demo

# Each part in a process of its own: what takes one down, a crash of Ray's driver say, leaves the others to be tried.
test: setup
	@failed=; for part in $(PARTS); do \
		echo "== $$part"; $(BIN)/python -m pytest tests/$$part $(ARGS) || failed="$$failed $$part"; \
	done; if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

# Contract tests and the unit tests that train, export and start nothing: under two minutes on two cores.
quick: setup
	$(BIN)/python -m pytest -q -n 2 -m "not slow" tests/contract tests/unit $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/contract

bench: setup
	$(BIN)/python benchmarks/page.py

# The generated parts of the documents.
docs: setup
	$(BIN)/python -m rave_dist.library.table README.md
