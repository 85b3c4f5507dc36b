# make quickstart: simulate, build, train, evaluate, report. make test: the tests. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
QUICKSTART_CELLS ?= 220
QUICKSTART_FLAGS ?=

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1

.PHONY: quickstart test test-slow lint clean

quickstart: $(INSTALLED)
	rm -rf data/quickstart runs/quickstart
	$(BIN)/python experiments/simulate.py coos7 --out=data/quickstart/release --cells_per_class=$(QUICKSTART_CELLS) --seed=0
	$(BIN)/python experiments/build.py coos7 --source=data/quickstart/release --data_dir=data/quickstart
	$(BIN)/python experiments/train.py --config=configs/coos7/quickstart.py --workdir=runs/quickstart/run $(QUICKSTART_FLAGS)
	$(BIN)/python experiments/evaluate.py --workdir=runs/quickstart/run
	$(BIN)/python experiments/report.py --workdirs=runs/quickstart/run --out=runs/quickstart/report

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout=3600

lint: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $(INSTALLED)

clean:
	rm -rf .venv .jax_cache data/quickstart runs/quickstart
