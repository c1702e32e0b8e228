# All set-up happens by itself: the first `make run` or `make test` installs what the lock files pin into .venv and
# node_modules, later ones find the stamps and do no work. Needs Python >= 3.11; for the tests also Node >= 20 with npm.
PYTHON ?= python3
#: Handed on: `make run ARGS=...`, `make test ARGS="-k journey"`, `make prove ARGS=...`, `make bench ARGS=...`.
ARGS ?=
#: `make cost MESSAGES=...`.
MESSAGES ?= 1e6
#: `make lock UPGRADE=--upgrade` moves every pin to the newest release, `UPGRADE="--upgrade-package mypy"` one of them.
UPGRADE ?=

PY := .venv/bin/python
INSTALL := $(PY) -m pip install --disable-pip-version-check --no-input -qq --require-hashes -r
COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE)
LOCAL := .venv/.local-installed
TOOLS := .venv/.tools-installed
CLIENTS := node_modules/.installed
EMULATOR := .venv-emulator/.installed

.PHONY: run test lint prove bench cost docs lock setup clean
.DELETE_ON_ERROR:

run: $(LOCAL)
	@PYTHONPATH=functions exec $(PY) -m waypost.local $(ARGS)

test: lint $(CLIENTS) $(EMULATOR)
	$(PY) -m pytest $(ARGS)

lint: $(TOOLS)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Fresh seeds for the simulator; prints each one that fails.
prove: $(TOOLS)
	@PYTHONPATH=functions:tests exec $(PY) -m simulator.prove $(ARGS)

bench: $(TOOLS)
	@PYTHONPATH=functions exec $(PY) -m benchmarks $(ARGS)

# Dollars on AWS, from the figures that the tests count.
cost: $(TOOLS)
	@$(PY) -m benchmarks.cost $(MESSAGES)

# What is written from the code.
docs: $(TOOLS)
	@PYTHONPATH=functions $(PY) -m waypost.openapi.limit_table > docs/limits.md

setup: $(TOOLS) $(CLIENTS) $(EMULATOR)

# One resolution for all three files: the two that ship take their versions from the full one.
lock: $(TOOLS)
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) --constraints requirements.txt functions/requirements-local.in -o functions/requirements-local.txt
	$(COMPILE) --constraints requirements.txt functions/requirements.in -o functions/requirements.txt
	$(COMPILE) requirements-emulator.in -o requirements-emulator.txt
	npm install --package-lock-only

clean:
	rm -rf .venv .venv-emulator node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Waypost needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv

$(LOCAL): functions/requirements-local.txt | $(PY)
	$(INSTALL) $<
	@touch $@

# The full lock file holds all of the local server's too.
$(TOOLS): requirements.txt | $(PY)
	$(INSTALL) $<
	@touch $(LOCAL) $@

$(CLIENTS): package-lock.json
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || \
		{ echo 'The tests need Node 20 or newer, with npm, on the PATH. (make run needs neither.)' >&2; exit 1; }
	npm ci --silent
	@touch $@

$(EMULATOR): requirements-emulator.txt
	$(PYTHON) -m venv --clear .venv-emulator
	.venv-emulator/bin/python -m pip install --disable-pip-version-check --no-input -qq --require-hashes -r $<
	@touch $@
