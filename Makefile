# The two commands are `make demo` and `make test`. Everything they need, they make or install.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
SOURCES := crds/dsr_api operator/dsr_operator node-daemon/dsr_node lab tests bench tools
BUILT := node-daemon/dsr_node/built

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help demo test test-unit test-packet test-net test-api test-chart test-e2e lint format bench \
        lab-up lab-down image clean lock packages venv bpf native build controlplane

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*##/\t/' | expand -t 14

demo: build controlplane  ## the whole product on this machine, with proofs (KEEP=1 leaves the lab up)
	@$(PY) -m lab.demo $(if $(KEEP),--keep)

test: lint test-unit test-packet test-net test-api test-chart test-e2e  ## everything

test-unit: build  ## pure parts; no root, seconds
	$(call say,unit tests)
	@$(PYTEST) tests/unit

test-packet: build  ## packets through the XDP program, on this kernel and on the oldest
	$(call say,packet tests)
	@$(PYTEST) tests/packet

test-net: build  ## the node daemon in network namespaces
	$(call say,net tests)
	@$(PYTEST) tests/net

test-api: build controlplane  ## against a real kube-apiserver
	$(call say,API tests)
	@$(PYTEST) tests/api

test-chart: build controlplane  ## the Helm chart against a real kube-apiserver
	$(call say,chart tests)
	@$(PYTEST) tests/chart

test-e2e: build controlplane  ## the whole system in the lab
	$(call say,end-to-end tests)
	@$(PYTEST) tests/e2e

lint: build  ## format, lint, types, import rules
	$(call say,lint)
	@$(VENV)/bin/ruff format --check --quiet $(SOURCES)
	@$(VENV)/bin/ruff check --quiet $(SOURCES)
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports --verbose | tail -4

format:  ## rewrite the sources in the one format
	@$(VENV)/bin/ruff format --quiet $(SOURCES)
	@$(VENV)/bin/ruff check --quiet --fix $(SOURCES)

bench: build controlplane  ## all benchmarks; each prints a table (bench/README.md)
	@for each in $$(grep -oE '^    python -m bench\.[a-z_]+' bench/README.md | awk '{print $$3}' | sort -u); do \
	    printf '\033[1m==> %s\033[0m\n' "$$each"; $(PY) -m "$$each"; done

lab-up: build controlplane  ## a lab to play with (./lab/lab --help)
	@./lab/lab up

lab-down:  ## and away with it
	@./lab/lab down

image: build  ## the container image, by docker or buildah
	@image/build.sh

lock:  ## compile requirements*.in into hash-pinned locks
	@$(VENV)/bin/pip install --quiet uv
	@for each in requirements requirements-dev; do \
	    $(VENV)/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header \
	        --python-version 3.11 $$each.in -o $$each.txt; done

packages:
	@tools/install-debian-packages

venv: $(VENV)/.installed

$(VENV)/.installed: requirements-dev.txt pyproject.toml | packages
	$(call say,virtual environment)
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

include node-daemon/bpf/Makefile
include node-daemon/native/Makefile

build: packages venv bpf native

controlplane: venv
	@$(PY) -m lab.controlplane build

clean:  ## what was built in the work tree (the control plane's cache stays)
	@rm -rf $(VENV) $(BUILT) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
