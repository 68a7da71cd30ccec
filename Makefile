# The two commands: `make run` and `make test`. Both install what they need (Debian packages with apt, Python packages
# into a virtual environment outside the checkout), so that a fresh machine needs only git, make and rustup's cargo.

SHELL := /bin/bash
# Tests and server use one profile, so that RocksDB is compiled once.
CARGO_FLAGS := --release
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
VALV := $(TARGET_DIR)/release/valv
# Options for the server: `make run ARGS="--data /srv/valv --listen 0.0.0.0:9000"`.
ARGS ?=

.PHONY: help run build test lint test-rust test-e2e soak fuzz bench fmt setup-build setup-test

help:
	@echo 'make run    build and start a server over ./valv-data (ARGS="..." are passed on)'
	@echo 'make test   everything that has to pass: format, lints, Rust tests, end-to-end tests'
	@echo 'make soak   the long tests: 5 GiB objects, full memory budget, many kills'
	@echo 'make fuzz   the parsers under a million mutations each (VALV_FUZZ_RUNS), on stable Rust; see fuzz/README.md'
	@echo 'make bench  micro benchmarks, then `valv bench` against a server of its own'
	@echo 'make fmt    format the Rust code'

setup-build:
	@tools/setup.sh build

setup-test: setup-build
	@tools/setup.sh test

build: setup-build
	cargo build $(CARGO_FLAGS) -p valv

run: build
	exec $(VALV) server $(ARGS)

test: setup-test
	tools/test.sh

lint: setup-build
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

test-rust: setup-build
	cargo test $(CARGO_FLAGS) --workspace

test-e2e: setup-test build
	tools/pytest.sh tests/e2e

soak: setup-test build
	tools/pytest.sh tests/soak

# Another seed each time: it is printed, and VALV_FUZZ_SEED repeats it.
fuzz: setup-build
	VALV_FUZZ_RUNS=$${VALV_FUZZ_RUNS:-1000000} VALV_FUZZ_SEED=$${VALV_FUZZ_SEED:-$$(date +%s)} \
		cargo test $(CARGO_FLAGS) -p valv-fuzz-targets -- --nocapture

bench: setup-test build
	cargo bench -p valv-benches
	tools/bench.sh

fmt:
	cargo fmt --all
