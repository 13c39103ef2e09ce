# Hemoscope's tasks; `make help` lists them. Nothing here needs root, and everything installs into .venv of this clone.
# Another Python:  make setup PYTHON=/opt/python3.12/bin/python3.12

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),\
    $(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
FEDERATED ?= $(VENV)-federated
DOCS ?= $(VENV)-docs
DIST ?= $(VENV)-dist
SITE ?= site
STAMPS := $(VENV)/.stamps
DEMO_OUTPUT ?= demo-output
PYTEST_ARGS ?=
MINUTES ?= 60
BENCH_OUTPUT ?= build/bench
BENCH ?=
TORTURE_ARGS ?=
# A worker a processor: at least two, since many tests wait; at most eight, since each holds about 1.5 GB.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(shell echo $$(( $(CORES) < 2 ? 2 : $(CORES) > 8 ? 8 : $(CORES) )))
# The files of the suite run whole, in the order of tests/conftest.py: the longest first.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(STAMPS)/base ## make .venv and install the base (no deep-learning framework)
	@echo "Ready: $(BIN)/hemoscope --help"

.PHONY: setup-train
setup-train: $(STAMPS)/train ## add what training and evaluation need, with the pins; no tests
	@echo "Ready: $(BIN)/hemoscope train --list"

.PHONY: setup-dev
setup-dev: $(STAMPS)/all ## add what the tests and checks need too
	@echo "Ready: $(BIN)/python -m pytest"

.PHONY: demo
demo: $(STAMPS)/base ## read the sample head CT with the shipped model; pictures in demo-output/
	@$(BIN)/hemoscope predict examples/sample --output $(DEMO_OUTPUT) --heatmaps
	@echo
	@echo "The sample's patient is in no training set of the shipped model."
	@echo "Report and pictures (three windows, heat map): $(DEMO_OUTPUT)/"
	@find $(DEMO_OUTPUT) -name '*.png' | sort | sed 's/^/  /'

.PHONY: test
test: $(STAMPS)/all ## install what tests and training need, run the tests
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

.PHONY: test-journeys
test-journeys: $(STAMPS)/all ## the tests that go through a browser, real servers and killed processes
	$(BIN)/python -m pytest -m 'journey and not slow' $(PARALLEL) $(PYTEST_ARGS)

.PHONY: coverage
coverage: $(STAMPS)/all ## run both and show which lines they cover
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL) --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(STAMPS)/all ## the tests that take minutes (fuzzing, whole series)
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

.PHONY: torture
torture: $(STAMPS)/all ## fuzzing, state machines and faults, MINUTES=60; counts add up in build/torture
	$(BIN)/python -m tests.torture --minutes $(MINUTES) $(TORTURE_ARGS)

.PHONY: bench
bench: $(STAMPS)/all ## measure what has a bar beside what it is compared with, on an idle machine: BENCH_OUTPUT=build/bench, BENCH="evaluate ..."
	$(BIN)/python benchmarks/bench.py $(BENCH) --output $(BENCH_OUTPUT)

.PHONY: setup-federated
setup-federated: $(FEDERATED)/.stamps/federated ## make .venv-federated: Flower and training, with pins of their own
	@echo "Ready: $(FEDERATED)/bin/hemoscope federated --help"

.PHONY: test-federated
test-federated: $(FEDERATED)/.stamps/tests ## the tests of federated training, a real federation on this machine among them
	$(FEDERATED)/bin/python -m pytest -m 'not slow' tests/federated tests/test_architecture.py --cov=hemoscope.federated --cov-report=term:skip-covered $(PYTEST_ARGS)

.PHONY: check
check: $(STAMPS)/all ## lint, format, types, layers, docs: changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs/test_pages.py

.PHONY: format
format: $(STAMPS)/all ## format the code and repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(DOCS)/.stamps/docs ## build the documentation into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --site-dir $(SITE)
	@echo "Ready: $(SITE)/index.html"

