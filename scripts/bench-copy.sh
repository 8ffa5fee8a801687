#!/bin/sh
# Measures COPY of much data in and out, and a large result, through pgstar and pgbouncer beside PostgreSQL alone.
#
# The sides take turns, so that noise of the machine hits all of them: the ratios are medians over COPY_ROUNDS rounds of
# COPY_MIB mebibytes each. Also says how far the memory of pgstar's process grew.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh
. scripts/stand.sh

MIB=${COPY_MIB:-1024}
ROUNDS=${COPY_ROUNDS:-3}
# About 100 bytes each.
ROWS_PER_MIB=10485

now_ms() {
    date +%s%3N
}

run_psql() {
    port=$1
    shift
    "$PGSTAR_PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d bench "$@"
}

# Milliseconds that one transfer takes.
transfer() {
    begun=$(now_ms)
    case "$1" in
        out) run_psql "$2" -c 'COPY big TO STDOUT' >/dev/null ;;
        in) run_psql "$2" -c 'BEGIN; TRUNCATE sink; COPY sink FROM STDIN; ROLLBACK' <"$work/rows" ;;
        # Rows as a query answers them, a cursor's worth at a time.
        result) run_psql "$2" -v FETCH_COUNT=100000 -c 'SELECT * FROM big' >/dev/null ;;
    esac
    echo $(($(now_ms) - begun))
}

peak_kib() {
    sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pgstar_pid/status"
}

median() {
    sort -n | awk '{ value[NR] = $1 } END { print NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'
}

need_postgresql
cargo build --release -p pgstar
start_server shared_buffers=512MB max_wal_size=8GB
sql "$server_port" postgres 'CREATE DATABASE bench'
sql "$server_port" bench "
    CREATE UNLOGGED TABLE big AS
        SELECT g AS id, md5(g::text) AS one, md5((g + 1)::text) AS two, md5((g + 2)::text)::varchar(25) AS three
        FROM generate_series(1, $((MIB * ROWS_PER_MIB))) g;
    CREATE UNLOGGED TABLE sink (LIKE big)"
start_pgstar "$(target_directory)/release/pgstar" "
    [upstream]
    url = \"postgresql://postgres@127.0.0.1:$server_port/bench\""
sides=pgstar
if want_pgbouncer; then
    start_pgbouncer
    sides='pgstar pgbouncer'
fi
run_psql "$server_port" -c 'COPY big TO STDOUT' >"$work/rows"
bytes=$(wc -c <"$work/rows")
before=$(peak_kib)
echo "$((bytes >> 20)) MiB, medians of $ROUNDS rounds, $("$PGSTAR_PG_BIN/postgres" --version)"
for kind in out in result; do
    for round in $(seq "$ROUNDS"); do
        direct=$(transfer "$kind" "$server_port")
        echo "$direct" >>"$work/$kind-direct"
        for side in $sides; do
            if [ "$side" = pgstar ]; then port=$pgstar_port; else port=$pgbouncer_port; fi
            through=$(transfer "$kind" "$port")
            echo "$((direct * 1000 / through))" >>"$work/$kind-$side"
        done
    done
    printf '%-7s direct %6.0f MiB/s' "$kind" "$(echo "$bytes $(median <"$work/$kind-direct")" | awk '{ print $1 / 1048.576 / $2 }')"
    for side in $sides; do
        printf ', %s %4.0f%%' "$side" "$(median <"$work/$kind-$side" | awk '{ print $1 / 10 }')"
    done
    echo
done
echo "pgstar's peak memory: $before KiB before, $(peak_kib) KiB after"
