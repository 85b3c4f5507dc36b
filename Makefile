# make quickstart: COOS-7 in small: simulate, build, train, evaluate, report. make cell_painting: the same for Cell
# Painting/ChEMBL, with labels, two networks and a comparison. make lincs: LINCS, with plates, a network, profiles and their
# retrieval. make mcnn: M-CNN, with a plate of two drugs, divisions, curves and EC50. make test: the tests. All set up .venv
# first. make table3: COOS-7's Table 3 in small, representations and classifiers and methods against the shift.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
QUICKSTART_CELLS ?= 220
QUICKSTART_FLAGS ?=
COMPOUNDS ?= 400
GAPNET_FLAGS ?=
FNN_FLAGS ?=
PLATE_FLAGS ?=
LINCS_FLAGS ?=
MCNN_FLAGS ?=
TABLE3_FLAGS ?=

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1

.PHONY: quickstart cell_painting lincs mcnn table3 test test-slow lint clean

quickstart: $(INSTALLED)
	rm -rf data/quickstart runs/quickstart
	$(BIN)/python experiments/simulate.py coos7 --out=data/quickstart/release --cells_per_class=$(QUICKSTART_CELLS) --seed=0
	$(BIN)/python experiments/build.py coos7 --source=data/quickstart/release --data_dir=data/quickstart
	$(BIN)/python experiments/train.py --config=configs/coos7/quickstart.py --workdir=runs/quickstart/run $(QUICKSTART_FLAGS)
	$(BIN)/python experiments/evaluate.py --workdir=runs/quickstart/run
	$(BIN)/python experiments/report.py --workdirs=runs/quickstart/run --out=runs/quickstart/report

CELLS := data/table3_quickstart

table3: $(INSTALLED)
	rm -rf $(CELLS) runs/table3_quickstart
	$(BIN)/python experiments/simulate.py coos7 --out=$(CELLS)/release --cells_per_class=100 --seed=0
	$(BIN)/python experiments/build.py coos7 --source=$(CELLS)/release --data_dir=$(CELLS)
	$(BIN)/python experiments/table3.py --config=configs/coos7/table3.py:small --workdir=runs/table3_quickstart $(TABLE3_FLAGS) \
		--config.data.directory=$(CELLS)/coos7/uint16/1.1.0

SCREEN := data/cell_painting_quickstart
PAGES := runs/cell_painting_quickstart

cell_painting: $(INSTALLED)
	rm -rf $(SCREEN) $(PAGES)
	$(BIN)/python experiments/simulate.py cell_painting --out=$(SCREEN)/release --compounds=$(COMPOUNDS) --seed=0
	$(BIN)/python experiments/label_matrix.py --chembl=$(SCREEN)/release/chembl.db \
		--compounds=$(SCREEN)/release/compounds.csv --out=$(SCREEN)/release/labels
	$(BIN)/python experiments/build.py cell_painting --source=$(SCREEN)/release --data_dir=$(SCREEN)
	$(BIN)/python experiments/build.py cell_painting --source=$(SCREEN)/release --data_dir=$(SCREEN) \
		--builder_config=profiles
	$(BIN)/python experiments/train.py --config=configs/cell_painting/quickstart.py:gapnet --workdir=$(PAGES)/gapnet $(GAPNET_FLAGS)
	$(BIN)/python experiments/train.py --config=configs/cell_painting/quickstart.py:fnn --workdir=$(PAGES)/fnn $(FNN_FLAGS)
	$(BIN)/python experiments/evaluate.py --workdir=$(PAGES)/gapnet
	$(BIN)/python experiments/evaluate.py --workdir=$(PAGES)/fnn
	$(BIN)/python experiments/report.py --workdirs=$(PAGES)/gapnet,$(PAGES)/fnn --out=$(PAGES)/report \
		--assay_groups=$(SCREEN)/release/assay-groups.csv

PLATES := data/lincs_quickstart
STUDY := runs/lincs_quickstart

lincs: $(INSTALLED)
	rm -rf $(PLATES) $(STUDY)
	$(BIN)/python experiments/simulate.py lincs --out=$(PLATES)/release --seed=0 --dmso=48 $(PLATE_FLAGS)
	$(BIN)/python experiments/build.py lincs --source=$(PLATES)/release --data_dir=$(PLATES) --crop_size=64 --problems=list
	$(BIN)/python experiments/train.py --config=configs/lincs/quickstart.py --workdir=$(STUDY)/run $(LINCS_FLAGS)
	$(BIN)/python experiments/evaluate.py --workdir=$(STUDY)/run
	$(BIN)/python experiments/lincs.py --config=configs/lincs/study.py:quickstart --workdir=$(STUDY)/study

WELLS := data/mcnn_quickstart

mcnn: $(INSTALLED)
	rm -rf $(WELLS) runs/mcnn_quickstart \
		$(CELLS) runs/table3_quickstart
	$(BIN)/python experiments/simulate.py bbbc --set=bbbc013 --out=$(WELLS)/release --height=128 --width=128 --seed=0
	$(BIN)/python experiments/build.py bbbc --builder_config=bbbc013 --source=$(WELLS)/release --data_dir=$(WELLS)
	$(BIN)/python experiments/phenotypes.py --config=configs/mcnn/quickstart.py --workdir=runs/mcnn_quickstart $(MCNN_FLAGS) \
		--config.data.directory=$(WELLS)/bbbc/bbbc013/1.0.0

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

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
	rm -rf .venv .jax_cache data/quickstart runs/quickstart $(SCREEN) $(PAGES) $(PLATES) $(STUDY) $(WELLS) runs/mcnn_quickstart \
		$(CELLS) runs/table3_quickstart
