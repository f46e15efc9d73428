# Every target sets up what it needs: only Python (3.11 or newer) and make have to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help dev demo test slow nightly check format types bench clean

help: ## List the targets
	@echo "unistream: start with 'make demo' or 'make test'."; echo
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 12

$(BIN)/unistream: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing unistream and its tools into $(VENV): a minute or two, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(BIN)/unistream

dev: $(BIN)/unistream ## Make the environment and install the checkout into it

demo: dev ## Run the main job: batch, live, killed, resumed, compared
	$(BIN)/unistream demo

test: dev ## Run the tests, on up to four processors
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

slow: dev ## Run the tests that take longer than a few seconds
	$(BIN)/python -m pytest -q -m slow

nightly: dev ## Run the tests that take minutes to hours
	$(BIN)/python -m pytest -q -m nightly

check: dev format types ## Format, lint, types, layers
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_packaging.py

format: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: dev ## Type-check; io/ and state/ are linked where mypy and editors look for them
	@rm -rf .typing && mkdir -p .typing/unistream
	@ln -s $(CURDIR)/unistream/* $(CURDIR)/io $(CURDIR)/state .typing/unistream/
	cd .typing && $(abspath $(BIN))/mypy --config-file ../pyproject.toml -p unistream

bench: dev ## Run the benchmarks and print ratios
	$(BIN)/python -m benchmarks

clean: ## Remove what the other targets made
	rm -rf $(VENV) .typing build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
