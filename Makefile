# `make demo` and `make test` do all their set-up on a machine that has Python 3.11+, venv and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
# The same with the oldest versions that pyproject.toml allows.
LOWEST_VENV ?= .venv-lowest
LOWEST_STAMP := $(LOWEST_VENV)/.installed
FAST := not slurm and not model and not real and not slow
SHARED := --numprocesses auto --dist loadfile --no-loadscope-reorder
# Tests on the tiny model that `make lowest` adds: each engine, the connector, a training on four ranks, LoRA, trackers.
ON_A_MODEL := tests/assets/test_assets.py::test_model_solves_the_quick_set tests/engines/test_continuous.py \
	tests/engines/loop/test_engine.py tests/engines/test_generate.py::test_engines_say_the_same_in_any_order_and_batch \
	tests/test_choice_run.py \
	tests/test_connector.py::test_complete_one_and_a_batch \
	tests/test_connector.py::test_the_training_loop_of_the_readme_on_one_and_two_processes \
	tests/worker/test_train.py::test_the_end_is_a_model_and_a_merge_that_says_so \
	tests/training/test_export.py::test_the_adapter_on_its_base_is_the_model tests/training/trackers/test_libraries.py

# Hundreds of the tests' processes import the package: each would compile it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test quick lowest check testbed clean

help:
	@echo "make demo     install into $(VENV), run an eval of the tiny model on two local ranks"
	@echo "make test     install into $(VENV), run all tests (those on Slurm if it is installed: make testbed)"
	@echo "make quick    the fast tests alone: no Slurm, no model, no slow files"
	@echo "make lowest   the fast tests and some on a model with the oldest versions allowed, in $(LOWEST_VENV)"
	@echo "make check    ruff and mypy --strict"
	@echo "make testbed  install Debian's packages of a real Slurm for the tests (as root)"
	@echo "make clean    remove $(VENV) and $(LOWEST_VENV)"

# torch goes first, with its pin: on Linux a range would bring several GB of CUDA along.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m hpcjobs submit eval --executor local --nodes 1 --ntasks-per-node 2 --gpus 0 --wait --yes

test: $(STAMP)
	$(BIN)/python -m pytest $(SHARED) $(ARGS)

quick: $(STAMP)
	$(BIN)/python -m pytest $(SHARED) -m '$(FAST)' $(ARGS)

# A copy of $(VENV), so that only what is older is downloaded, and what is not named keeps its pin where it can.
$(LOWEST_STAMP): $(STAMP) tools/lowest.py
	rm -rf $(LOWEST_VENV)
	$(PYTHON) -m venv $(LOWEST_VENV)
	cp -a $(VENV)/lib/. $(LOWEST_VENV)/lib/
	$(BIN)/python tools/lowest.py > $(LOWEST_VENV)/floors.txt
	$(LOWEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $(LOWEST_VENV)/floors.txt --editable .
	@touch $@

lowest: $(LOWEST_STAMP)
	$(LOWEST_VENV)/bin/python -m pytest $(SHARED) -m '$(FAST)'
	$(LOWEST_VENV)/bin/python -m pytest $(SHARED) $(ON_A_MODEL)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

testbed:
	sh tools/install_slurm.sh

clean:
	rm -rf $(VENV) $(LOWEST_VENV)
