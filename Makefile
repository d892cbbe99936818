# make demo   fine-tune real models from one start and mix them; make test   run the tests. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
CACHE_DEMO := $(CURDIR)/$(DEMO)/.cache

.PHONY: demo test check format docs torture results bench-merge bench-greedy bench-learned bench-inspect clean

# The stamp is older than what it was made from: the environment is made anew.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "soup needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Each command is shown before it runs, as a user would type it.
demo: $(READY)
	@PATH="$(BIN):$$PATH" SOUP_CACHE="$(CACHE_DEMO)" sh demo.sh $(DEMO)

test: $(READY)
	$(BIN)/python -m pytest -n 2 -q

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -q

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The page of all recipe keys, from the program's own models.
docs: $(READY)
	$(BIN)/python docs/recipes.py

# Every seed of every demo, into docs/results.md (about an hour on 2 cores).
results: $(READY)
	$(BIN)/python benchmarks/results.py

# Kills, hostile files, many processes at once, very large ingredients: what the tests try for seconds, for minutes.
torture: $(READY)
	$(BIN)/python -m tests.torture

bench-greedy: $(READY)
	$(BIN)/python benchmarks/greedy.py

bench-merge: $(READY)
	$(BIN)/python benchmarks/merge.py

bench-learned: $(READY)
	$(BIN)/python benchmarks/learned.py

bench-inspect: $(READY)
	$(BIN)/python benchmarks/inspection.py

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
