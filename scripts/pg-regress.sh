#!/bin/sh
# PostgreSQL's own test suites through pgstar: every test must come out as it does without pgstar.
#
# The suites are those of the installed server's version, from Debian's source package. Each runs on a throw-away
# server directly, then through pgstar without rollups, then through pgstar with rollups over tables of the suite;
# what differs from the direct run is listed, with the differences themselves kept where the last line says.
# REGRESS_SUITES (regress isolation libpq_pipeline) and REGRESS_MODES (direct plain rollups) choose; PGSTAR_PG_ACCOUNT is the system
# account for the servers when this is run as root.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh

SUITES=${REGRESS_SUITES:-regress isolation libpq_pipeline}
MODES=${REGRESS_MODES:-direct plain rollups}
ACCOUNT=${PGSTAR_PG_ACCOUNT:-postgres}
# Statements of the suite that are routed in the third mode: all that aggregate and have one of these names in their
# text. The rollups are over tables of these names in another schema: no statement of the suite means those.
ROLLUP_TABLES='tenk1 onek int4_tbl'
ROLLUP_SCHEMA=elsewhere
PGSTAR_START_SECONDS_MAX=30
# Only names the socket file, which is in a directory of its own.
SOCKET_PORT=5432

case "${CARGO_TARGET_DIR:-target}" in
    /*) target=$CARGO_TARGET_DIR ;;
    *) target=$PWD/${CARGO_TARGET_DIR:-target} ;;
esac
work=$(mktemp -d)
results=$target/pg-regress/results
proxy=
server_runs=
trap clean_up EXIT
trap 'exit 130' INT TERM

clean_up() {
    stop_proxy
    stop_server
    rm -rf "$work"
}

# PostgreSQL refuses to run as root.
as_account() {
    if [ "$(id -u)" = 0 ]; then runuser -u "$ACCOUNT" -- "$@"; else "$@"; fi
}

give_to_account() {
    if [ "$(id -u)" = 0 ]; then chown -R "$ACCOUNT" "$@"; fi
}

need_tools() {
    need_postgresql
    pgxs=$PGSTAR_PG_BIN/../lib/pgxs/src/test
    for program in apt-get dpkg-source dpkg-query gcc cargo "$pgxs/regress/pg_regress"; do
        has "$program" || fail "$program is needed: this runs on Debian, with dpkg-dev and gcc"
    done
    package=$(dpkg-query --search "$(readlink -f "$PGSTAR_PG_BIN/postgres")" | cut -d : -f 1)
    version=$(dpkg-query --show --showformat '${Version}' "$package")
    source_dir=$target/pg-regress/$package-$version
}

# The sources of the installed version, from the system's own package sources with deb-src in place of deb. The lists
# are kept apart: nothing of the system's settings changes.
fetch_sources() {
    [ -f "$source_dir/complete" ] && return
    say "fetching the sources of $package $version"
    mkdir -p "$work/apt/parts" "$work/apt/lists/partial" "$source_dir"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/apt/parts/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && sed 's/^deb /deb-src /' "$file" >"$work/apt/parts/deb-src-${file##*/}.list"
    done
    (
        cd "$work/apt"
        set -- -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/apt/parts" \
            -o "Dir::State::lists=$work/apt/lists" -o APT::Sandbox::User=root
        apt-get "$@" update
        apt-get "$@" source --download-only "$package=$version"
        dpkg-source --no-check -x ./*.dsc "$work/apt/source" >/dev/null
        # The server's headers, unpacked beside the sources and not installed.
        apt-get -qq -o APT::Sandbox::User=root download "postgresql-server-dev-${package##*-}=$version"
        dpkg-deb --extract ./postgresql-server-dev-*.deb "$source_dir/dev"
    )
    for suite in regress isolation modules/libpq_pipeline; do
        rm -rf "${source_dir:?}/${suite##*/}"
        cp -R "$work/apt/source/src/test/$suite" "$source_dir/"
    done
    build_programs
    touch "$source_dir/complete"
}

