#!/bin/sh
# Measures what pgstar costs: the time of a decision, and then what it adds to statements that it passes through
# (scripts/bench-relay.sh, which also says what changes how long it takes).
set -eu
cd "$(dirname "$0")/.."

cargo bench -p pgstar-rewriter --bench decide
exec scripts/bench-relay.sh
