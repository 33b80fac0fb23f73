# `make demo` and `make test` are all that a fresh machine needs: each makes the environment first when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds torch's CPU build. For a GPU: make env TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

SBOM_TOOL := cyclonedx-bom==7.5.0

.PHONY: env demo test test-slow fuzz check wheel wheelhouse sbom bench bench-peers bundles clean

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
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-slow: env
	$(BIN)/python -m pytest -q -m slow

fuzz: env
	$(BIN)/python -m pytest -q tests/test_hostile_files.py tests/test_hostile_messages.py --hypothesis-profile=hostile

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a hospital installs, of the last commit; the same to the bit wherever it is built.
wheel: env
	$(BIN)/python -m brats_fl_tools.release wheel --out dist

# The same with all that it needs, for a house without internet. TORCH_INDEX as above.
wheelhouse: env
	$(BIN)/python -m brats_fl_tools.release wheelhouse --out dist/wheelhouse --index $(TORCH_INDEX)

# What is in the wheelhouse, and under which licences (CycloneDX), read from an environment that was installed from it.
# A wheelhouse that is there is the one meant: another would have to be fetched anew, and would be another.
sbom: $(if $(wildcard dist/wheelhouse/install.md),,wheelhouse)
	rm -rf build/sbom && $(PYTHON) -m venv build/sbom/installed && $(PYTHON) -m venv build/sbom/tool
	build/sbom/installed/bin/pip install --quiet --no-index --find-links dist/wheelhouse --require-hashes -r dist/wheelhouse/requirements.txt
	build/sbom/tool/bin/pip install --quiet $(SBOM_TOOL)
	build/sbom/tool/bin/cyclonedx-py environment --output-reproducible --output-file dist/sbom.cdx.json build/sbom/installed/bin/python

bench: env
	$(BIN)/python -m brats_fl_tools.bench.__main__

# The same work on Flower's simulator, in an environment of its own; skips, saying so, where that cannot be installed.
bench-peers: env
	$(BIN)/python -m brats_fl_tools.bench.peers --environment build/peers

# Copies what all bundles share from brats_unet to the others; a test holds them together.
bundles: env
	$(BIN)/python -m brats_fl_tools.sync_bundles

clean:
	rm -rf $(VENV) build dist custom/*.egg-info .pytest_cache .mypy_cache .ruff_cache