# The C functions that the regression suite loads, and the client of the pipeline suite.
build_programs() {
    mkdir -p "$source_dir/lib"
    includes=$source_dir/dev/usr/include/postgresql
    gcc -w -O1 -fPIC -shared "-I$includes/${package##*-}/server" "-I$includes" \
        -o "$source_dir/lib/regress.so" "$source_dir/regress/regress.c"
    gcc -w -O1 "-I$includes/${package##*-}/server" "-I$("$PGSTAR_PG_BIN/pg_config" --includedir)" \
        -o "$source_dir/lib/libpq_pipeline" "$source_dir/libpq_pipeline/libpq_pipeline.c" \
        "-L$source_dir/dev/usr/lib/postgresql/${package##*-}/lib" -lpq -lpgcommon -lpgport
    for library in refint autoinc; do
        cp "$("$PGSTAR_PG_BIN/pg_config" --pkglibdir)/$library.so" "$source_dir/lib/"
    done
}

start_server() {
    mkdir -p "$work/socket"
    give_to_account "$work"
    chmod 755 "$work" "$work/socket"
    as_account "$PGSTAR_PG_BIN/initdb" -D "$work/data" -U postgres -A trust --no-locale -E UTF8 -N >/dev/null
    as_account "$PGSTAR_PG_BIN/pg_ctl" -D "$work/data" -w -s -l "$work/server.log" start \
        -o "-k '$work/socket' -p $SOCKET_PORT -c listen_addresses= -c fsync=off -c max_prepared_transactions=2"
    server_runs=yes
}

stop_server() {
    if [ -n "$server_runs" ]; then
        as_account "$PGSTAR_PG_BIN/pg_ctl" -D "$work/data" -w -s -m immediate stop || true
    fi
    server_runs=
    rm -rf "$work/data" "$work/socket"
}

