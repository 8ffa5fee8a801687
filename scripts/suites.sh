#!/bin/sh
# The test suites of PostgreSQL's drivers through pgstar: every test must come out as it does without pgstar.
#
# Each suite runs on a throw-away server directly, then through pgstar as a relay, then through pgstar with
# [auth] method = "scram", where sessions leave their backends to later ones. What differs is listed, test by test.
# Some tests of these suites measure time and fail on a busy machine with and without pgstar: those that differ run
# SUITE_REPEATS times more on either side, and count as alike when they have passed on both or failed on both. Those that
# have to differ are named in scripts/suites/expected, each with its reason.
# The suites of psycopg2, asyncpg and SQLAlchemy come from PyPI's source distributions, that of psycopg 3 from
# Debian's source package or from the checkout of its repository that SUITES_PSYCOPG names; JDBC (Debian's
# libpostgresql-jdbc-java) and node-postgres (npm's pg) run the programs in scripts/suites. Perl's DBD::Pg runs all of its own
# tests, from Debian's source package or from the checkout that SUITES_DBDPG names. SUITES chooses among them, SUITE_SIDES among "direct relay scram", SUITE_SECONDS_MAX bounds one run.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh
. scripts/stand.sh

SUITES=${SUITES:-psycopg psycopg2 asyncpg sqlalchemy jdbc node dbdpg}
SIDES=${SUITE_SIDES:-direct relay scram}
REPEATS=${SUITE_REPEATS:-3}
SECONDS_MAX=${SUITE_SECONDS_MAX:-3600}
TEST_SECONDS_MAX=180
# Throw-away, for servers that live as long as one run; stand.sh and the drivers take it from here.
server_password=suite
export PGPASSWORD="$server_password"

kept=$(target_directory)/suites
results=$kept/results
requirements=$PWD/scripts/suites/requirements.txt
programs=$PWD/scripts/suites

version_of() {
    sed -n "s/^$1\(\[.*\]\)*==//p" "$requirements"
}

need_python() {
    if ! cmp -s "$requirements" "$kept/venv/requirements.txt"; then
        has python3 || install_packages python3 python3-venv || fail "python3 was not found"
        say "making a Python environment with the drivers"
        python3 -m venv --clear "$kept/venv"
        quietly "$kept/venv/bin/pip" install --quiet --requirement "$requirements"
        cp "$requirements" "$kept/venv/requirements.txt"
    fi
    python=$kept/venv/bin/python
}

