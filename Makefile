# Two commands: `make run` sets everything up and runs the service; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test prove bench programs lock clean lint

run: $(VENV)/.run
	@exec $(BIN)/xinqiao serve

test: $(VENV)/.test lint
	$(BIN)/pytest -n 2 -m "not slow"

# Everything at full size, one after another, the short ones first, for about two hours; ends in a table: promise, kept or missed, what was measured.
prove: PROGRAMS = wrk chromium ffmpeg
prove: $(VENV)/.test programs
	$(BIN)/pytest -m slow -q tests/test_*.py tests/promises

bench: PROGRAMS = wrk
bench: $(VENV)/.test programs
	$(BIN)/python -m tests.bench.reads
	$(BIN)/python -m tests.bench.contributions
	$(BIN)/python -m tests.bench.sync
	$(BIN)/python -m tests.bench.pushes
	$(BIN)/python -m tests.bench.search $(LESSONS)

# Debian's packages, when they are missing and we may install them; without them the proofs that need them are skipped.
programs:
	@for name in $(PROGRAMS); do \
	  command -v $$name >/dev/null && continue; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing $$name"; apt-get update -q >/dev/null; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$name >/dev/null || echo "$$name could not be installed"; \
	  else echo "$$name is missing: install it with apt-get as root, or go without what needs it"; fi; \
	done

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Xinqiao needs Python 3.11 or newer: this is " + sys.version.split()[0] + ". Name another with make PYTHON=python3.12 run")'
	@echo "Making the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# --require-hashes: what is installed is what was locked (with --no-deps: nothing is left to find out). The lock names no index,
# pip's own setting does.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
$(VENV)/.run: requirements/run.lock $(VENV)/bin/python
	@echo "Installing the locked packages (about a minute the first time)"
	@$(INSTALL) --no-deps --require-hashes -r requirements/run.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: requirements/test.lock $(VENV)/.run
	@echo "Installing the locked test packages"
	@$(INSTALL) --no-deps --require-hashes -r requirements/test.lock
	@touch $@

# Needs `uv`. service.lock is what the image installs, run.lock adds the embedded servers, test.lock the tools.
LOCK = uv pip compile -q --generate-hashes --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11
lock:
	$(LOCK) pyproject.toml --all-extras -o requirements/test.lock $(UPGRADE)
	$(LOCK) pyproject.toml --extra embedded -c requirements/test.lock -o requirements/run.lock
	$(LOCK) pyproject.toml -c requirements/test.lock -o requirements/service.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
