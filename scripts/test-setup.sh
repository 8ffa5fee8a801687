#!/bin/sh
# Prepares this machine for the tests: PostgreSQL's programs, and a Python environment with drivers.
#
# Run it by hand or source it (scripts/test.sh does) to get PGSTAR_PG_BIN and PGSTAR_TEST_PYTHON. Installs what is
# missing when it may (as root, or with a sudo that asks nothing), otherwise says what to install; does nothing when
# all is there. To be run in the repository's root.
set -eu

. scripts/install.sh
. scripts/postgresql.sh
. scripts/python.sh

need_postgresql
want_python
say "PostgreSQL: $("$PGSTAR_PG_BIN/postgres" --version) in $PGSTAR_PG_BIN"
say "Python drivers: ${PGSTAR_TEST_PYTHON:-none}"
