#!/bin/sh
# Measures PostgreSQL and pgstar side by side under load, on a demo started for it. Arguments go to
# `pgstar-loadtest run`; loadtest/README.md says what it does.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh

need_postgresql
cargo build --release -p pgstar -p pgstar-loadtest
release=${CARGO_TARGET_DIR:-target}/release
exec "$release/pgstar-loadtest" run --demo "$release/pgstar" --pgbench "$PGSTAR_PG_BIN/pgbench" "$@"
