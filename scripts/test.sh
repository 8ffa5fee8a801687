#!/bin/sh
# Runs all tests after setting up what they need. Arguments go to cargo test.
set -eu
cd "$(dirname "$0")/.."

. scripts/test-setup.sh

# In CI a lock file that does not fit is a mistake of the commit, and every failure is wanted at once.
if in_ci; then set -- --locked --no-fail-fast "$@"; fi
cargo test --workspace "$@"

if [ -z "${PGSTAR_TEST_PYTHON:-}" ]; then
    cat >&2 <<MESSAGE

############################################################################
# SKIPPED: the tests of psycopg, psycopg2 and SQLAlchemy did not run.
# $python_missing
############################################################################
MESSAGE
fi
