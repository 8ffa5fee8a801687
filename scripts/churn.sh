#!/bin/sh
# Measures sessions as Superset opens them: connect, log in by SCRAM, 11 statements of preamble, one question, disconnect.
#
# PostgreSQL alone, through pgbouncer (session pooling), through pgstar as a relay and through pgstar with
# [auth] method = "scram" take turns in one run: read ratios, not absolute numbers. The latter has a rollup for the
# question, as dashboards do, under strict freshness; the others ask the table of 1,000 rows. CHURN_ROUNDS, CHURN_SECONDS (of one
# turn) and CHURN_CLIENTS change how long it takes. CHURN_COMMITS is how many rows are inserted into that table each second
# meanwhile, each in a transaction of its own; none unless it is set.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh
. scripts/stand.sh

ROUNDS=${CHURN_ROUNDS:-5}
SECONDS_EACH=${CHURN_SECONDS:-2}
CLIENTS=${CHURN_CLIENTS:-1 8}
COMMITS=${CHURN_COMMITS:-}
# Throw-away, for a server that lives as long as this script.
PASSWORD=dashboards
relay_pid=
writer_pid=

trap 'stop_writer; stop_relay; take_down' EXIT

stop_writer() {
    end "$writer_pid"
    writer_pid=
}

start_writer() {
    cat >"$work/write.sql" <<'SQL'
\set region random(0, 4)
INSERT INTO sales (region, amount) VALUES ('region ' || :region, 1);
SQL
    "$PGSTAR_PG_BIN/pgbench" --no-vacuum --file "$work/write.sql" --protocol prepared --rate "$COMMITS" --time 86400 \
        -h 127.0.0.1 -p "$server_port" -U postgres churn >"$work/writer.log" 2>&1 &
    writer_pid=$!
}

stop_relay() {
    end "$relay_pid"
    relay_pid=
}

set_up() {
    start_server max_connections=200 shared_buffers=256MB wal_level=logical
    sql "$server_port" postgres "CREATE ROLE dash LOGIN PASSWORD '$PASSWORD'"
    sql "$server_port" postgres 'CREATE DATABASE churn'
    sql "$server_port" churn "
        CREATE TABLE sales (id serial PRIMARY KEY, region text, amount int);
        INSERT INTO sales (region, amount) SELECT 'region ' || g % 5, g FROM generate_series(1, 1000) g;
        GRANT SELECT ON sales TO dash"
    hba=$work/data/pg_hba.conf
    { echo 'host all dash 127.0.0.1/32 scram-sha-256' && cat "$hba"; } >"$work/hba"
    cat "$work/hba" >"$hba"
    sql "$server_port" postgres 'SELECT pg_reload_conf()' >/dev/null

    url="[upstream]
        url = \"postgresql://postgres@127.0.0.1:$server_port/churn\""
    start_pgstar "$1" "$url"
    relay_pid=$pgstar_pid relay_port=$pgstar_port
    start_pgstar "$1" "$url
        [auth]
        method = \"scram\"
        [[rollup]]
        name = \"sales_by_region\"
        query = \"SELECT region, sum(amount), count(*) FROM sales GROUP BY region\""
    until_the_rollup_answers
    sides="--side direct=127.0.0.1:$server_port"
    if want_pgbouncer; then
        start_pgbouncer
        sides="$sides --side pgbouncer=127.0.0.1:$pgbouncer_port"
    else
        say "pgbouncer is not here and could not be installed: going on without"
    fi
    sides="$sides --side pgstar-relay=127.0.0.1:$relay_port --side pgstar-scram=127.0.0.1:$pgstar_port"
}

until_the_rollup_answers() {
    waited=0
    while [ "$(sql "$pgstar_port" churn 'EXPLAIN (PGSTAR) SELECT region, sum(amount) FROM sales GROUP BY region' | grep -c '^Answered')" = 0 ]; do
        [ "$waited" -lt "$START_SECONDS_MAX" ] || fail "the rollup does not answer"
        sleep 1
        waited=$((waited + 1))
    done
}

# As stand.sh's, but pgbouncer checks passwords too, against the verifier that the server has.
try_pgbouncer() {
    sql "$server_port" postgres \
        "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid WHERE rolname = 'dash'" >"$work/users"
    cat >"$work/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=$server_port
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $work/users
pool_mode = session
default_pool_size = 100
max_client_conn = 1000
INI
    run_pgbouncer grep -q 'process up' "$work/pgbouncer.log"
}

need_postgresql
cargo build --release -p pgstar -p pgstar-loadtest
release=$(target_directory)/release
set_up "$release/pgstar"
printf '%s, %s processors, %s rounds of %s s\n' "$("$PGSTAR_PG_BIN/postgres" --version)" "$(getconf _NPROCESSORS_ONLN)" \
    "$ROUNDS" "$SECONDS_EACH"
[ -z "$COMMITS" ] || start_writer
printf '%7s %-14s %10s %10s %10s %10s\n' clients side sessions/s 'to direct' 'p50 ms' 'p95 ms'
for clients in $CLIENTS; do
    # The sides are meant as several words.
    # shellcheck disable=SC2086
    "$release/pgstar-loadtest" churn $sides --user dash --password "$PASSWORD" --database churn --clients "$clients" \
        --seconds "$SECONDS_EACH" --rounds "$ROUNDS" \
        --question 'SELECT region AS region, SUM(amount) AS "SUM(amount)" FROM sales GROUP BY region ORDER BY "SUM(amount)" DESC LIMIT 50000'
done
