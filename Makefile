# make demo    watch real photographs being classified and the batch size being governed (finite, no GPU needed)
# make test    run the tests
# make check   lint, formatting, types, import rules
# make bench   measure the server against an echo server, ONNX Runtime alone and other servers
# make wheel   build the wheel;  make wheel-test  run the tests against the built wheel
#
# Each makes its virtual environment on first use. Another interpreter: make test PYTHON=python3.12
# Tests run in two processes; make test WORKERS=0 runs them in one.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check format bench bench-peers wheel wheel-test clean help
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -7

demo: $(INSTALLED)
	$(BIN)/python -m bench.demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m bench.serving $(ARGS)

# Installs the servers that the benchmark compares with, each into its own environment under .peers/.
bench-peers: $(INSTALLED)
	$(BIN)/python -m bench.peers.install $(ARGS)

wheel: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

wheel-test: $(INSTALLED)
	$(BIN)/python -m pytest -m wheel tests/wheel $(ARGS)

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp is written last: an interrupted installation is taken up again by the next make.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Boulton needs Python 3.11 or newer, this is %s: make PYTHON=python3.12" % sys.version.split()[0])'
	@echo 'Installing into $(VENV): a few minutes the first time.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,rtx,torch,photos,tournament,study]' --group dev
	@touch $@
