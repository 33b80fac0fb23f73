# `make demo` and `make test` are all that a fresh machine needs: each makes the environment first when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds torch's CPU build. For a GPU: make env TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: env demo test test-slow fuzz check wheel bench bundles clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3,10) <= sys.version_info[:2] <= (3,12) else "Python 3.10 to 3.12 is needed, this is %d.%d; set PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --retries 1 --no-deps --extra-index-url $(TORCH_INDEX) -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[tools,dev]'
	touch $@

demo: env
	$(BIN)/brats-fl demo --out runs/demo --force

test: env
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: env
	$(BIN)/python -m pytest -q -m slow

fuzz: env
	$(BIN)/python -m pytest -q tests/test_hostile_files.py tests/test_hostile_messages.py --hypothesis-profile=hostile

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a hospital installs. setuptools would pack what an earlier build left in build/lib, so that goes first.
wheel: env
	rm -rf build/lib build/bdist.*
	$(BIN)/pip wheel --quiet --no-deps -w dist .

bench: env
	$(BIN)/python -m brats_fl_tools.bench.__main__

# Copies what all bundles share from brats_unet to the others; a test holds them together.
bundles: env
	$(BIN)/python -m brats_fl_tools.sync_bundles

clean:
	rm -rf $(VENV) build dist custom/*.egg-info .pytest_cache .mypy_cache .ruff_cache
