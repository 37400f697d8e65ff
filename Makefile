# `make demo` and `make test` do all their set-up on a machine that has Python 3.11+, venv and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
FAST := not slurm and not model and not real and not slow
SHARED := --numprocesses auto --dist loadfile --no-loadscope-reorder

# Hundreds of the tests' processes import the package: each would compile it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test quick check testbed clean

help:
	@echo "make demo     install into $(VENV), run an eval of the tiny model on two local ranks"
	@echo "make test     install into $(VENV), run all tests (those on Slurm if it is installed: make testbed)"
	@echo "make quick    the fast tests alone: no Slurm, no model, no slow files"
	@echo "make check    ruff and mypy --strict"
	@echo "make testbed  install Debian's packages of a real Slurm for the tests (as root)"
	@echo "make clean    remove $(VENV)"

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

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

testbed:
	sh tools/install_slurm.sh

clean:
	rm -rf $(VENV)
