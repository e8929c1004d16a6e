# Needs make and Python 3.11, 3.12 or 3.13; everything else is set up in .venv on first use.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
SOURCES := orchestrator server tools resources tests examples benchmarks
NODE_DIR := tests/protocol/node
LLM := .venv-llm
TEST_WORKERS := 2

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMPS)/base ## The main job end to end: a flow over MCP, a crash in mid-run, the resumption
	@$(BIN)/contexten-flow demo

.PHONY: test
test: $(STAMPS)/dev ## All tests
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMPS)/dev ## Style, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(STAMPS)/dev ## Measure beside the ceiling and peers; keeps the table in docs/performance.md
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

.PHONY: conformance
conformance: $(STAMPS)/dev node-tools ## The public MCP conformance suite against the running server
	CONTEXTEN_REQUIRE_ALL=1 $(BIN)/python -m pytest tests/protocol/conformance $(PYTEST_ARGS)

.PHONY: node-tools
node-tools: $(NODE_DIR)/node_modules/.stamp ## The MCP Inspector and the conformance suite, for the tests that use them

$(NODE_DIR)/node_modules/.stamp: $(NODE_DIR)/package.json
	@command -v npm >/dev/null || { echo "Node.js with npm is needed for this: install it, then try again." >&2; exit 1; }
	cd $(NODE_DIR) && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: chaos
chaos: $(STAMPS)/dev ## Kill, stop, disturb and compare far longer than `make test` does (about half an hour)
	CONTEXTEN_CHAOS=full $(BIN)/python -m pytest tests/crash tests/properties/test_execution.py tests/properties/test_control.py -o timeout=1800 $(PYTEST_ARGS)

.PHONY: soak
soak: $(STAMPS)/dev ## Half an hour of hooks, schedules, clients and the dashboard at once: nothing lost, memory flat
	CONTEXTEN_SOAK=1800 $(BIN)/python -m pytest tests/soak -s $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: $(STAMPS)/dev ## Try the HTTP API with far more requests than `make test` does (some minutes)
	CONTEXTEN_FUZZ=full $(BIN)/python -m pytest tests/protocol/test_api_fuzz.py -o timeout=1800 $(PYTEST_ARGS)

.PHONY: test-llm
test-llm: $(STAMPS)/dev $(LLM)/.stamp ## Tests with a small language model that really runs (a download of 110 MB)
	CONTEXTEN_LLM=1 $(BIN)/python -m pytest tests/engines/llm $(PYTEST_ARGS)

$(LLM)/.stamp: tests/engines/llm/requirements.txt | $(STAMPS)/venv
	@echo "Setting up $(LLM) (once) ..."
	@$(BIN)/python -m venv --clear $(LLM)
	@$(LLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

.PHONY: build
build: $(STAMPS)/dev ## Wheel and source distribution in dist/
	rm -rf dist
	$(BIN)/python -m build --installer uv --outdir dist .

.PHONY: clean
clean: ## Remove all that make made
	rm -rf $(VENV) .venv-bench $(LLM) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf $(NODE_DIR)/node_modules
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@found=""; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
		if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
			found="$$candidate"; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 was found. Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "Python $$version here cannot make virtual environments (no ensurepip)." >&2; \
		echo "On Debian and Ubuntu: apt-get install python$$version-venv. Or name another Python: make PYTHON=... " >&2; exit 1; \
	fi; \
	[ -x $(BIN)/python ] || "$$found" -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/base: pyproject.toml constraints.txt | $(STAMPS)/venv
	@echo "Setting up $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade -c constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable .
	@touch $@

$(STAMPS)/dev: pyproject.toml constraints.txt | $(STAMPS)/base
	@echo "Installing the engines and what tests and checks need (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt --editable '.[all]' --group dev
	@touch $@
