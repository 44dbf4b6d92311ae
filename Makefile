# Everything runs in .venv, which is made when it is missing. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READERS := .venv-readers

.PHONY: setup demo test test-benchmarks test-readers test-services quick explore storm check bench format clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## make the virtual environment

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "latentmill needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,exports,readers]'
	@touch $(READY)

demo: $(READY)  ## the whole job: train on digits, start a pool, build 10,000 images into ./demo
	@$(BIN)/latentmill demo --out demo

# One thread a test: threads of two processes on two cores only wait for one another. Tests of servers and workers wait
# most of their time, so three run at a time; quick tests do not wait, so two do.
# The longest files come first, as they are collected: the last ones must not keep one core waiting.
# Python keeps what it has compiled, even where the environment says otherwise: every process of a test imports it again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder \
	--numprocesses

test: $(READY)  ## tests with real Redis, S3 over HTTP and worker processes
	$(PYTEST) 3 -m "not services" --ignore tests/readers --ignore tests/acceptance/benchmarks

test-benchmarks: $(READY)  ## every benchmark, with little to do
	$(PYTEST) 3 tests/acceptance/benchmarks

test-readers: $(READY) $(READERS)/.ready  ## builds and exports, read by other libraries; training under launchers
	$(PYTEST) 3 tests/readers

# Their pins conflict with ours: mosaicml-streaming, litdata, megatron-energon and pylance get their own torch and numpy.
$(READERS)/.ready: tests/readers/requirements.txt
	$(PYTHON) -m venv $(READERS)
	$(READERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/readers/requirements.txt
	@touch $(READERS)/.ready

test-services: $(READY)  ## workers, faults and storms on a whole S3 service (SeaweedFS); the pages in Chromium
	LATENTMILL_TEST_S3=seaweedfs $(PYTEST) 3 -m services tests/acceptance tests/browser tests/faults tests/workers/doctor

quick: $(READY)  ## tests without servers, worker processes and long training: a minute or so
	LATENTMILL_TESTS=quick $(PYTEST) 2 -m "not server and not slow" --ignore tests/readers

explore: $(READY)  ## property tests on a thousand other random examples each
	LATENTMILL_TESTS=explore $(PYTEST) 3 -m "hypothesis and not server and not slow"

# STORM=--failover runs Redis behind a Sentinel and loses its master once in each storm.
storm: $(READY)  ## a schedule by the clock on the wall, and twenty storms over a pool: half an hour or more (docs/reliability.md)
	$(BIN)/python -m pytest tests/faults/wall_clock_schedule.py
	$(BIN)/python -m tests.faults.run_storms --seeds 20 $(STORM)

check: $(READY)  ## format, lint, types, direction of imports, deployment files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/check.py
	$(BIN)/python deploy/check_chart.py
	$(BIN)/python deploy/check_monitoring.py

bench: $(READY)  ## train one classifier on synthetic and one on real images, on MNIST in $$LATENTMILL_DATA
	$(BIN)/python benchmarks/usefulness.py

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the virtual environment and what the demo made
	rm -rf $(VENV) $(READERS) demo
