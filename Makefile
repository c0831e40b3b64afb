# Everything a fresh machine needs is installed by these targets: Debian
# packages through apt-get, Python packages into .venv, the lab's guest system
# and kernels into the XDG cache folder.

.DEFAULT_GOAL := help
SHELL := /bin/bash

# Debian's own Python: the one that sees Debian's python3-bpfcc.
SYSTEM_PYTHON ?= /usr/bin/python3
VENV := .venv
PYTHON := $(VENV)/bin/python
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

DEBIAN_PACKAGES := python3-venv python3-bpfcc libbpf1 libbpf-dev clang clang-format gcc \
	libc6-dev qemu-system-x86 mmdebstrap debian-archive-keyring cpio e2fsprogs xz-utils zstd \
	shellcheck tmux groff man-db zsh fish prometheus systemd \
	nginx-light

KERNEL ?= newest
CPUS ?= 2
MEMORY ?= 2G
TIMEOUT ?= 7200
C_FILES = $(wildcard bpf/*.c bpf/*.h tests/*/*.c lab/*.c)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: setup ## Live zpobs top on a real zpdesc kernel under a real workload, then the comparison
	@$(PYTHON) -m lab run --kernel $(KERNEL) --append movablecore=512M --timeout 900 -- \
		python3 -m lab.demo

.PHONY: picture
picture: setup ## Make docs/pictures/top.svg anew: the live view of a device at work in a guest
	@mkdir -p build docs/pictures
	@$(PYTHON) -m lab run --kernel $(KERNEL) -- python3 -m lab.picture >build/top.svg
	@mv build/top.svg docs/pictures/top.svg

.PHONY: test
test: setup check ## Checks, then every test: on this machine and in guests
	$(PYTHON) -m pytest

.PHONY: check
check: setup ## Formatting, lint and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	clang-format --dry-run --Werror $(C_FILES)
	shellcheck lab/init.sh

.PHONY: quick
quick: setup check ## Checks, and the tests that boot nothing
	$(PYTHON) -m pytest -m "not lab"

.PHONY: format
format: setup ## Rewrite the sources as check wants them
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	clang-format -i $(C_FILES)

.PHONY: bench
bench: setup ## Speed of start, scan, ring, model, view and captures, each beside what it is measured by (root)
	$(PYTHON) -m bench.start
	$(PYTHON) -m bench.scan
	$(PYTHON) -m bench.consume
	$(PYTHON) -m bench.view
	$(PYTHON) -m bench.probes
	$(PYTHON) -m bench.exporter
	$(PYTHON) -m bench.capture

.PHONY: man
man: setup ## The manual pages, into build/man: man -l build/man/zpobs-top.1
	@$(PYTHON) -m zpobs.man_build build/man

.PHONY: dashboards
dashboards: setup ## docs/metrics.md and the Grafana dashboards, of the exporter's table of metrics
	@$(PYTHON) -m dashboards

.PHONY: stack
stack: setup ## Exporter, Prometheus and rules up on loopback over a workload, until Ctrl-C (root)
	@$(PYTHON) -m lab.stack $(STACK)

.PHONY: dashboard-pictures
dashboard-pictures: setup ## docs/pictures of the dashboards: Grafana's own components from npm (npm, chromium, root)
	@command -v npm chromium >/dev/null || { \
		echo "make: this needs npm and chromium; try: apt install npm chromium" >&2; exit 3; }
	@mkdir -p docs/pictures
	@$(PYTHON) -m dashboards.pictures

.PHONY: churn
churn: setup ## Churn with known truth (KERNEL=6.12 CPUS=4 MEMORY=1G CHURN="--seed 7 --mix 50:20:20:5:5")
	@$(PYTHON) -m lab run --kernel $(KERNEL) --cpus $(CPUS) --memory $(MEMORY) \
		--append movablecore=512M --timeout $(TIMEOUT) -- python3 -m lab.trial $(CHURN)

.PHONY: matrix
matrix: setup ## The kernel tests on every kernel, with each loader and form (hours; MATRIX=--resume)
	$(PYTHON) -m lab.matrix $(MATRIX)

.PHONY: support
support: setup ## docs/kernel-support.md from the results of make matrix
	$(PYTHON) -m lab.support

.PHONY: kernels
kernels: setup ## List the kernels that the lab can boot
	$(PYTHON) -m lab list

.PHONY: shell
shell: setup ## A shell in a guest with zpobs on PATH (KERNEL=7.3)
	$(PYTHON) -m lab run --kernel $(KERNEL) -- bash

.PHONY: setup
setup: $(VENV)/.ready ## Install what is missing: Debian packages, .venv, compiled BPF objects
	@$(PYTHON) -m zpobs.bpf_build

$(VENV)/.ready: pyproject.toml Makefile
	@command -v apt-get dpkg-query >/dev/null || { \
		echo "make: this needs Debian's apt-get; found none; try a Debian machine" >&2; exit 3; }
	@missing=$$(for package in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
			|| echo $$package; done); \
	if [ -n "$$missing" ]; then \
		echo "installing Debian packages:" $$missing; \
		for service in prometheus nginx; do \
			case " $$missing " in *" $$service"*) \
				if [ -d /run/systemd/system ] && ! systemctl cat -q $$service.service \
						>/dev/null 2>&1; then \
					echo "masking $$service.service: tests start their own (systemctl unmask)"; \
					$(SUDO) systemctl mask --quiet $$service.service; fi;; esac; done; \
		$(SUDO) apt-get update -q -q && \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -q -q -y \
			--no-install-recommends $$missing >/dev/null; \
		command -v promtool >/dev/null || DEBIAN_FRONTEND=noninteractive $(SUDO) \
			apt-get install -q -q -y --no-install-recommends promtool >/dev/null; \
	fi
	@echo "making the virtual environment $(VENV)"
	@$(SYSTEM_PYTHON) -m venv --clear --system-site-packages $(VENV)
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: clean
clean: ## Remove the virtual environment and what tests leave behind
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
