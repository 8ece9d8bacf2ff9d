# Everything is installed into .venv, except the Debian packages named below, and what only
# `make integration` needs.

PYTHON ?= python3
APP_PORT ?= 5000
SANDBOX_PORT ?= 9000
SECONDS ?= 300
STORE ?= sqlite
MODE ?= kill
SESSIONS ?= 1000000

PACKAGES := chromium chromium-headless-shell fonts-noto-cjk redis-server
INTEGRATION_PACKAGES := firefox-esr apache2-bin libapache2-mod-wsgi-py3 python3-venv nginx-light haproxy php-cli caddy postgresql pgbouncer
PY := .venv/bin/python
INTEGRATION_PY := .venv-integration/bin/python
BENCH_PY := .venv-bench/bin/python
SUITE := pytest -n 4 --dist loadgroup -m "not hours"
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(PY) $(PIP_INSTALL)

.PHONY: help demo test lint suite coverage screenshots docs wheel test-lowest soak system
.PHONY: clean hours quick reference fuzz mutate integration bench release translations
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/installed  ## start the example application and the sandbox it signs in at
	$(PY) -m tools.demo --app-port $(APP_PORT) --sandbox-port $(SANDBOX_PORT)

test: system lint suite docs  ## lint, types, all tests and the docs

lint: .venv/tools  ## ruff and mypy
	$(PY) -m ruff check --quiet
	$(PY) -m ruff format --check --quiet
	$(PY) -m mypy

suite: .venv/tools system  ## the whole test suite
	$(PY) -m $(SUITE)

quick: .venv/tools  ## the tests that need neither a browser nor Redis, for use at every save
	$(PY) -m pytest -q -n 6 -m "not (browser or redis or slow or hours)"

hours: .venv/tools system  ## refreshes, outages and clocks under gunicorn; no part of test
	$(PY) -m pytest -m hours

integration: .venv-integration/installed .venv-apache/installed tests/integration/node_modules/installed system  ## the recipes and proxies with their real programs, and Firefox; no part of test
	@tools/apt-install.sh $(INTEGRATION_PACKAGES)
	$(INTEGRATION_PY) -m pytest -n 2 --dist loadfile -p no:dash -p no:valkey tests/integration

coverage: .venv/tools system  ## the suite again, slower, and a report of the branches it takes
	$(PY) -m coverage erase
	$(PY) -m coverage run -m $(SUITE)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

screenshots: .venv/tools system  ## pictures of every page in screenshots, and the README's picture
	SCREENSHOTS=screenshots $(PY) -m pytest -q tests/web/test_accessibility.py
	$(PY) -m tools.screenshots --app-port $(APP_PORT) --sandbox-port $(SANDBOX_PORT)

reference: .venv/tools  ## write the settings table and the API reference into docs
	$(PY) -m tools.reference

translations: .venv/installed  ## compare the Chinese pages with the English ones; RECORD=1 after you have done so
	$(PY) -m tools.translations $(if $(RECORD),--record)

docs: .venv/tools  ## build the documentation into docs/_build
	$(PY) -m sphinx -q -W --keep-going -n docs docs/_build

wheel: .venv/tools  ## build the source distribution and, from it, the wheel into dist
	rm -rf dist
	$(PY) -m build --quiet

release: .venv/tools  ## build and check what a release consists of; UPDATE=1 renews docs/offline.md; no part of test
	$(PY) -m tools.release
	$(PY) -m tools.offline $(if $(UPDATE),--update)

test-lowest: wheel system  ## the core suite against the wheel, with the lowest versions that are declared
	$(PY) tools/lowest.py > dist/lowest.txt
	tools/core-suite.sh $(PY) --constraint dist/lowest.txt

soak: .venv/tools system  ## load with faults for SECONDS=300; docs/sessions.md lists the values of STORE and MODE
	@[ "$(STORE)" != postgresql ] || tools/apt-install.sh postgresql
	$(PY) -m tools.soak --seconds $(SECONDS) --store $(STORE) --mode $(MODE)

fuzz: .venv/tools  ## random inputs for SECONDS=300; SEED repeats a run, and a finding fails
	$(PY) -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

mutate: .venv/tools  ## which changes to the pure modules no test notices; takes 15 minutes
	$(PY) -m mutmut run $(MUTANTS)
	$(PY) -m mutmut results

bench: .venv-bench/installed  ## compare with other extensions; ONLY=guarded, login, startup, profile or scale; no part of test
	@tools/apt-install.sh redis-server
	$(BENCH_PY) -m benchmarks $(ONLY) --sessions $(SESSIONS) --json benchmarks/results.json

clean:  ## remove what was built; the virtual environments stay
	rm -rf dist docs/_build mutants benchmarks/results.json .coverage .coverage.* *.egg-info .mypy_cache .pytest_cache .ruff_cache

system:
	@tools/apt-install.sh $(PACKAGES)

.venv/installed: setup.cfg pyproject.toml
	tools/make-venv.sh $(PYTHON) .venv
	$(PIP) --editable .
	@touch $@

.venv-integration/installed: setup.cfg pyproject.toml
	tools/make-venv.sh $(PYTHON) .venv-integration
	$(INTEGRATION_PY) $(PIP_INSTALL) --editable '.[integration]'
	@touch $@

.venv-bench/installed: setup.cfg pyproject.toml benchmarks/requirements.txt
	tools/make-venv.sh $(PYTHON) .venv-bench
	$(BENCH_PY) $(PIP_INSTALL) --editable '.[redis]' --requirement benchmarks/requirements.txt
	@touch $@

# Debian's mod_wsgi belongs to Debian's Python.
.venv-apache/installed: setup.cfg pyproject.toml
	@tools/apt-install.sh $(INTEGRATION_PACKAGES)
	tools/make-venv.sh /usr/bin/python3 .venv-apache
	.venv-apache/bin/python $(PIP_INSTALL) --editable .
	@touch $@

tests/integration/node_modules/installed: tests/integration/package-lock.json
	@command -v npm >/dev/null || tools/apt-install.sh nodejs npm
	@# Node ignores the system's certificate authorities unless this variable names them.
	NODE_EXTRA_CA_CERTS=$${NODE_EXTRA_CA_CERTS-/etc/ssl/certs/ca-certificates.crt} \
		npm ci --prefix tests/integration --loglevel=error --no-audit --no-fund
	@touch $@

.venv/tools: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@
