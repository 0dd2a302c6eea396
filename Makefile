# The menu. `make help` lists it. Needs git, make, Python 3.11 or 3.12 with venv and pip; the rest is fetched into
# this checkout (.tool/ holds uv, .venv/ the environment) and nothing else on the machine is touched.

PYTHON ?= python3
ARGS ?=

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_PYTHON_DOWNLOADS := never
ifeq ($(shell test -d "$$HOME" && test -w "$$HOME" && echo yes),)
export UV_CACHE_DIR := $(CURDIR)/.tool/cache
endif

BIN := .venv/bin
UV := .tool/bin/uv
LOCKS := requirements/tool.txt requirements/run.txt requirements/dev.txt
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
# The environment for developers holds everything that the other one does, so it is never taken away again.
READY := $(if $(wildcard .venv/dev.stamp),.venv/dev.stamp,.venv/run.stamp)
# Random orders and examples are drawn anew for each commit; SEED=N draws those of another run again.
SEED ?= $(shell printf '%d' 0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0))
WORKERS ?= 2
HISTORIES ?= 100000
# A file goes to one worker: what its tests share is made once.
DIST := --dist loadfile --no-loadscope-reorder
TORTURE = $(BIN)/pytest -n $(WORKERS) --hypothesis-profile=torture --hypothesis-seed=$(SEED) --randomly-seed=$(SEED) --timeout=3600

.PHONY: help install install-dev demo test test-deps test-postgres test-bare simulate lint audit bench torture torture-machines torture-crashes torture-money reference lock clean ci

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

install: $(READY) ## the program, in .venv/ (PYTHON=/path/to/python3.11 picks the interpreter)

install-dev: .venv/dev.stamp ## the same, with what tests and lint need

demo: install ## agents buy real work on this machine: make demo ARGS=--crash
	@$(BIN)/vendo demo $(ARGS)

test: install-dev ## the tests: make test ARGS='tests/unit -k money'
	@$(BIN)/pytest -n $(WORKERS) $(DIST) --hypothesis-seed=$(SEED) --randomly-seed=$(SEED) $(ARGS)

test-deps: .tool/uv.stamp ## what the interop tests need (root, Debian)
	@PYTHON="$(PYTHON)" sh scripts/test-deps.sh

test-postgres: install-dev ## only the tests that need PostgreSQL, which is installed if it is missing (root, Debian)
	@sh scripts/test-postgres.sh
	@$(BIN)/pytest -n $(WORKERS) $(DIST) --hypothesis-seed=$(SEED) --randomly-seed=$(SEED) --part=postgres $(ARGS)

test-bare: ## proves `make demo` on a bare Debian, in a chroot (root, Debian)
	@sh scripts/test-bare.sh $(ARGS)

simulate: install-dev ## 100,000 histories of a market of pure machines, 20 with 2,000 nodes: make simulate HISTORIES=N, ARGS='--seed N' for one's story
	@$(BIN)/python -m tests.simulation.pure --histories $(HISTORIES) --first $(SEED) --workers $(WORKERS) $(ARGS)

lint: install-dev ## style, types, import contracts, known vulnerabilities
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/audit.py

audit: install-dev ## known vulnerabilities of what is installed, and those accepted, with reasons
	@$(BIN)/python scripts/audit.py --verbose $(ARGS)

bench: install-dev ## ratios to what is measured in the same run: make bench ARGS="relay pool agents flood spam paid strain query tick postgres http sse listing market"
	@$(BIN)/python -m bench $(ARGS)

torture: torture-machines torture-crashes torture-money ## all full counts, one part after the other: some hours; a part alone is an hour or so

torture-machines: install-dev ## 150,000 histories of the pure machines, and the property tests at length
	@$(BIN)/python -m tests.simulation.pure --histories 150000 --first $(SEED) --workers $(WORKERS)
	@$(TORTURE) $(DIST) tests/property $(ARGS)

torture-crashes: install-dev ## kills and freezes of relays and engines, ten thousands of requests
	@$(TORTURE) $(DIST) tests/integration/relays/test_kill.py tests/integration/agent/test_kill.py tests/contract/test_pool.py \
		tests/acceptance/test_openapi.py $(ARGS)

torture-money: install-dev ## buyer, seller and mint killed, and disks that fail, at every step of every settlement method
	@$(TORTURE) --dist load tests/integration/settlement $(ARGS)

reference: install-dev ## the reference pages that are made from the code
	@PYTHONPATH=. $(BIN)/python scripts/reference.py

lock: .tool/uv.stamp ## newest allowed versions into requirements/
	@$(COMPILE) --output-file requirements/tool.txt requirements/tool.in
	@$(COMPILE) --override requirements/override.txt --extra build --output-file requirements/run.txt pyproject.toml
	@$(COMPILE) --override requirements/override.txt --extra build --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt pyproject.toml

clean: ## everything that was made here
	@rm -rf .venv .tool .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/interop/node/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ci: ## what a change must pass
	@bash .ci/run

.tool/uv.stamp: requirements/tool.txt
	$(if $(shell sh scripts/python-fault.sh "$(PYTHON)"),$(error $(shell sh scripts/python-fault.sh "$(PYTHON)")))
	@test -x $(UV) || { rm -rf .tool && "$(PYTHON)" -m venv .tool; }
	@.tool/bin/python -m pip install --quiet --require-hashes --requirement requirements/tool.txt
	@touch $@

# Compiled once, here: each command, node and worker of the tests would otherwise compile all that it imports.
define sync
	@test -x $(BIN)/python || $(UV) venv --quiet --no-project --python .tool/bin/python .venv
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes --build-constraints requirements/run.txt $(1)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --reinstall-package vendo --refresh-package vendo --editable .
	@$(BIN)/python -m compileall -q core relays wallet dvm fs node cli
endef

.venv/run.stamp: .tool/uv.stamp requirements/run.txt pyproject.toml
	@echo "Installing into .venv/ ..."
	$(call sync,requirements/run.txt)
	@touch $@

.venv/dev.stamp: .tool/uv.stamp requirements/dev.txt pyproject.toml
	@echo "Installing into .venv/ ..."
	$(call sync,requirements/dev.txt)
	@touch $@ .venv/run.stamp
