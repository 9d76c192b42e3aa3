# `make` alone lists what there is. Everything runs in ./.venv, made on first use; nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY_VENV := .venv-parity
CONFORMANCE_VENV := .venv-conformance

# Both names: pip before 25.3 pins build requirements by the first, later ones by the second.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/kernels/*)
PIP_INSTALL = -m pip install --quiet --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test test-long check parity accuracy conformance format constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Parrot needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# Two stamps, so that the demo installs what runs Parrot and nothing more.
$(VENV)/.run-installed: $(BUILD_INPUTS) | $(BIN)/python
	@echo "Installing Parrot into $(VENV) (once)"
	$(BIN)/python $(PIP_INSTALL) .
	@$(BIN)/python -m parrotserve.cpu
	@touch $@

$(VENV)/.dev-installed: $(BUILD_INPUTS) | $(BIN)/python
	@echo "Installing Parrot with its test and check tools into $(VENV) (once)"
	$(BIN)/python $(PIP_INSTALL) ".[test,check]"
	@$(BIN)/python -m parrotserve.cpu
	@touch $@ $(VENV)/.run-installed

demo: $(VENV)/.run-installed  ## run the snake game program on a small real model
	$(BIN)/parrot run examples/write_snake_game.py

serve: $(VENV)/.run-installed  ## serve over HTTP; options in ARGS, e.g. make serve ARGS="--port 9000"
	$(BIN)/parrot serve $(ARGS)

# Unit tests only compute, so they run on all cores; services and engines get the machine for themselves.
test: $(VENV)/.dev-installed  ## all tests but the long ones; options in ARGS, e.g. ARGS="-k graph"
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -m "not long" --numprocesses logical --maxprocesses 8 tests/unit
	$(BIN)/python -m pytest -m "not long" --ignore tests/unit
else
	$(BIN)/python -m pytest -m "not long" $(ARGS)
endif

test-long: $(VENV)/.dev-installed  ## every test, the long ones and every example on the real model too
	$(BIN)/python -m pytest --hypothesis-profile=search $(ARGS)

check: $(VENV)/.dev-installed  ## lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.dev-installed  ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

$(PARITY_VENV)/.installed: $(BUILD_INPUTS) scripts/parity-requirements.txt
	test -x $(PARITY_VENV)/bin/python || $(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python $(PIP_INSTALL) . --requirement scripts/parity-requirements.txt
	@touch $@

parity: $(PARITY_VENV)/.installed  ## compare live with Hugging Face transformers, in an environment of its own
	$(PARITY_VENV)/bin/python scripts/golden.py --check

# Clients as their users get them today: not pinned.
$(CONFORMANCE_VENV)/.installed: $(BUILD_INPUTS)
	test -x $(CONFORMANCE_VENV)/bin/python || $(PYTHON) -m venv $(CONFORMANCE_VENV)
	env -u PIP_CONSTRAINT $(CONFORMANCE_VENV)/bin/python $(PIP_INSTALL) ".[test,conformance]"
	@touch $@

conformance: $(CONFORMANCE_VENV)/.installed  ## run OpenAI's, LangChain's and other clients, and Schemathesis, against the service
	$(CONFORMANCE_VENV)/bin/python -m pytest -W ignore tests/conformance $(ARGS)

accuracy: $(PARITY_VENV)/.installed  ## measure what bf16, int8 and int4 cost, beside PyTorch's bf16; minutes
	$(PARITY_VENV)/bin/python scripts/accuracy.py

# Resolved anew in an empty environment, so that nothing left over is pinned.
constraints:  ## renew constraints.txt from pyproject.toml
	rm -rf .venv-constraints
	$(PYTHON) -m venv .venv-constraints
	env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT .venv-constraints/bin/python scripts/constraints.py > constraints.new
	mv constraints.new constraints.txt
	rm -rf .venv-constraints

clean:  ## remove environments, caches and build output
	rm -rf $(VENV) $(PARITY_VENV) $(CONFORMANCE_VENV) .venv-constraints build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.so' -delete
