#!/bin/sh
# Measures what pgstar costs: the time of a decision, and what the proxy adds to single-row SELECTs.
#
# PostgreSQL alone and through pgstar take turns in one run, on a demo started for it, so that noise of the machine
# hits both; read ratios, not absolute numbers. BENCH_ROUNDS, BENCH_SECONDS (of one run of pgbench) and BENCH_CLIENTS
# change how long it takes.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh

ROUNDS=${BENCH_ROUNDS:-3}
SECONDS_EACH=${BENCH_SECONDS:-3}
CLIENTS=${BENCH_CLIENTS:-1 8}
PROTOCOLS='simple extended prepared'
# The demo's own data are not measured here.
DEMO_SCALE=0.01
DEMO_START_SECONDS_MAX=300

target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
demo=
trap clean_up EXIT
trap 'exit 130' INT TERM

# Ends the demo by its own process number; it removes its server.
clean_up() {
    if [ -n "$demo" ]; then
        kill "$demo" 2>/dev/null || true
        wait "$demo" 2>/dev/null || true
    fi
    rm -rf "$work"
}

bench_decisions() {
    cargo bench -p pgstar-rewriter --bench decide
}

# Waits for the two addresses that `pgstar demo --keep` prints.
start_demo() {
    cargo build --release -p pgstar
    "$target/release/pgstar" demo --keep --scale "$DEMO_SCALE" >"$work/demo" 2>"$work/demo.err" &
    demo=$!
    waited=0
    while direct=$(address direct) through=$(address pgstar) && [ -z "$direct" -o -z "$through" ]; do
        if ! kill -0 "$demo" 2>/dev/null || [ "$waited" -ge "$DEMO_START_SECONDS_MAX" ]; then
            tail -n 20 "$work/demo.err" >&2
            fail "pgstar demo did not start"
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

address() {
    sed -n "s/^ *$1: \(postgres.*\)/\1/p" "$work/demo" | head -n 1
}

pgbench() {
    "$PGSTAR_PG_BIN/pgbench" "$@"
}

bench_proxy() {
    quietly pgbench --initialize --scale 10 "$direct" || fail "pgbench could not fill its tables"
    for protocol in $PROTOCOLS; do
        for clients in $CLIENTS; do
            for round in $(seq "$ROUNDS"); do
                # The side that begins alternates.
                if [ $((round % 2)) = 1 ]; then order='direct through'; else order='through direct'; fi
                for side in $order; do
                    measure "$side" "$protocol" "$clients" >>"$work/runs"
                done
            done
        done
    done
}

# One line: side, protocol, clients, average latency in ms, transactions per second.
measure() {
    if [ "$1" = direct ]; then url=$direct; else url=$through; fi
    pgbench --no-vacuum --select-only --protocol "$2" --client "$3" --jobs "$(jobs_for "$3")" \
        --time "$SECONDS_EACH" "$url" >"$work/run" 2>"$work/run.err" || {
        tail -n 5 "$work/run.err" >&2
        fail "pgbench failed ($1, $2, $3 clients)"
    }
    awk -v row="$1 $2 $3" '/^latency average = / { latency = $4 } /^tps = / { tps = $3 } END { print row, latency, tps }' \
        "$work/run"
}

# pgbench wants no more threads than clients.
jobs_for() {
    processors=$(getconf _NPROCESSORS_ONLN)
    if [ "$1" -lt "$processors" ]; then echo "$1"; else echo "$processors"; fi
}

# Medians over the rounds.
print_proxy_table() {
    echo
    echo "pgbench -S, median of $ROUNDS rounds of $SECONDS_EACH s, $("$PGSTAR_PG_BIN/postgres" --version)"
    sort -k 1,3 -k 4,4n "$work/runs" | awk -v protocols="$PROTOCOLS" -v clients="$CLIENTS" '
        { key = $1 " " $2 " " $3; n[key]++; latency[key, n[key]] = $4; tps[key, n[key]] = $5 }
        function median_run(key) { return int((n[key] + 1) / 2) }
        END {
            printf "%-9s %7s %12s %12s %10s %12s %12s %7s\n", "protocol", "clients", "direct", "pgstar", "added", \
                "direct tps", "pgstar tps", "ratio"
            np = split(protocols, p, " "); nc = split(clients, c, " ")
            for (i = 1; i <= np; i++) for (j = 1; j <= nc; j++) {
                d = "direct " p[i] " " c[j]; t = "through " p[i] " " c[j]
                dl = latency[d, median_run(d)]; tl = latency[t, median_run(t)]
                dt = tps[d, median_run(d)]; tt = tps[t, median_run(t)]
                printf "%-9s %7d %9.3f ms %9.3f ms %7.0f us %12.0f %12.0f %6.2fx\n", p[i], c[j], dl, tl, (tl - dl) * 1000, \
                    dt, tt, tt / dt
            }
        }'
}

need_postgresql
bench_decisions
start_demo
bench_proxy
print_proxy_table
