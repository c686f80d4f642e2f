# The interpreter that makes the environment, and the environment. An existing one (VENV=/opt/conda) keeps its packages.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# One test process a core, one thread each.
JOBS ?= $(shell $(PYTHON) -c "import os; print(min(8, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()))")
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal

.PHONY: help env quickstart lint test test-slow gpu doctor
help:
	@echo "make quickstart   set up, train a small detector on built-in images, show what it finds"
	@echo "make test         set up, lint, run the tests"
	@echo "make test-slow    the tests that take minutes each"
	@echo "make gpu          on a machine with a GPU: its tests, speed against the peers (at most nine minutes)"
	@echo "make doctor       check the environment"
	@echo "PYTHON=... VENV=... choose interpreter and environment"

env:
	@$(PYTHON) tools/make_env.py "$(VENV)"

quickstart: env
	$(RUN) tools/train_net.py --config mini_faster_rcnn_r18.yaml --output-dir output/quickstart --overwrite

lint: env
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test: lint
	$(PYTEST) -m "not slow"

test-slow: env
	$(PYTEST) -m slow

gpu: env
	$(RUN) -m benchmarks.gpu $(GPU_FLAGS)

doctor: env
	$(RUN) tools/doctor.py
