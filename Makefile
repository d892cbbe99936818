# `make help` lists what there is. Every target sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
CASES := ../shared/cases/run.py

# The demo needs torch and scikit-learn alone; it takes the development environment if that is there.
DEMO_VENV := $(if $(wildcard $(READY)),$(VENV),.venv-demo)
DEMO_BIN := $(CURDIR)/$(DEMO_VENV)/bin
SITE_VENV := .venv-site
LAYOUTS_VENV := .venv-layouts
TRACKERS_VENV := .venv-trackers

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs site cases torture gpu layouts trackers results results-decay results-experts bench-startup bench-merge bench-greedy bench-large bench-learned bench-inspect bench-growth clean

# $(call environment,FOLDER,EXTRA): an environment with this package and one extra, by uv if it is there, else by pip.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "soup needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(1)
	@if command -v uv >/dev/null; then set -x; uv pip install --python $(1) --constraint constraints.txt --editable '.[$(2)]'; \
	else set -x; $(1)/bin/python -m pip install $(PIP) --disable-pip-version-check --constraint constraints.txt --editable '.[$(2)]'; fi
	@touch $(1)/.ready
endef

# A stamp older than what it was made from: the environment is made anew.
$(READY): pyproject.toml constraints.txt
	$(call environment,$(VENV),dev)
$(READY): PIP := --quiet

.venv-demo/.ready: pyproject.toml constraints.txt
	@echo 'Once: installing torch and scikit-learn into .venv-demo. On Linux torch brings CUDA: 2.6 GB to fetch, 5.7 GB on'
	@echo 'the disk, 2 to 10 minutes. On macOS: 0.2 GB to fetch. `make test` installs everything else.'
	$(call environment,.venv-demo,digits)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Each command is shown before it runs, as a user would type it.
demo: $(DEMO_VENV)/.ready ## fine-tune 12 real models from one start and mix them: under 2 minutes after the install
	@PATH="$(DEMO_BIN):$$PATH" SOUP_CACHE="$(CURDIR)/$(DEMO)/.cache" sh demo.sh $(DEMO)

test: $(READY) ## run the tests but for the longest ones, which make check runs too
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not long"

check: $(READY) ## what CI runs: format, lint, types, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

format: $(READY) ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## write docs/recipes.md and the keywords of soupcli's functions from the program's own models
	$(BIN)/python docs/recipes.py
	$(BIN)/python docs/keywords.py

layouts: $(LAYOUTS_VENV)/.ready ## soups of ultralytics, nnU-Net, speechbrain, NeMo, ... opened by these libraries: 4 GB to fetch
	$(CURDIR)/$(LAYOUTS_VENV)/bin/python -m pytest -q -W default tests/layouts

LAYOUTS_NEEDS := tests/layouts/requirements.txt tests/layouts/requirements-alone.txt
$(LAYOUTS_VENV)/.ready: pyproject.toml constraints.txt $(LAYOUTS_NEEDS)
	$(call environment,$(LAYOUTS_VENV),dev)
	$(LAYOUTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt -r tests/layouts/requirements.txt
	$(LAYOUTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/layouts/requirements-alone.txt
	@touch $@

trackers: $(TRACKERS_VENV)/.ready ## runs reported to trackio, wandb and mlflow, read back from their offline stores
	$(CURDIR)/$(TRACKERS_VENV)/bin/python -m pytest -q -W default tests/output/trackers

$(TRACKERS_VENV)/.ready: pyproject.toml constraints.txt tests/output/trackers/requirements.txt
	$(call environment,$(TRACKERS_VENV),dev)
	$(TRACKERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/output/trackers/requirements.txt
	@touch $@

site: $(SITE_VENV)/.ready ## build the pages as a site into site/, strictly: a dead link is an error
	$(CURDIR)/$(SITE_VENV)/bin/mkdocs build --quiet --strict

$(SITE_VENV)/.ready: constraints.txt
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt mkdocs-material
	@touch $@

cases: $(READY) ## run the cases of faults beside this folder, if they are there
	@if [ -f $(CASES) ]; then PATH="$(BIN):$$PATH" PYTHONPATH="$(CURDIR)/tests/helpers/former_names" $(BIN)/python $(CASES); else echo "skipped: there is no $(CASES)"; fi

gpu: $(READY) ## what a CUDA device must prove, in one call: within 8 minutes
	$(BIN)/python benchmarks/gpu.py

torture: $(READY) ## kills, hostile files, many processes at once, very large ingredients: for minutes
	$(BIN)/python -m tests.torture

results: $(READY) ## measure every seed of every demo into docs/results.md: about an hour on 2 cores
	$(BIN)/python benchmarks/results.py

results-decay: $(READY) ## mixing the end of a run against decaying its rate, into docs/results.md: about 15 minutes
	$(BIN)/python benchmarks/decay.py

results-experts: $(READY) ## a soup of experts of three texts, into docs/results.md: about 10 minutes
	$(BIN)/python benchmarks/experts.py

bench-startup: $(READY) ## how soon soup answers, as ratios to soup --help
	$(BIN)/python benchmarks/startup.py

bench-merge: $(READY) ## uniform soups beside mergekit and a loop over torch.load
	$(BIN)/python benchmarks/merge.py

bench-greedy: $(READY) ## rank and greedy beside the authors' loop
	$(BIN)/python benchmarks/greedy.py

bench-large: $(READY) ## language models of 1.1B and their adapters, from disk: 13 GB, 15 minutes
	$(BIN)/python benchmarks/large.py

bench-learned: $(READY) ## a step of learned beside forward and backward
	$(BIN)/python benchmarks/learned.py

bench-inspect: $(READY) ## inspect beside reading and hashing
	$(BIN)/python benchmarks/inspection.py

bench-growth: $(READY) ## time and memory as ingredients, tensors, rows, pictures and classes grow: quarter of an hour
	nice -n 19 $(BIN)/python benchmarks/growth.py

clean: ## remove environments, the demo and caches
	rm -rf $(VENV) .venv-demo $(SITE_VENV) $(LAYOUTS_VENV) $(TRACKERS_VENV) $(DEMO) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
