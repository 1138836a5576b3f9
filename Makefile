# Each target makes .venv first: with uv where it is there, else with Python's own venv and pip.
# PYTHON=/path/to/python3.11 picks the interpreter; DEMO_SECONDS=60 ends the demo by itself.

# The first that runs and is new enough: a name on PATH may be a pyenv shim of a version that is not chosen.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v "$$name"; break; fi; done)
BIN := .venv/bin
RUNS := .venv/.meshflow-runs
READY := .venv/.meshflow-installed
NATIVE := $(wildcard native/Cargo.toml native/Cargo.lock native/src/*.rs native/src/*/*.rs)
RUST := $(shell command -v cargo 2>/dev/null)
BENCH ?=
PYTEST ?=
# Tests run on every core, and in one process more, as a third of their time is waiting; a file's tests stay together, as they share what they
# start. The files that take longest begin first (tests/conftest.py).
CORES ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
SIDE_BY_SIDE := -n $(CORES) --dist loadfile --no-loadscope-reorder

SOAK_MINUTES ?= 30

.PHONY: help install demo test soak lint format bench bench-kafka bench-peers docs local

help:
	@echo "make install   .venv with meshflow and what developing it needs"
	@echo "make demo      a captured Envoy mesh through meshflow, live in this terminal (DEMO_SECONDS=60: end by itself)"
	@echo "make local     Kafka, store, two receivers and two workers as processes, until Ctrl-C (deploy/local.sh)"
	@echo "make test      every test, on every core (PYTEST='-k edges' for some, CORES=0 one after the other)"
	@echo "make soak      long random campaigns, not part of make test (SOAK_MINUTES=30); each prints its seed"
	@echo "make lint      ruff, mypy, import contracts; rustfmt and clippy where cargo is there"
	@echo "make bench     what a span costs, as a table (BENCH='--json FILE' for lines)"
	@echo "make bench-kafka  the same of the distributed mode, on a broker of its own (needs java; 5 minutes)"
	@echo "make bench-peers   meshflow beside the OpenTelemetry Collector and Rotel (CASES='receive,kafka-5' for some, JSON=FILE for lines)"
	@echo "make docs      docs/settings.md and docs/self-metrics.md from the code"

install: $(READY)

# What running meshflow needs; tests, linters and Envoy come with $(READY).
$(RUNS): pyproject.toml $(NATIVE)
	@if [ -z "$(PYTHON)" ]; then echo "meshflow needs Python 3.11 or newer; none was found. Install it, or say PYTHON=/path/to/python." >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "meshflow needs Python 3.11 or newer; $(PYTHON) is older. Say PYTHON=/path/to/a newer one." >&2; exit 1; }
	@if [ -z "$(RUST)" ]; then echo "cargo is not there: meshflow is installed without its native decoder and runs on the (slower) Python one."; fi
	@if command -v uv >/dev/null 2>&1; then \
		{ [ -x $(BIN)/python ] || uv venv --quiet --python "$(PYTHON)" .venv; } \
		&& uv pip install --quiet --python $(BIN)/python --editable .; \
	else \
		{ [ -x $(BIN)/python ] || $(PYTHON) -m venv .venv; } \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .; \
	fi
	@touch $(RUNS)

$(READY): $(RUNS)
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python --group dev; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev; fi
	@touch $(READY)

demo: $(RUNS)
	@$(BIN)/python -m meshflow.tools.demo

local: $(READY)
	@deploy/local.sh

test: $(READY)
	@if [ -n "$(RUST)" ]; then cargo test --quiet --no-default-features --features receive --manifest-path native/Cargo.toml; fi
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST)

soak: $(READY)
	@SOAK_MINUTES="$(SOAK_MINUTES)" $(BIN)/python -m tests.soak

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -n "$(RUST)" ] && [ -f native/Cargo.toml ]; then \
		cargo fmt --manifest-path native/Cargo.toml --check \
		&& cargo clippy --quiet --manifest-path native/Cargo.toml --all-targets -- --deny warnings; \
	else echo "cargo is not there: rustfmt and clippy are left out"; fi

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if [ -n "$(RUST)" ] && [ -f native/Cargo.toml ]; then cargo fmt --manifest-path native/Cargo.toml; fi

bench: $(READY)
	@$(BIN)/python -m benchmarks.run $(BENCH)

bench-kafka: $(READY)
	@$(BIN)/python -m benchmarks.kafka $(BENCH)

bench-peers: $(READY)
	@$(BIN)/python -m benchmarks.peers.run $(if $(JSON),--json "$(JSON)") $(if $(CASES),--cases "$(CASES)") $(BENCH)

docs: $(READY)
	@$(BIN)/python -m meshflow.tools.reference
