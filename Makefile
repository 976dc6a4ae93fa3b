# `make train` and `make test` need Python 3.11 or newer and nothing else: the rest goes into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SAMPLE ?= data/sample
RUN ?= runs/sample
BENCH ?= runs/bench
INPUTS ?= 10000

# Whatever the machine says, Python keeps what it has compiled: without, every start takes about twice as long.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install converters train test soak fuzz bench lint format types tables docs links lock dist matrix clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

# The converters of `effnet export litert`, `executorch`, `coreml` and `ncnn`, each in an environment of its own in the cache: 1 GB.
converters: install
	$(BIN)/python -c 'from effnet.export.edge.table import CONVERTERS; [each.install() for each in CONVERTERS]'

train: install
	$(BIN)/effnet prepare sample $(SAMPLE)
	$(BIN)/python ./main.py --recipe recipes/sample.yaml --workspace $(RUN) $(TRAIN_FLAGS) $(SAMPLE)

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not soak" -n auto --maxprocesses 8 --durations 40 --durations-min 5

# What takes minutes each: trainings that are killed again and again, a long one, a compiled one that is interrupted.
soak: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak -n auto --maxprocesses 8 --durations 10

# Changed files for every reader of files, INPUTS each; prints how many were accepted and refused. Another FUZZ_SEED makes
# other files.
FUZZ_SEED ?= 0
fuzz: install
	OMP_NUM_THREADS=1 EFFNET_FUZZ_INPUTS=$(INPUTS) EFFNET_FUZZ_SEED=$(FUZZ_SEED) \
		$(BIN)/python -m pytest -s --timeout 0 tests/fuzz

# On a machine that has PyTorch and the other requirements, such as a GPU machine without a network, install nothing.
HAS_ALL := $(shell $(PYTHON) -c 'import torch, torchvision, rich, yaml, safetensors, filelock' 2>/dev/null && echo yes)
bench: $(if $(HAS_ALL),,install)
	PYTHONPATH=src $(if $(HAS_ALL),$(PYTHON),$(BIN)/python) -m benchmarks suite --out $(BENCH)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m tools.prose

types: install
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The tables of docs/choices.md, from the registries, and the types of keyword arguments, from the settings.
tables: install
	PYTHONPATH=.:src $(BIN)/python tools/choices.py
	PYTHONPATH=.:src $(BIN)/python tools/keywords.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation site, in build/site; a warning is an error. `make links` fetches the links to other hosts as well.
SITE = $(BIN)/python -m sphinx -E -q -W --keep-going -c docs -d build/doctrees .
docs: install
	rm -rf build/site
	$(SITE) build/site

links: install
	$(SITE) -b linkcheck build/links

# Versions stay as they are where they still fit; UPGRADE=--upgrade takes the newest.
UPGRADE ?=
lock: install
	cp requirements.txt requirements.new
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --all-extras --no-header --no-annotate \
		--no-emit-index-url $(UPGRADE) --output-file requirements.new pyproject.toml > /dev/null
	echo "# Versions that are tested together: 'make lock' writes this file from pyproject.toml." > requirements.txt
	cat requirements.new >> requirements.txt
	rm requirements.new

# The wheel and the source distribution, checked.
dist: install
	rm -rf build dist
	$(BIN)/python -m build --no-isolation .
	$(BIN)/twine check --strict dist/*

# The wheel with the oldest required packages and with the newest, on each Python that is installed here. Downloads
# gigabytes and takes an hour; docs/release.md.
PYTHONS ?= 3.11 3.12 3.13
VERSIONS ?= lowest-direct highest
matrix: dist
	for python in $(PYTHONS); do for versions in $(VERSIONS); do \
		PATH=$(CURDIR)/$(BIN):$$PATH tools/matrix.sh $$python $$versions || exit 1; done; done

clean:
	rm -rf $(VENV) build dist data/sample runs/sample
