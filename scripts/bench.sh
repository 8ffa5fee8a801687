#!/bin/sh
# Measures what pgstar costs: the time of a decision, how fast commits reach the rollups, and then what it adds to statements that it passes through
# (scripts/bench-relay.sh, which also says what changes how long it takes).
set -eu
cd "$(dirname "$0")/.."

cargo bench -p pgstar-rewriter --bench decide
cargo bench -p pgstar-postgres --bench fold
exec scripts/bench-relay.sh
