# Two commands: `make run` sets everything up and runs the service; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test prove bench lock clean lint

run: $(VENV)/.run
	@exec $(BIN)/xinqiao serve

test: $(VENV)/.test lint
	$(BIN)/pytest -n 2 -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Xinqiao needs Python 3.11 or newer: this is " + sys.version.split()[0] + ". Name another with make PYTHON=python3.12 run")'
	@echo "Making the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# --require-hashes: what is installed is what was locked. The lock names no index, pip's own setting does.
$(VENV)/.run: requirements/run.lock $(VENV)/bin/python
	@echo "Installing the locked packages (about a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.test: requirements/test.lock $(VENV)/.run
	@echo "Installing the locked test packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.lock
	@touch $@

# Needs `uv`. service.lock is what the image installs, run.lock adds the embedded servers, test.lock the tools.
LOCK = uv pip compile -q --generate-hashes --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11
lock:
	$(LOCK) pyproject.toml --all-extras -o requirements/test.lock $(UPGRADE)
	$(LOCK) pyproject.toml --extra embedded -c requirements/test.lock -o requirements/run.lock
	$(LOCK) pyproject.toml -c requirements/test.lock -o requirements/service.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
