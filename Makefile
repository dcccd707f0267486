SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help demo test unit check audit sbom fmt faults fuzz bench dashboards lock clean runtime dev servers

VENV ?= .venv
SECONDS ?=
WORKERS ?= auto
UV ?= uv

# compiled modules halve the start of every process
unexport PYTHONDONTWRITEBYTECODE
# where Debian keeps mosquitto
export PATH := $(abspath $(VENV))/bin:$(PATH):/usr/sbin:/sbin

help:  ## show this help
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' Makefile | column -t -s '|'

demo: runtime  ## run the whole platform with a simulated plant, until Ctrl-C (or SECONDS=60)
	@iiot demo $(if $(SECONDS),--seconds $(SECONDS))

# tests of a module stay with one worker until another has none left: what they share is made once
PYTEST := python -m pytest -n $(WORKERS) --dist worksteal

test: check servers  ## check, then all tests, with real servers
	@$(PYTEST)

unit: dev  ## the unit tests alone, without a server: at every save (K=word: some of them)
	@$(PYTEST) -q $(if $(K),-k "$(K)") tests/unit

check: dev  ## formatting, lint, types, directions between packages, known vulnerabilities
	@ruff format --check --quiet . || { echo "error: run 'make fmt'" >&2; exit 1; }
	@ruff check --quiet .
	@mypy
	@lint-imports --no-logo
	@python -m tools.audit --daily

audit: dev  ## look for known vulnerabilities of the dependencies now
	@python -m tools.audit

sbom: dev  ## write bill of materials (CycloneDX) and licences of what is shipped into build/
	@mkdir -p build
	@cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
	    -o build/sbom.cdx.json requirements.lock
	@python -m tools.licences > build/licences.csv
	@echo "build/sbom.cdx.json build/licences.csv"

fmt: dev  ## format, and mend what the linter can mend
	@ruff format .
	@ruff check --fix .

faults: dev servers  ## break everything on purpose, some 200 times, and show what was lost
	@IIOT_TEST_ALL_FAULTS=1 $(PYTEST) -q -m faults

fuzz: dev  ## send FUZZ=1000000 payloads, most of them broken, through the decoders
	@python -m tests.fuzz.payloads --count $(or $(FUZZ),1000000)
	@python -m tests.fuzz.sparkplug_messages --count $$(( $(or $(FUZZ),1000000) / 20 ))

bench: dev servers  ## run the benchmarks and show their figures
	@for bench in tests/benchmarks/bench_*.py; do python -m tests.benchmarks.$$(basename $$bench .py); done

dashboards: dev  ## write dashboards, alerts, references in docs/ and the chart's copies from what is declared
	@python -m tools.dashboards
	@python -m tools.tables
	@python -m tools.metrics
	@python -m tools.alerts
	@python -m tools.chart

lock:  ## resolve pyproject.toml into the lock files again (UPGRADE=1: newest versions)
	@command -v $(UV) >/dev/null || { echo "error: 'make lock' needs uv; install it with 'pip install uv'" >&2; exit 1; }
	@compile() { $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-strip-extras $(if $(UPGRADE),--upgrade) "$$@"; }; \
	compile --group pyproject.toml:build -o requirements-build.lock; \
	compile pyproject.toml -o requirements.lock; \
	compile --group dev pyproject.toml -o requirements-dev.lock
	@! grep -nE '://' requirements*.lock || { echo "error: a lock file holds a URL" >&2; exit 1; }

clean:  ## remove the virtual environment and all caches; var/ stays
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime:
	@tools/venv $(VENV) requirements.lock

dev:
	@tools/venv $(VENV) requirements-dev.lock

servers:
	@tests/servers/install
