#!/bin/sh
# Prepares this machine for the tests: PostgreSQL's programs, a Python environment with drivers, and libfaketime.
#
# Run it by hand or source it (scripts/test.sh does) to get PGSTAR_PG_BIN and PGSTAR_TEST_PYTHON. Installs what is
# missing when it may (as root, or with a sudo that asks nothing), otherwise says what to install; does nothing when
# all is there. To be run in the repository's root.
set -eu

. scripts/install.sh
. scripts/postgresql.sh
. scripts/python.sh

# For the test of clocks that jump, which fails in CI and is skipped elsewhere where there is none.
want_faketime() {
    for library in /usr/lib/faketime /usr/lib/*/faketime /usr/lib64/faketime; do
        [ -e "$library/libfaketimeMT.so.1" ] && return
    done
    [ "$(uname -s)" = Linux ] && install_packages faketime || say "the test of clocks that jump has no libfaketime"
}

need_postgresql
want_python
want_faketime
say "PostgreSQL: $("$PGSTAR_PG_BIN/postgres" --version) in $PGSTAR_PG_BIN"
say "Python drivers: ${PGSTAR_TEST_PYTHON:-none}"
