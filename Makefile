# Every target sets up what it needs; no root. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
UNITS := $(BIN)/pytest -n 4 --dist worksteal -m "not real"

.PHONY: help setup lint check test fuzz crash demo format lock map facts clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv/bin/postweir

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Postweir needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv (once; about half a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

check: setup lint ## format, lint, types, the house, unit and property tests: under a minute
	@$(UNITS)

test: setup lint ## the same with all pains taken, then real processes and real peers: ten minutes
	@POSTWEIR_PROPERTIES=thorough $(UNITS)
	@$(BIN)/pytest -m real

lint: setup
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

fuzz: setup ## hostile inputs for every parser, guided by coverage; FUZZ="smtp_server --seconds 600" for one
	@$(BIN)/python -m tests.fuzz $(or $(FUZZ),all --seconds 60)

crash: setup ## attack the promise behind a 250: make crash CRASH="--seconds 600"
	@$(BIN)/python -m tests.crash $(CRASH)

demo: setup ## one evening of mail through all of it, on loopback, with a scratch directory
	@$(BIN)/python -m demo $(DEMO)

format: setup ## let ruff write the files its way
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

lock: setup ## resolve pyproject.toml anew into requirements/*.lock (needs uv)
	@uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml -o requirements/runtime.lock
	@uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml --group dev -o requirements/dev.lock

map: setup ## print every module with its sentence
	@$(BIN)/python tests/map.py

facts: setup ## write docs/facts.md from the schema
	@$(BIN)/python -m tests.facts_page

clean: ## remove what setup and the tests made
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