.PHONY: dist
dist: $(DIST)/.stamps/dist ## build sdist and wheel into dist/ (the wheel twice, to the same bytes), and read the sample in a fresh environment
	rm -rf dist $(DIST)/again $(DIST)/wheel
	$(DIST)/bin/python -m build --no-isolation --outdir dist . >$(DIST)/build.log || { cat $(DIST)/build.log; exit 1; }
	umask 077 && $(DIST)/bin/python -m build --no-isolation --wheel --outdir $(DIST)/again . >$(DIST)/build.log || { cat $(DIST)/build.log; exit 1; }
	cmp dist/*.whl $(DIST)/again/*.whl
	@$(DIST)/bin/python -m venv $(DIST)/wheel
	$(DIST)/wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/base.txt dist/*.whl
	cd $(DIST)/wheel && bin/hemoscope predict $(CURDIR)/examples/sample --format json >findings.json && bin/hemoscope train --list
	rm -rf $(DIST)/wheel $(DIST)/again
	@ls -l dist

.PHONY: wheels
wheels: $(DIST)/.stamps/dist ## download the base install into wheels/, each file with its pinned hash
	rm -rf wheels
	$(DIST)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	    --require-hashes -r constraints/base.hashes.txt -d wheels

.PHONY: hashes
hashes: $(DIST)/.stamps/dist ## write constraints/base.hashes.txt anew, after a pin of constraints/base.txt was moved
	rm -rf wheels
	$(DIST)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -r constraints/base.txt -d wheels
	$(DIST)/bin/python deploy/hash_wheels.py wheels >constraints/base.hashes.txt

.PHONY: sbom
sbom: $(DIST)/.stamps/dist ## write dist/hemoscope.cdx.json: every package of the base install with version and licence (CycloneDX)
	rm -rf $(DIST)/base
	@$(DIST)/bin/python -m venv $(DIST)/base
	$(DIST)/base/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	    --require-hashes -r constraints/base.hashes.txt
	mkdir -p dist
	$(DIST)/bin/cyclonedx-py environment $(DIST)/base/bin/python --pyproject pyproject.toml --mc-type application \
	    --spec-version 1.6 --output-reproducible --output-format JSON --output-file dist/hemoscope.cdx.json
	$(DIST)/bin/python deploy/check_sbom.py dist/hemoscope.cdx.json constraints/base.txt
	rm -rf $(DIST)/base

.PHONY: clean
clean: ## remove the environments, caches, the demo's output, site/ and dist/
	rm -rf $(VENV) $(FEDERATED) $(DOCS) $(DIST) $(DEMO_OUTPUT) $(SITE) dist wheels .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an installation is repeated only when pyproject.toml or a pin changed.
$(BIN)/python:
	@$(if $(PYTHON),,echo "Hemoscope needs Python 3.11 or newer, and none was found. Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Hemoscope needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make setup PYTHON=/path/to/python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(STAMPS)/base: pyproject.toml constraints/base.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . -c constraints/base.txt
	@mkdir -p $(STAMPS) && touch $@

# One pip call: torch and torchvision are chosen together or not at all.
$(STAMPS)/train: pyproject.toml $(wildcard constraints/*.txt) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train]' -c constraints/train.txt
	@mkdir -p $(STAMPS) && touch $(STAMPS)/base $@

$(STAMPS)/all: pyproject.toml $(wildcard constraints/*.txt) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,train]' -c constraints/dev.txt
	@mkdir -p $(STAMPS) && touch $(STAMPS)/base $(STAMPS)/train $@

# Flower pins the web framework to a narrow range, so federated training never shares an environment with the rest.
$(FEDERATED)/bin/python: | $(BIN)/python
	@$(BIN)/python -m venv $(FEDERATED)

$(FEDERATED)/.stamps/federated: pyproject.toml constraints/federated.txt | $(FEDERATED)/bin/python
	$(FEDERATED)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[federated]' -c constraints/federated.txt
	@mkdir -p $(FEDERATED)/.stamps && touch $@

$(FEDERATED)/.stamps/tests: $(FEDERATED)/.stamps/federated
	$(FEDERATED)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/federated.txt \
	    pytest pytest-cov pytest-timeout hypothesis jsonschema
	@touch $@

# The tools alone, not hemoscope: mkdocstrings reads the source without importing it, and hatchling builds from files.
$(DOCS)/.stamps/docs: constraints/docs.txt | $(BIN)/python
	@$(BIN)/python -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints/docs.txt
	@mkdir -p $(DOCS)/.stamps && touch $@

$(DIST)/.stamps/dist: constraints/dist.txt | $(BIN)/python
	@$(BIN)/python -m venv $(DIST)
	$(DIST)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints/dist.txt
	@mkdir -p $(DIST)/.stamps && touch $@
