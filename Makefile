# Every target sets itself up in .venv from a bare machine: Python 3.11 or newer, make and a package index.
# The stamps .venv/.core, .dev and .train make pip run again only when pyproject.toml has changed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo check test bench soak clean lint browser postgres

SHELL := /bin/sh
BIN := .venv/bin
SHARED := $(addprefix benchmarks/,callers.py figures.py peers.py servers.py soak.py street.py workbench.py)
BENCHMARKS := $(filter-out $(SHARED),$(wildcard benchmarks/*.py))

export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DEBIAN_FRONTEND := noninteractive

help:
	@echo "make demo    a small model improves itself on real tool calls, about 10 minutes on 2 cores"
	@echo "make check   format, lint, types, import contracts and fast tests: under a minute, no network"
	@echo "make test    the same with all the slow tests: real models, training, a real browser and PostgreSQL, the wheel"
	@echo "make bench   every benchmark, each peer in an environment of its own; results in out/benchmarks"
	@echo "make soak    the proxy for 30 minutes under load, faults and killed workers, then the books are checked"
	@echo "make clean   remove all that make made here: .venv, out, caches (receipts stay)"

demo: .venv/.core
	$(BIN)/gainful demo

check: lint
	$(BIN)/pytest -m "not slow" -n auto --dist loadfile

test: lint browser postgres .venv/.train
	$(BIN)/pytest

bench: .venv/.train
	@for script in $(BENCHMARKS); do \
	    echo "== $$script"; \
	    $(BIN)/python $$script || exit 1; \
	done

soak: .venv/.dev
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The browser in which the tests open the HTML report; without it that one test is skipped.
browser:
	@if { command -v chromium || command -v google-chrome; } >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq </dev/null && \
	    apt-get install -y -qq --no-install-recommends chromium chromium-driver </dev/null >/dev/null; \
	else \
	    echo "The report's browser test is left out: it needs chromium and chromedriver (Debian: chromium-driver)." >&2; \
	fi

# The server on which the tests open stores; it runs from a folder of theirs.  Without it those tests are skipped.
postgres:
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq </dev/null && \
	    apt-get install -y -qq --no-install-recommends postgresql </dev/null >/dev/null; \
	else \
	    echo "The tests of stores on a server are left out: they need PostgreSQL 13 or newer (Debian: postgresql)." >&2; \
	fi

.venv/.made:
	@.ci/venv .venv
	@touch $@

.venv/.core: pyproject.toml | .venv/.made
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.train: pyproject.toml | .venv/.made
	$(BIN)/python -m pip install --quiet --editable '.[dev,train,ray]'
	@touch .venv/.core .venv/.dev $@

.venv/.dev: pyproject.toml | .venv/.made
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch .venv/.core $@
