# Every target first installs what it needs into .venv; no manual set-up is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
TOOLS := $(VENV)/.tools
NODE := tests/portability
PACKAGES := $(VENV)/packages/.installed
SEEDS ?= 100
JOBS ?= 4
KILLS ?= 50
POSTED ?= 10000
OUTAGE ?= 2000

.PHONY: setup dev test check portable docs screenshots crash drills bench endure sim mutants pythons wheel clean servers browser

setup: $(RUNTIME) $(TOOLS)

dev: $(RUNTIME)
	@$(BIN)/edgesim dev $(ARGS)

test: $(RUNTIME) $(TOOLS) $(PACKAGES) servers browser portability
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(RUNTIME) $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_tidy.py

# The documentation site, in docs/_build/html.  Warnings are errors.
docs: $(TOOLS)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# The pictures of the web pages in docs/images.
screenshots: $(RUNTIME) $(TOOLS) browser
	$(BIN)/python -m tests.browser.screenshots

# kill -9 at random moments; SEED=n selects other moments.  POSTED events go through the pipeline in
# TypeScript, a kill for each thousand.
crash: $(RUNTIME) $(TOOLS) portability
	KILLS=$(KILLS) POSTED=$(POSTED) $(BIN)/pytest tests/crash $(ARGS)

# The tests of isolates, runtime and commands with everything left out that Linux alone has: the code
# that runs on macOS (docs/explanation/systems.md).  Tests with the marker `linux` are skipped.
PORTABLE_TESTS := tests/portable tests/conformance tests/isolation tests/cli
portable: $(RUNTIME) $(TOOLS)
	EDGESIM_PORTABLE=1 $(BIN)/pytest -n $(JOBS) --dist loadfile $(PORTABLE_TESTS) $(ARGS)

# Outages of each server under a running node that are too long for `make test`.
drills: $(RUNTIME) $(TOOLS) servers
	OUTAGE=$(OUTAGE) $(BIN)/pytest --timeout 300 tests/nodes/test_faults.py $(ARGS)

# Random traffic and faults, all checkers.  SEED=123 repeats one run, SEEDS=1000 runs the first thousand.
sim: $(RUNTIME) $(TOOLS)
	$(BIN)/python -m tests.simulation.run $(if $(SEED),--first $(SEED) --seeds 1,--seeds $(SEEDS)) $(ARGS)

# Mutation tests of the simulation and the tests: ARGS='outbox lease' selects some mutations.
mutants: $(RUNTIME) $(TOOLS)
	$(BIN)/python -m tests.mutants.run --jobs $(JOBS) $(ARGS)

# Environments for the other installed Python versions: the tests compare replays between them.
pythons:
	@for version in 3.11 3.12 3.13; do \
	  python=; for each in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
	    $$each -c '' 2>/dev/null && python=$$each; done; \
	  if test -z "$$python"; then echo "no python$$version here"; continue; fi; \
	  test -d .venv-$$version || $$python -m venv .venv-$$version; \
	  .venv-$$version/bin/pip install --quiet --editable . && \
	  .venv-$$version/bin/pip install --quiet --no-deps 'chdb-core>=26.5'; \
	done

# The built wheel in empty environments of all Python versions that are here; `make test` has one.
wheel: $(RUNTIME) $(TOOLS)
	WHEEL_PYTHONS="3.11 3.12 3.13" $(BIN)/pytest tests/packaging/test_wheel.py $(ARGS)

# 20,000 requests per isolation level, 5 % of them attacks: ARGS='--level warm --requests 5000 --seed 2'.
endure: $(RUNTIME) $(TOOLS)
	$(BIN)/python tests/isolation/endurance.py $(ARGS)

bench: $(RUNTIME) $(TOOLS) portability
	$(BIN)/python tests/bench/levels.py $(ARGS)
	$(BIN)/python -m tests.bench.chain
	$(BIN)/python -m tests.bench.backends
	$(BIN)/python -m tests.bench.replay $(ARGS)
	$(BIN)/python tests/bench/receiver.py
	$(BIN)/python tests/bench/compression.py
	$(BIN)/python tests/bench/streams.py
	$(BIN)/python tests/bench/javascript.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis workers/.edgesim $(NODE)/node_modules

# edgesim and the embedded engine.  --no-deps omits the data-frame packages of chdb-core (320 MB).
$(RUNTIME): pyproject.toml $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	$(BIN)/pip install --quiet --no-deps 'chdb-core>=26.5'
	@touch $@

$(TOOLS): pyproject.toml $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

# Packages as projects vendor them, for the test that popular ones work at every level.
$(PACKAGES): tests/packages/requirements.txt $(BIN)/python
	$(BIN)/pip install --quiet --upgrade --target $(@D)/python_modules --requirement $<
	@touch $@

# Debian has venv in a separate package.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "edgesim needs Python >= 3.11; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory venv-package
	$(PYTHON) -m venv $(VENV)

.PHONY: venv-package
venv-package:
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  || { echo "Python's venv module is missing; install it: sudo apt-get install python3-venv"; exit 2; }
	apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv

# The platform's Python and command line, for the tests that Workers behave there as in edgesim.
# npm installs the Node that they need.  Without npm these tests are skipped.
.PHONY: portability
portability:
	@command -v npm >/dev/null && command -v shellcheck >/dev/null || $(MAKE) --no-print-directory npm
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory $(NODE)/node_modules/.installed \
	  || echo "npm could not install: the tests against the platform's own Python skip"

$(NODE)/node_modules/.installed: $(NODE)/package-lock.json
	cd $(NODE) && npm ci --silent --no-audit --no-fund
	@touch $@

.PHONY: npm
npm:
	@if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends \
	      $$(command -v npm >/dev/null || echo npm) shellcheck >/dev/null; \
	else echo "npm or shellcheck is missing (sudo apt-get install npm shellcheck): tests skip"; fi

# A real ClickHouse server for the tests of that backend.  Without it they are skipped.
servers:
	@command -v clickhouse-server >/dev/null || $(MAKE) --no-print-directory clickhouse-server

.PHONY: clickhouse-server
clickhouse-server:
	@if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends clickhouse-server >/dev/null; \
	else echo "no clickhouse-server here (sudo apt-get install clickhouse-server): its tests skip"; fi

# A browser for the tests of the web pages.  Without it they are skipped.
browser:
	@command -v chromium >/dev/null || $(MAKE) --no-print-directory chromium

.PHONY: chromium
chromium:
	@if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else echo "no chromium here (sudo apt-get install chromium): its tests skip"; fi
