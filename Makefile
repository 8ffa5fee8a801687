# What can be done with this repository; `make` alone lists it. The work is in cargo and in scripts/.

.DEFAULT_GOAL := help
.PHONY: help demo test torture bench matrix churn loadtest superset-corpus tpch differential reparse regress lint clean fuzz suites bench-copy bench-idle

# SCALE=1 is the Star Schema Benchmark with 6,000,000 rows of lineorder; unset, each command has its own default.
SCALE ?=
# How many rows of its fact superset-corpus makes.
ROWS ?= 200000
# How many queries differential asks, and the seed of its first star.
QUERIES ?= 100000
SEED ?= 1
# How long each part of torture takes, and how many rows the COPY has that its memory is measured for.
MINUTES ?= 2
BULK_ROWS ?= 10000000
# More arguments, for example: make demo ARGS='--keep', make test ARGS='-p pgstar-rewriter'
ARGS ?=

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "SCALE=1 sets the size of the data of demo, loadtest and tpch; ARGS='…' adds arguments to all but regress, lint and clean."

demo: ## the Star Schema Benchmark on a throw-away PostgreSQL, direct and through pgstar
	cargo run --profile demo -p pgstar -- demo $(if $(SCALE),--scale $(SCALE)) $(ARGS)

test: ## all tests, after installing what they need (PostgreSQL, Python drivers)
	scripts/test.sh $(ARGS)

torture: ## random changes, faults, kills, and readers beside writers for MINUTES (2) each, and a COPY of BULK_ROWS (10000000)
	PGSTAR_TORTURE_SECONDS=$$(( $(MINUTES) * 60 )) PGSTAR_BULK_ROWS=$(BULK_ROWS) cargo test --no-fail-fast -p pgstar-postgres \
	  --test maintain --test maintain_faults --test maintain_kill --test maintain_parts --test maintain_trouble --test maintain_memory \
	  --test stream_linear --test stream_ranges --test stream_faults $(ARGS) -- --nocapture
	PGSTAR_TORTURE_SECONDS=$$(( $(MINUTES) * 60 )) cargo test -p pgstar --test e2e_instances -- --nocapture

bench: ## time of a decision, and what the proxy adds to pgbench, beside pgbouncer
	scripts/bench.sh $(ARGS)

bench-copy: ## COPY of 1 GiB in and out and a large result, direct, through pgstar and through pgbouncer
	scripts/bench-copy.sh

bench-idle: ## memory of an idle session, with 10,000 of them
	scripts/bench-idle.sh
churn: ## sessions as Superset opens them: direct, pgbouncer, pgstar as a relay, pgstar with shared backends
	scripts/churn.sh

matrix: ## all tests on each PostgreSQL version from 14 to 18 (Linux)
	scripts/matrix.sh $(ARGS)

loadtest: ## a mix of benchmark queries and heavy scans by many clients, direct and through pgstar
	scripts/loadtest.sh $(if $(SCALE),--scale $(SCALE)) $(ARGS)

superset-corpus: ## what Apache Superset sends, direct and through pgstar: the same bytes, and how much rollups answer
	PGSTAR_SUPERSET_LINES=$(ROWS) PGSTAR_SUPERSET_ZONES=UTC,America/New_York,Asia/Kolkata \
	cargo test -p pgstar --test e2e_superset -- --nocapture

tpch: ## the 22 queries of TPC-H, direct and through pgstar: the same bytes, and which ones rollups answer
	PGSTAR_TPCH_SCALE=$(or $(SCALE),0.1) cargo test -p pgstar --test e2e_tpch -- --nocapture

differential: ## random queries over random stars, rewritten and not, also in states that a rollup cannot tell apart
	PGSTAR_DIFFERENTIAL_QUERIES=$(QUERIES) PGSTAR_DIFFERENTIAL_SEED=$(SEED) PGSTAR_DIFFERENTIAL_PER_STAR=250 \
	nice cargo test -p pgstar-postgres --test rewriter_differential -- --nocapture

fuzz: ## fuzz the decoders of the wire for a minute, on stable Rust (Linux, a C++ compiler)
	scripts/fuzz.sh

suites: ## the suites of psycopg, psycopg2, asyncpg, SQLAlchemy, JDBC, node-postgres and DBD::Pg, direct and through pgstar
	scripts/suites.sh

reparse: ## what pgstar reads and writes, compared with PostgreSQL's own parser (libclang, minutes to compile)
	scripts/reparse.sh

regress: ## PostgreSQL's own regression, isolation and pipeline suites through pgstar, compared with direct (Debian)
	scripts/pg-regress.sh

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

clean: ## remove everything that was built or downloaded into target/
	cargo clean
