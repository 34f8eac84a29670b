# Everything a developer runs.  `make help` lists it; `.ci/run` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two workers by default, one for each of a recipe's machines would only wait for its image.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench torture judges images clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.done ## Read a filesystem that ships with the project: needs only Python and pip
	@tools/demo $(BIN)/python

test: $(VENV)/.done ## All tests; judged ones where root, loop mounts and the tools are (under 12 minutes)
	@tools/install-judges
	$(PYTEST) $(ARGS)

check: $(VENV)/.done ## ruff and mypy, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.done ## Lay the code out and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.done ## Speed and memory, as ratios to other programs on the same image (root)
	@tools/install-judges --bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check libfsxfs-python dissect.xfs
	$(BIN)/python bench/read_bench.py $(ARGS)
	$(BIN)/python bench/fuse_bench.py $(ARGS)
	$(BIN)/python bench/journal_bench.py

torture: $(VENV)/.done ## The slow tests too, every image on every machine, damage and crash campaigns: hours; resumable
	@tools/install-judges
	$(PYTEST) --torture $(ARGS)
	$(BIN)/python tools/torture_damage.py --structured --cases 10000 --resume .torture-damage.json
	$(BIN)/python tools/torture_journal.py --structured --damage 5000 --crashes 15 --resume .torture-journal.json

judges: ## Install what judged tests need (root, Debian), and say what is missing
	@tools/install-judges

images: $(VENV)/.done ## Make all test images now (root); tests make them as they need them
	$(BIN)/python -m tests.judge.kernel $(ARGS)

clean: ## Remove the venv and caches; test images stay in ~/.cache/pocketxfs-images
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
