# LiteBox: build, run, test. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BUILD := $(CURDIR)/build
VENV := $(BUILD)/venv
PYTHON := $(VENV)/bin/python
LIB := $(BUILD)/lib/litebox
# The distribution's interpreter where it is new enough: optimized by profile and linked into one file, it takes 1 ms less to start
# a container than one that a version manager compiled.
ifndef PYTHON3
PYTHON3 := $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
endif
export PYTHON3
CARGO := cargo
TARGET := kernel_lib/target
# glibc executes CPUID 60 times when a program starts, and each is an exit where this machine is a virtual one: 1 ms of every start. musl does not.
MUSL := x86_64-unknown-linux-musl
HAS_MUSL := [ -d "$$(rustc --print target-libdir --target $(MUSL))" ]
PREFIX ?= /usr/local
PROGRAMS := litebox containerd-shim-litebox-v1
PYTEST_ARGS ?=
BENCH_ARGS ?=

# The guest image has its own linker script and no unwinder, so it is built apart from the host's crates.
HOST_CRATES := -p abi -p linux_abi -p hal -p libos -p vmm -p vmm_bin -p launcher

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

.PHONY: build
build: $(VENV)/ready rust launchers ## build/bin/litebox, build/bin/containerd-shim-litebox-v1 and what they need

.PHONY: rust
rust:
	@command -v $(CARGO) >/dev/null || deploy/requirements
	@$(HAS_MUSL) || rustup -q target add $(MUSL) || echo "note: no Rust target $(MUSL): linked with glibc instead"
	target=$$($(HAS_MUSL) && echo $(MUSL) || echo x86_64-unknown-linux-gnu); \
	(cd kernel_lib && RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build -q --release --target $$target -p vmm_bin -p launcher); \
	install -D -m 755 $(TARGET)/$$target/release/litebox-vmm $(LIB)/litebox-vmm; \
	for name in $(PROGRAMS); do install -D -m 755 $(TARGET)/$$target/release/$$name $(BUILD)/bin/$$name; done
	cd kernel_lib && $(CARGO) build -q --release -p kernel
	install -D -m 644 $(TARGET)/release/litebox-kernel $(LIB)/litebox-kernel

$(VENV)/ready: pyproject.toml
	@$(PYTHON3) -c 'import ensurepip' 2>/dev/null || deploy/requirements
	$(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

.PHONY: launchers
launchers: $(VENV)/ready
	@$(PYTHON) deploy/launchers.py --python $(PYTHON) --path $(CURDIR) \
	    --path "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(BUILD)

.PHONY: install
install: build ## installs into PREFIX (default /usr/local): bin/ and lib/litebox/
	for name in $(PROGRAMS); do install -D -m 755 $(BUILD)/bin/$$name $(DESTDIR)$(PREFIX)/bin/$$name; done
	install -D -m 755 $(LIB)/litebox-vmm $(DESTDIR)$(PREFIX)/lib/litebox/litebox-vmm
	install -D -m 644 $(LIB)/litebox-kernel $(DESTDIR)$(PREFIX)/lib/litebox/litebox-kernel
	rm -rf $(DESTDIR)$(PREFIX)/lib/litebox/packages $(BUILD)/python # setuptools keeps modules there that are no more
	$(PYTHON) -m pip install -q --disable-pip-version-check --target $(DESTDIR)$(PREFIX)/lib/litebox/packages .
	rm -rf $(DESTDIR)$(PREFIX)/lib/litebox/packages/bin
	$(PYTHON) deploy/launchers.py --python "$(if $(RUN_WITH),$(RUN_WITH),$$(readlink -f $(PYTHON)))" --path $(PREFIX)/lib/litebox/packages --destdir "$(DESTDIR)" $(DESTDIR)$(PREFIX)

.PHONY: deb
deb: build ## build/litebox.deb, a Debian package for the Python version it is built with
	rm -rf $(BUILD)/deb
	$(MAKE) -s install DESTDIR=$(BUILD)/deb PREFIX=/usr RUN_WITH=/usr/bin/python3
	$(PYTHON) deploy/debian.py $(BUILD)/deb
	dpkg-deb --root-owner-group --build $(BUILD)/deb $(BUILD)/litebox.deb

.PHONY: run
run: ## installs what is missing, builds, and shows a real program running in a micro-VM
	@deploy/requirements
	@$(MAKE) -s build
	@$(BUILD)/bin/litebox do --verbose -- sh -c 'echo "hello from process $$$$ on $$(hostname), $$(uname -sr)"; ls / | wc -l | xargs echo entries of /:'

.PHONY: guest
guest:
	@$(MAKE) -s -C tests/guest OUT=$(BUILD)/guest

.PHONY: test
test: ## everything that CI runs
	@deploy/requirements --test
	@$(MAKE) -s build guest
	@$(MAKE) -s lint
	cd kernel_lib && $(CARGO) test -q $(HOST_CRATES)
	$(PYTHON) -m pytest -q $(PYTEST_ARGS)

.PHONY: engines
engines: $(VENV)/ready ## builds current containerd, crictl, nerdctl, dockerd and Kubernetes for the tests (half an hour)
	$(PYTHON) -m integration.engines

.PHONY: integration
integration: build ## the engines driven for real: containerd, Kubernetes, docker, nerdctl, podman (those that are installed)
	$(PYTHON) -m pytest -q integration --ignore=integration/compatibility $(PYTEST_ARGS)

.PHONY: compatibility
compatibility: build ## large test suites of others, in a micro-VM and in a container of runc (half an hour)
	@deploy/requirements --test
	$(PYTHON) -m pytest -q integration/compatibility -o session_timeout=7200 $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/ready ## ruff, mypy --strict, rustfmt, clippy with warnings as errors
	$(VENV)/bin/ruff check -q .
	$(VENV)/bin/ruff format -q --check .
	$(VENV)/bin/mypy --no-error-summary $(wildcard oci_spec runtime shim) deploy integration tests
	cd kernel_lib && $(CARGO) fmt --check
	cd kernel_lib && $(CARGO) clippy -q --all-targets $(HOST_CRATES) -- -D warnings
	cd kernel_lib && $(CARGO) clippy -q -p kernel -- -D warnings

.PHONY: bench
bench: build guest ## the benchmark table: each row against native and runc, with its goal
	@deploy/requirements --test
	@PYTHONPATH=tests $(PYTHON) -m bench.run $(BENCH_ARGS)

.PHONY: clean
clean: ## removes build/ and cargo's target folder
	rm -rf $(BUILD) $(TARGET)
