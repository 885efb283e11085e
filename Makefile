# make demo, make test, ... on a fresh machine: needs make and Python 3.11 or 3.10 (or uv). `make help` lists the targets.

VENV  := .venv
BIN   := $(VENV)/bin
# The last file an installation writes: newer than what it was made from, or the installation runs again.
STAMP := $(VENV)/.installed

SUITABLE := import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))
# The first interpreter that really runs (a pyenv shim may exist and fail) and can make an environment.
# Another one: make PYTHON=/path/to/python3.11 ...
PYTHON = $(shell for python in python3.11 python3.10 python3 /usr/local/bin/python3.1[01] /usr/bin/python3.1[01] \
	"$$HOME"/.pyenv/versions/3.1[01].*/bin/python; do \
	"$$python" -c 'import ensurepip; $(SUITABLE)' 2>/dev/null && { echo "$$python"; break; }; done)

# What `make test-core` runs: the tests of these files, which need no simulator, OSRL, Ray, pandas or plotting.
CORE_TESTS = aggregates aggregators api baselines calibration capture cards claims cloning config convert \
	corridor cost_model datasets diagnostics estimates failure_modes hostile_files joint kept_stages log_properties \
	log_sources methods metrics osil precision resuming splits stopping tasks train training trajectories uniq \
	weights whole_files
# Its environment: one for each Python, kept until `make clean`.
CORE = .venv-core-$(shell '$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# loadfile: the tests of a file share what its fixtures made (a whole run of the demo grid).
PYTEST_OPTIONS = -q -n 2 --dist loadfile -m 'not long'

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-core data reference docs lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## build .venv, run the demo grid, print its table, write the report
	$(BIN)/python tune/run.py --grid demo --resume

test-long: install ## the tests that take minutes, alone
	$(BIN)/python -m pytest -q -m long

test: install ## build .venv, run the test suite (make test PYTEST_OPTIONS="-x tests/test_splits.py")
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

# Outside the checkout's own packages: safemil is the installed wheel; baselines and tune, which it does not hold, lie beside.
test-core: ## install the core alone on any Python from 3.10, run its tests there (make test-core PYTHON=python3.13)
	[ -x $(CORE)/bin/python ] || '$(PYTHON)' -m venv $(CORE)
	rm -rf $(CORE)/dist $(CORE)/outside
	$(CORE)/bin/python -m pip install -q build pytest pytest-timeout scipy hypothesis
	$(CORE)/bin/python -m build -o $(CORE)/dist . >/dev/null
	$(CORE)/bin/python -m pip uninstall -q -y safemil
	$(CORE)/bin/python -m pip install -q $(CORE)/dist/*.whl
	mkdir $(CORE)/outside
	cp -r pyproject.toml README.md tests baselines tune $(CORE)/outside
	cd $(CORE)/outside && ../bin/python -m pytest -q -m 'not study' -k 'not osrl' $(CORE_TESTS:%=tests/test_%.py)

lint: install ## check style, formatting and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

data: install ## collect all data of the study (2 to 3 hours on 2 cores), verify their hashes; goes on where it stopped
	$(BIN)/python tune/data.py $(DATA_OPTIONS)

reference: install ## finished runs -> results/reference (make reference RUNS="results/paper ..."); without RUNS its reports again
	$(BIN)/python analysis/curate.py $(RUNS)

docs: install ## the documentation site in site/, built without a network, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q --strict

install: $(STAMP) ## build .venv alone: everything pinned, about 2.5 GB

clean: ## remove the environments, builds and caches; results and datasets stay
	rm -rf $(VENV) .venv-core-* build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that works is kept, whatever made it; one of another Python, or half made, is made anew.
# uv is asked last and brings its own Python.
$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	@rm -f $@
	@if $(BIN)/python -c 'import pip; $(SUITABLE)' 2>/dev/null; then :; \
	elif [ -n '$(PYTHON)' ]; then \
		'$(PYTHON)' -c 'import ensurepip; $(SUITABLE)' 2>/dev/null || \
			{ echo 'error: PYTHON=$(PYTHON) is no Python 3.10 or 3.11 that can make an environment' >&2; exit 1; }; \
		'$(PYTHON)' -m venv --clear $(VENV); \
	elif command -v uv >/dev/null; then uv venv --seed --clear --python 3.11 $(VENV); \
	else echo 'error: no Python 3.11 or 3.10 found: install python3.11 (with python3.11-venv on Debian and Ubuntu) or uv' >&2; exit 1; fi
	@echo 'installing into $(VENV): about 2.5 GB, some minutes'
	$(BIN)/python -m pip install -q --no-warn-conflicts -e '.[all]' \
		-c requirements/python$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
	$(BIN)/python -m pip install -q --no-deps -r requirements/without-pins.txt
	@touch $@
