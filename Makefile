# s2v: `make demo` turns a sound into a picture on a fresh machine; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo install install-dev test test-slow test-all check lint types format docs images bundle quality bench clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | \
		while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.stamp ## Turn examples/rain.wav into out.png and print the path.
	@$(BIN)/s2v gen examples/rain.wav -o out.png --force

install: $(VENV)/.stamp ## Make .venv with s2v in it.

install-dev: $(VENV)/.stamp-dev ## The same with what tests and checks need.

test: $(VENV)/.stamp-dev ## Run the default tests.
	$(BIN)/python -m pytest

test-slow: $(VENV)/.stamp-dev ## Run only the slow tests.
	$(BIN)/python -m pytest -m "slow and not network"

test-all: $(VENV)/.stamp-dev ## Run all tests that need no network.
	$(BIN)/python -m pytest -m "not network"

check: lint types ## Lint, format check and strict types.

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy follows neither setuptools' package-dir nor editable finders: it gets the tree as installed.
TYPED := $(VENV)/typed
types: $(VENV)/.stamp-dev
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/s2v_cli
	@ln -s $(CURDIR)/s2v_cli/* $(CURDIR)/presets $(CURDIR)/training $(TYPED)/s2v_cli/
	cd $(TYPED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p s2v_cli

format: $(VENV)/.stamp-dev ## Mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-dev ## Write docs/cli.md and docs/presets.md again.
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_presets.py

images: $(VENV)/.stamp-dev ## Draw the pictures of the README again.
	$(BIN)/python docs/generate_images.py

RUN := runs/mini
bundle: $(VENV)/.stamp-dev ## Make the finished run in RUN (runs/mini) the bundled model.
	$(BIN)/python -c 'import sys; from pathlib import Path; from s2v_cli.training.export import \
		bundle_preset; bundle_preset(Path(sys.argv[1]), Path("presets"))' $(RUN)/preset

DATA := data
SPLIT := test
quality: $(VENV)/.stamp-dev ## Measure the bundled model on held-out sounds of DATA: table and sheets.
	$(BIN)/python -m benchmarks.quality $(DATA) --split $(SPLIT) --out runs/quality

bench: $(VENV)/.stamp-dev ## Measure speed and quality; see benchmarks/.
	$(BIN)/python -m benchmarks

clean: ## Remove environment, builds and caches.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s2v needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV); torch is large, the first time takes minutes."
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	$(PIP_INSTALL) -e '.[video,train,eval,cluster,dev]'
	@touch $@
