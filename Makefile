# `make` prints the targets. `make demo` needs Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS := build/results

export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONPATH := $(CURDIR)/build/collections
export PYTHONDONTWRITEBYTECODE := 1

COLLECTION := build/collections/ansible_collections/signalbox/runbook
PACKAGE := ansible_collections.signalbox.runbook
PYTEST = $(BIN)/python -m pytest -p no:cacheprovider --junitxml=$(RESULTS)/$@.xml
MYPY := MYPYPATH=build/collections $(BIN)/mypy

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo setup test lint test-unit test-compat test-sanity test-e2e test-core218 test-molecule test-compose \
        test-nodes test-kubernetes test-conformance test-chaos test-backends lab-up lab-down bench requirements clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo $(COLLECTION)  ## deploy, break and roll back an application on this machine
	$(BIN)/python tests/e2e/demo.py

setup: $(VENV)/.dev $(COLLECTION)  ## make .venv with all that the tests need

test: lint test-unit test-compat test-sanity test-e2e test-core218 test-molecule test-chaos test-backends  ## all of these

lint: setup  ## style, types, playbooks, changelog
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(MYPY) -p $(PACKAGE).plugins
	$(BIN)/antsibull-changelog lint
	PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_INVENTORY=inventories/local $(BIN)/ansible-lint

test-unit: setup  ## unit tests
	$(PYTEST) -n 2 tests/unit

test-compat: setup  ## what runs on targets, with every Python of 3.9 to 3.13 that is found
	$(BIN)/python tests/compat.py

test-sanity: setup  ## ansible-test sanity, nothing ignored
	$(BIN)/python tests/sanity.py

# What needs no lab of its own: processes of supervisor behind nginx and HAProxy.
LOCAL = -k "not conformance or supervisor"
# Each file has labs of its own, and waits more than it works.
BY_FILE = -n 2 --dist loadfile

test-e2e: setup  ## whole deployments on the local lab
	$(PYTEST) $(BY_FILE) $(LOCAL) -m "not slow" tests/e2e tests/conformance

test-core218: setup .venv-2.18/.core  ## the smoke tests of the former with ansible-core 2.18
	.venv-2.18/bin/python -m pytest -p no:cacheprovider --junitxml=$(RESULTS)/$@.xml -m smoke \
	  -k "not conformance or supervisor-nginx" tests/e2e tests/conformance

SCENARIOS := $(patsubst molecule/%/molecule.yml,%,$(wildcard molecule/*/molecule.yml))

# Where RUNBOOK_LAB is set, the cluster is started by test-backends, and its scenario runs there.
test-molecule: setup  ## the molecule scenarios, each skipped where its lab is not there
	$(BIN)/python tests/molecule.py $(filter-out $(if $(RUNBOOK_LAB),kubernetes),$(SCENARIOS))

test-chaos: setup  ## killed, cut off and broken at every step
	$(PYTEST) $(BY_FILE) tests/chaos

SHORT = $(BIN)/python -m pytest -p no:cacheprovider -rs -m smoke
# What other rows have already, or what takes too long for every day.
LONG = kubernetes or supervisor or systemd-haproxy or compose-haproxy or docker-hosts

test-backends: setup  ## the short way through the next four, each skipped where its lab is not there
	$(SHORT) --junitxml=$(RESULTS)/$@.xml -k "not ($(LONG))" tests/conformance tests/nodes
	if test -n "$$RUNBOOK_LAB"; then tests/lab/kubernetes.sh || echo "no Kubernetes here"; fi
	$(SHORT) --junitxml=$(RESULTS)/$@-kubernetes.xml -k kubernetes tests/conformance \
	  tests/kubernetes
	if test -n "$$RUNBOOK_LAB"; then $(BIN)/python tests/molecule.py kubernetes; fi

test-conformance: setup  ## the same scenarios over every backend
	$(PYTEST) -rs tests/conformance

test-compose: setup  ## on the Docker Engine of this machine; skipped where there is none
	$(PYTEST) -rs tests/compose

test-nodes: setup  ## hosts with systemd over ssh; skipped where there is no Docker Engine
	$(PYTEST) -rs tests/nodes

test-kubernetes: setup  ## on the cluster of KUBECONFIG or of tests/lab/kubernetes.sh; skipped where there is none
	$(PYTEST) -rs tests/kubernetes

lab-up:  ## as root on Debian 12: Docker Engine, Compose and Kubernetes for the last three
	tests/lab/docker.sh
	tests/lab/kubernetes.sh

lab-down:  ## stop the Kubernetes of lab-up
	tests/lab/kubernetes.sh stop

bench: setup  ## how long a deployment takes; LANES="host compose kubernetes ssh" ROUNDS=3 BENCH="more options"
	$(BIN)/python tests/bench/bench.py $(LANES) $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH)

requirements:  ## which rows of docs/requirements.md tests carry
	@$(PYTHON) tests/requirements_report.py

clean:  ## remove what make made, except the virtual environments
	if test -d build/local; then $(BIN)/python tests/lab/local.py down --remove; fi
	rm -rf build .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(COLLECTION):
	mkdir -p $(@D)
	ln -sfn ../../../.. $@

# Stamps: an environment is made once, and again when its requirements change.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: requirements-%.txt requirements-demo.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# The same versions of everything, beside the older Ansible.
.venv-2.18/.core: requirements-dev.txt requirements-demo.txt | $(BIN)/python
	test -x .venv-2.18/bin/python || $(BIN)/python -m venv .venv-2.18
	grep -hE '^[a-z]' requirements-demo.txt requirements-dev.txt | grep -v '^ansible-' | sed 's/\[[a-z]*\]//' \
	  > build/requirements-2.18.txt
	.venv-2.18/bin/python -m pip install --quiet --disable-pip-version-check 'ansible-core==2.18.*' pytest \
	  $$(grep -E '^[a-z]' requirements-demo.txt | grep -v '^ansible-core') -c build/requirements-2.18.txt
	@touch $@