# Starts pgstar before the server on a port that is free, and sets host and port.
start_proxy() {
    {
        echo '[listen]'
        echo 'address = "127.0.0.1:0"'
        echo '[admin]'
        echo 'address = "off"'
        echo '[upstream]'
        echo "url = \"host=$work/socket port=$SOCKET_PORT user=postgres dbname=$database\""
        if [ "$1" = rollups ]; then rollups; fi
    } >"$work/pgstar.toml"
    if [ "$1" = rollups ]; then make_rollup_tables; fi
    NO_COLOR=1 "$target/debug/pgstar" serve --config "$work/pgstar.toml" >"$work/pgstar.log" 2>&1 &
    proxy=$!
    waited=0
    while host=127.0.0.1 port=$(sed -n 's/.*Accepting connections.*address=127.0.0.1:\([0-9]*\).*/\1/p' "$work/pgstar.log") && [ -z "$port" ]; do
        if ! kill -0 "$proxy" 2>/dev/null || [ "$waited" -ge "$PGSTAR_START_SECONDS_MAX" ]; then
            cat "$work/pgstar.log" >&2
            fail "pgstar did not start"
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

rollups() {
    echo '[freshness]'
    echo 'default = "any"'
    for table in $ROLLUP_TABLES; do
        echo '[[rollup]]'
        echo "name = \"regress_$table\""
        echo "query = \"SELECT ten, count(*) FROM $ROLLUP_SCHEMA.$table GROUP BY ten\""
    done
}

make_rollup_tables() {
    direct_sql "CREATE SCHEMA $ROLLUP_SCHEMA"
    for table in $ROLLUP_TABLES; do
        direct_sql "CREATE TABLE $ROLLUP_SCHEMA.$table (ten int NOT NULL)"
    done
}

direct_sql() {
    "$PGSTAR_PG_BIN/psql" -q -h "$work/socket" -p "$SOCKET_PORT" -U postgres -d "$database" -c "$1"
}

stop_proxy() {
    if [ -n "$proxy" ]; then
        kill "$proxy" 2>/dev/null || true
        wait "$proxy" 2>/dev/null || true
    fi
    proxy=
}

# Runs the tests that a schedule lists, by PostgreSQL's own runner.
run_schedule() {
    # What pg_regress gives to a database that it makes itself.
    direct_sql "
        ALTER DATABASE $database SET lc_messages TO 'C';
        ALTER DATABASE $database SET lc_monetary TO 'C';
        ALTER DATABASE $database SET lc_numeric TO 'C';
        ALTER DATABASE $database SET lc_time TO 'C';
        ALTER DATABASE $database SET bytea_output TO 'hex';
        ALTER DATABASE $database SET timezone_abbreviations TO 'Default';"
    (
        cd "$output"
        as_account "$pgxs/$suite/$runner" --bindir="$PGSTAR_PG_BIN" --inputdir="$work/source/$suite" \
            --outputdir="$output" --dlpath="$work/source/lib" --max-concurrent-tests=20 --use-existing \
            --dbname="$database" --schedule="$work/source/$suite/$schedule" --host="$host" --port="$port" --user=postgres
    ) || true
}

# Runs each test of libpq's pipelines; where PostgreSQL has a trace of the protocol, it must be the same.
run_pipeline_tests() {
    for test in $("$source_dir/lib/libpq_pipeline" tests); do
        verdict=ok
        expected=$source_dir/libpq_pipeline/traces/$test.trace
        set -- -r 700
        if [ -f "$expected" ]; then set -- "$@" -t "$output/$test.trace"; fi
        "$source_dir/lib/libpq_pipeline" "$@" "$test" "host=$host port=$port user=postgres dbname=$database" ||
            verdict=FAILED
        if [ -f "$expected" ] && ! diff "$expected" "$output/$test.trace"; then verdict=FAILED; fi
        echo "test $test ... $verdict"
    done
}

# Runs one suite in one mode; its results are left in a directory of that name.
run_suite() {
    suite=$1 mode=$2
    output=$work/$suite-$mode
    mkdir -p "$output"
    start_server
    host=$work/socket port=$SOCKET_PORT
    case "$suite" in
        regress) runner=pg_regress schedule=parallel_schedule database=regression ;;
        isolation) runner=pg_isolation_regress schedule=isolation_schedule database=isolation_regression ;;
        libpq_pipeline) database=pipeline ;;
    esac
    # Made here, not by pg_regress: pgstar connects to it when it starts, and would keep it from being dropped.
    "$PGSTAR_PG_BIN/createdb" -h "$host" -p "$port" -U postgres --template template0 "$database"
    case "$mode" in direct) ;; *) start_proxy "$mode" ;; esac
    say "running $suite ($mode)"
    if [ "$suite" = libpq_pipeline ]; then run_pipeline_tests; else run_schedule; fi >"$output/log" 2>&1
    stop_proxy
    cp "$work/server.log" "$output/server.log"
    if [ -f "$work/pgstar.log" ]; then mv "$work/pgstar.log" "$output/pgstar.log"; fi
    stop_server
    grep -hE '^(test )? *[^ ]+ +\.\.\. ' "$output/log" | sed 's/^test  *//; s/ [0-9]* ms.*//; s/  */ /g; s/^ //' |
        sort >"$output/verdicts"
    rm -rf "$results/$suite-$mode"
    mkdir -p "$results"
    cp -R "$output" "$results/"
    say "$suite ($mode): $(grep -c '\.\.\. ok' "$output/verdicts") of $(wc -l <"$output/verdicts") tests ok"
}

# Lists the tests whose verdict or output is not that of the direct run; whether there are none.
compare() {
    suite=$1 mode=$2
    direct=$results/$suite-direct
    output=$results/$suite-$mode
    [ -f "$direct/verdicts" ] || return 0
    if ! diff "$direct/verdicts" "$output/verdicts"; then
        say "$suite ($mode) differs from direct: see $output"
        return 1
    fi
    say "$suite ($mode): every test as direct"
}

need_tools
cargo build -p pgstar
fetch_sources
# Where the servers' account may read it, wherever the repository is.
cp -R "$source_dir" "$work/source"
differing=0
for suite in $SUITES; do
    for mode in $MODES; do
        run_suite "$suite" "$mode"
        [ "$mode" = direct ] || compare "$suite" "$mode" || differing=$((differing + 1))
    done
done
[ "$differing" = 0 ] || fail "$differing of the runs through pgstar differ; outputs are in $results"