# The sources of a distribution on PyPI, tests included, in a directory of its name.
fetch_distribution() {
    if [ -d "$kept/$1" ]; then return; fi
    say "fetching the sources of $1 $(version_of "$2")"
    quietly "$kept/venv/bin/pip" download --quiet --no-deps --no-binary "$2" --dest "$work/$1" "$2==$(version_of "$2")"
    mkdir "$work/$1.unpacked"
    tar -xzf "$work/$1"/*.tar.gz -C "$work/$1.unpacked" --strip-components 1
    # asyncpg itself is that of the environment, not the sources that lie beside its tests.
    rm -rf "$work/$1.unpacked/asyncpg"
    mv "$work/$1.unpacked" "$kept/$1"
}

# The sources of a Debian package, in the directory "unpacked"; the second argument says what to do without them.
fetch_debian() {
    mkdir -p "$work/debian/$1"
    (cd "$work/debian/$1" && quietly apt-get source --download-only "$1" && quietly dpkg-source --no-check -x ./*.dsc unpacked) ||
        fail "the sources of $1 could not be fetched: $2"
}

fetch_psycopg() {
    if [ -d "$kept/psycopg" ]; then return; fi
    mkdir -p "$work/psycopg"
    if [ -n "${SUITES_PSYCOPG:-}" ]; then
        cp -R "$SUITES_PSYCOPG/tests" "$SUITES_PSYCOPG/pyproject.toml" "$work/psycopg/"
    else
        fetch_debian psycopg3 "set SUITES_PSYCOPG to a checkout of its repository, tag $(version_of psycopg)"
        cp -R "$work/debian/psycopg3/unpacked/tests" "$work/debian/psycopg3/unpacked/pyproject.toml" "$work/psycopg/"
    fi
    mv "$work/psycopg" "$kept/psycopg"
}

fetch_jdbc() {
    has javac || install_packages default-jdk-headless || fail "a Java compiler was not found"
    if [ -f "$kept/jdbc/postgresql.jar" ]; then return; fi
    (
        cd "$work"
        quietly apt-get download -o APT::Sandbox::User=root libpostgresql-jdbc-java || fail "Debian's JDBC driver could not be fetched"
        dpkg-deb --extract libpostgresql-jdbc-java_*.deb jdbc
    )
    mkdir -p "$kept/jdbc"
    cp -L "$work/jdbc/usr/share/java/postgresql.jar" "$kept/jdbc/"
}

fetch_node() {
    has npm || install_packages npm || fail "npm was not found"
    if [ ! -d "$kept/node/node_modules/pg" ]; then
        mkdir -p "$kept/node"
        quietly npm install --prefix "$kept/node" --no-audit --no-fund pg
    fi
}

fetch_dbdpg() {
    has prove && perl -MDBI -e 1 2>/dev/null && has pg_config || install_packages perl libdbi-perl libpq-dev gcc make ||
        fail "Perl with DBI and libpq's headers were not found"
    if [ -d "$kept/dbdpg" ]; then return; fi
    say "building DBD::Pg"
    [ -n "${SUITES_DBDPG:-}" ] || fetch_debian libdbd-pg-perl "set SUITES_DBDPG to a checkout of DBD::Pg's repository"
    cp -R "${SUITES_DBDPG:-$work/debian/libdbd-pg-perl/unpacked}" "$work/dbdpg"
    # Those of its packaging.
    rm -f "$work"/dbdpg/t/00_*.t "$work"/dbdpg/t/99_*.t
    (cd "$work/dbdpg" && quietly perl Makefile.PL && quietly make)
    mv "$work/dbdpg" "$kept/dbdpg"
}

fetch() {
    case "$1" in
        psycopg) need_python && fetch_psycopg ;;
        psycopg2) need_python && fetch_distribution psycopg2 psycopg2-binary ;;
        asyncpg) need_python && fetch_distribution asyncpg asyncpg ;;
        sqlalchemy) need_python && fetch_distribution sqlalchemy SQLAlchemy ;;
        jdbc) fetch_jdbc ;;
        node) fetch_node ;;
        dbdpg) fetch_dbdpg ;;
        *) fail "there is no suite $1" ;;
    esac
}

# Runs pytest in a suite's directory and prints each test with its verdict.
pytest() {
    timeout "$SECONDS_MAX" "$python" -m pytest -v --cache-clear --tb=short --timeout "$TEST_SECONDS_MAX" "$@" || true
}

# Runs a suite, or these tests of it, against the server or proxy on a port; its log goes to standard output.
run_suite() {
    suite=$1 port=$2
    shift 2
    export PGHOST=127.0.0.1 PGPORT="$port" PGUSER=postgres PGDATABASE=suite
    case "$suite" in
        psycopg)
            cd "$kept/psycopg" && pytest -m 'not timing and not slow and not mypy' -p no:randomly \
                --test-dsn "host=127.0.0.1 port=$port user=postgres password=$PGPASSWORD dbname=suite" "${@:-tests}"
            ;;
        psycopg2)
            export PSYCOPG2_TESTDB=suite PSYCOPG2_TEST_REPL_DSN=
            cd "$kept/psycopg2" && pytest "${@:-tests}"
            ;;
        asyncpg) cd "$kept/asyncpg" && pytest "${@:-tests}" ;;
        sqlalchemy)
            [ "$#" -gt 0 ] || set -- test/dialect/postgresql test/dialect/test_suite.py
            cd "$kept/sqlalchemy" && pytest --dburi "postgresql+psycopg2://postgres:$PGPASSWORD@127.0.0.1:$port/suite" "$@"
            ;;
        jdbc) java -cp "$kept/jdbc/postgresql.jar" "$programs/Smoke.java" 127.0.0.1 "$port" ;;
        node) cp "$programs/smoke.mjs" "$kept/node/" && cd "$kept/node" && node --no-deprecation smoke.mjs 127.0.0.1 "$port" ;;
        dbdpg)
            # Some of its tests go through hashes: in the same order each time.
            export PERL_HASH_SEED=0 DBDPG_TEST_ALWAYS_ENV=1 DBI_USER=postgres DBI_PASS="$PGPASSWORD" \
                DBI_DSN="dbi:Pg:dbname=suite;host=127.0.0.1;port=$port"
            cd "$kept/dbdpg" && timeout "$SECONDS_MAX" prove --verbose --blib t/*.t
            ;;
    esac
}

# The tests of a log with their verdicts, or what a program of scripts/suites has printed for each.
verdicts_of() {
    case "$1" in
        jdbc | node) grep -E '^[a-z]+/' ;;
        dbdpg)
            awk '/^t\/.*\.t \.\./ { file = $1 }
                 /^not ok .*# TODO/ { print file "::" $0, "XFAIL"; next }
                 /^not ok / { sub(/^not ok /, ""); print file "::" $0, "FAILED" }
                 /^ok / { sub(/^ok /, ""); print file "::" $0, "PASSED" }'
            ;;
        *) sed -n -E 's/^(.*::.*) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)( .*)?$/\1 \2/p' ;;
    esac | sort
}

# Starts a new server, and pgstar before it where the side wants it; sets $port.
start_side() {
    start_server max_prepared_transactions=10 wal_level=logical max_connections=200 max_locks_per_transaction=256
    sql "$server_port" postgres 'CREATE DATABASE suite'
    sql "$server_port" suite 'CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE SCHEMA elsewhere;
        CREATE TABLE elsewhere.t (id int PRIMARY KEY, ten int NOT NULL); CREATE EXTENSION hstore; CREATE EXTENSION citext'
    port=$server_port
    case "$1" in
        direct) return ;;
        relay) method=relay ;;
        scram) method=scram ;;
        *) fail "there is no side $1" ;;
    esac
    # No statement means the rollup's table, but those that aggregate and have its name anywhere are routed.
    start_pgstar "$(target_directory)/debug/pgstar" "
        [upstream]
        url = \"postgresql://postgres:$PGPASSWORD@127.0.0.1:$server_port/suite\"
        [auth]
        method = \"$method\"
        [[rollup]]
        name = \"suite\"
        query = \"SELECT ten, count(*) FROM elsewhere.t GROUP BY ten\""
    port=$pgstar_port
}

stop_side() {
    if [ "$1" != direct ]; then
        stop_pgstar
        cp "$work/pgstar.log" "$2"
    fi
    stop_server
}

# Runs a suite on one side; leaves its log and its verdicts in $results.
run_side() {
    suite=$1 side=$2
    start_side "$side"
    say "running $suite ($side)"
    mkdir -p "$results"
    (run_suite "$suite" "$port") >"$results/$suite-$side.log" 2>&1 || say "$suite ($side) ended with an error: see $results/$suite-$side.log"
    stop_side "$side" "$results/$suite-$side-proxy.log"
    verdicts_of "$suite" <"$results/$suite-$side.log" >"$results/$suite-$side"
    case "$suite" in
        jdbc | node) count=$(grep -c . "$results/$suite-$side") || true ;;
        *) count=$(grep -c ' PASSED$' "$results/$suite-$side") || true ;;
    esac
    [ "$count" -gt 0 ] || fail "no test of $suite ran: see $results/$suite-$side.log"
    say "$suite ($side): $count of $(wc -l <"$results/$suite-$side") tests passed"
}

# What begins the lines of the tests that are expected to differ: their names, with and without parameters.
expected_of() {
    awk -v suite="$1" -v side="$2" '$1 == suite && $2 == side { print " " $3 "["; print " " $3 " " }' "$programs/expected"
}

# Lists the tests that come out otherwise than directly, in repetitions too; whether there are none.
compare() {
    suite=$1 side=$2
    expected_of "$suite" "$side" >"$work/expected"
    diff "$results/$suite-direct" "$results/$suite-$side" | grep '^[<>]' | grep -v -F -f "$work/expected" >"$work/differing" || true
    if [ ! -s "$work/differing" ]; then return 0; fi
    cat "$work/differing"
    case "$suite" in jdbc | node | dbdpg) return 1 ;; esac
    sed -n -E 's/^[<>] (.*) [A-Z]+$/\1/p' "$work/differing" | sort -u >"$work/again"
    for one in direct "$side"; do
        repeat "$suite" "$one" <"$work/again"
        { cat "$results/$suite-$one" && verdicts_of "$suite" <"$results/$suite-$one-again.log"; } |
            grep ' PASSED$' | sort -u | grep -F -f "$work/again" >"$work/passed-$one" || true
    done
    diff "$work/passed-direct" "$work/passed-$side"
}

# Runs the tests that standard input names a few times more.
repeat() {
    set -- "$1" "$2" "$results/$1-$2-again.log"
    start_side "$2"
    tests=$(cat)
    for _ in $(seq "$REPEATS"); do
        (
            # One test a line, with spaces in some.
            set -f
            IFS='
'
            # shellcheck disable=SC2086
            run_suite "$1" "$port" $tests
        )
    done >"$3" 2>&1
    stop_side "$2" "$3.proxy"
}

need_postgresql
cargo build -p pgstar
mkdir -p "$kept"
differing=
for suite in $SUITES; do
    fetch "$suite"
    for side in $SIDES; do
        run_side "$suite" "$side"
        [ "$side" != direct ] || continue
        if compare "$suite" "$side"; then
            say "$suite ($side): every test as direct"
        else
            differing="$differing $suite ($side)"
        fi
    done
done
[ -z "$differing" ] || fail "different through pgstar:$differing; logs are in $results"
