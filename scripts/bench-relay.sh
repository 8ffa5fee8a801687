#!/bin/sh
# Measures what pgstar adds to statements that it passes through, beside pgbouncer (session pooling).
#
# Both proxies hand backends on from one run to the next, as they do where many sessions come and go: a new backend spends
# its first seconds on faults of pages that an older one has mapped.
#
# PostgreSQL alone, through pgstar and through pgbouncer take turns in one run, so that noise of the machine hits all
# of them: read ratios, not absolute numbers. A ratio is the median over rounds of one side's transactions per second
# divided by those of PostgreSQL alone in the same round; processor time is that of the proxy's process alone, and
# tells more than throughput on a machine that others use. BENCH_ROUNDS, BENCH_SECONDS (of one run of pgbench),
# BENCH_CLIENTS, BENCH_WORKLOADS (select tpcb pipeline) and BENCH_PROTOCOLS change how long it takes.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh
. scripts/stand.sh

ROUNDS=${BENCH_ROUNDS:-5}
SECONDS_EACH=${BENCH_SECONDS:-1}
CLIENTS=${BENCH_CLIENTS:-1 8 32}
WORKLOADS=${BENCH_WORKLOADS:-select tpcb pipeline}
PROTOCOLS=${BENCH_PROTOCOLS:-simple extended prepared}
# The server asks for a password, so that pgstar shares backends ([auth] method = "scram").
server_password=relayed
export PGPASSWORD=$server_password
# Statements in one pipeline of the workload of that name.
PIPELINE_LENGTH=10

pgbench() {
    "$PGSTAR_PG_BIN/pgbench" "$@"
}

set_up() {
    start_server max_connections=200 shared_buffers=256MB
    sql "$server_port" postgres 'CREATE DATABASE bench' 
    quietly pgbench --initialize --scale 10 -h 127.0.0.1 -p "$server_port" -U postgres bench ||
        fail "pgbench could not fill its tables"
    # With a rollup, so that statements are looked at as they are wherever pgstar is of use.
    start_pgstar "$(target_directory)/release/pgstar" "
        [upstream]
        url = \"postgresql://postgres:$server_password@127.0.0.1:$server_port/bench\"
        [auth]
        method = \"scram\"
        [[rollup]]
        name = \"balance_by_branch\"
        query = \"SELECT bid, sum(bbalance) FROM pgbench_branches GROUP BY bid\""
    sides='direct pgstar'
    if want_pgbouncer; then
        start_pgbouncer
        sides='direct pgstar pgbouncer'
    else
        say "pgbouncer is not here and could not be installed: going on without"
    fi
    write_pipeline_script >"$work/pipeline.sql"
}

write_pipeline_script() {
    printf '%s\n' '\startpipeline'
    for at in $(seq "$PIPELINE_LENGTH"); do
        printf '%s\n' "\\set aid$at random(1, 1000000)" "SELECT abalance FROM pgbench_accounts WHERE aid = :aid$at;"
    done
    printf '%s\n' '\endpipeline'
}

# Calls $1 with each workload, protocol and number of clients that there is.
for_each_case() {
    for workload in $WORKLOADS; do
        for protocol in $PROTOCOLS; do
            # Pipelines need the extended protocol.
            if [ "$workload $protocol" = 'pipeline simple' ]; then continue; fi
            for clients in $CLIENTS; do "$1" "$workload" "$protocol" "$clients"; done
        done
    done
}

measure_case() {
    for round in $(seq "$ROUNDS"); do
        # The side that begins alternates.
        if [ $((round % 2)) = 1 ]; then order=$sides; else order=$(reversed $sides); fi
        for side in $order; do
            measure "$round" "$side" "$@"
        done
    done
    print_case "$@"
}

reversed() {
    reversed=
    for word in "$@"; do reversed="$word $reversed"; done
    echo "$reversed"
}

# Adds one line to the runs: round, side, workload, protocol, clients, transactions per second, latency in ms, the
# proxy's microseconds of processor time per transaction.
measure() {
    case "$2" in
        direct) port=$server_port process= ;;
        pgstar) port=$pgstar_port process=$pgstar_pid ;;
        pgbouncer) port=$pgbouncer_port process=$pgbouncer_pid ;;
    esac
    case "$3" in
        select) script='--select-only' ;;
        tpcb) script='--builtin=tpcb-like' ;;
        pipeline) script="--file=$work/pipeline.sql" ;;
    esac
    before=$(ticks_of "$process")
    pgbench --no-vacuum "$script" --protocol "$4" --client "$5" --jobs "$(jobs_for "$5")" --time "$SECONDS_EACH" \
        -h 127.0.0.1 -p "$port" -U postgres bench >"$work/run" 2>"$work/run.err" || {
        tail -n 5 "$work/run.err" >&2
        fail "pgbench failed ($*)"
    }
    awk -v row="$*" -v before="${before:-0}" -v after="$(ticks_of "$process")" '
        /^number of transactions actually processed: / { sub(/\/.*/, "", $6); count = $6 }
        /^latency average = / { latency = $4 }
        /^tps = / { tps = $3 }
        END { print row, tps, latency, count ? (after - before) * 10000 / count : 0 }' "$work/run" >>"$work/runs"
}

# pgbench wants no more threads than clients.
jobs_for() {
    processors=$(getconf _NPROCESSORS_ONLN)
    if [ "$1" -lt "$processors" ]; then echo "$1"; else echo "$processors"; fi
}

print_heading() {
    echo
    echo "Medians of $ROUNDS rounds of $SECONDS_EACH s, $("$PGSTAR_PG_BIN/postgres" --version), $(getconf _NPROCESSORS_ONLN) processors"
    printf '%-9s %-9s %7s %12s' workload protocol clients 'direct tps'
    for side in $sides; do
        if [ "$side" != direct ]; then printf ' | %9s %8s %8s' "$side" added CPU; fi
    done
    echo
}

print_case() {
    awk -v case_="$1 $2 $3" -v sides="$sides" '
        $3 " " $4 " " $5 == case_ {
            tps[$1, $2] = $6; latency[$1, $2] = $7; cpu[$1, $2] = $8
            if ($1 > rounds) rounds = $1
        }
        function median(values, n,    i, j, held) {
            for (i = 2; i <= n; i++) {
                held = values[i]
                for (j = i - 1; j >= 1 && values[j] > held; j--) values[j + 1] = values[j]
                values[j + 1] = held
            }
            return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        END {
            split(case_, part, " ")
            for (r = 1; r <= rounds; r++) values[r] = tps[r, "direct"]
            printf "%-9s %-9s %7d %12.0f", part[1], part[2], part[3], median(values, rounds)
            count = split(sides, side, " ")
            for (s = 2; s <= count; s++) {
                for (r = 1; r <= rounds; r++) values[r] = tps[r, side[s]] / tps[r, "direct"]
                ratio = median(values, rounds)
                for (r = 1; r <= rounds; r++) values[r] = (latency[r, side[s]] - latency[r, "direct"]) * 1000
                added = median(values, rounds)
                for (r = 1; r <= rounds; r++) values[r] = cpu[r, side[s]]
                printf " | %8.2fx %5.0f us %5.1f us", ratio, added, median(values, rounds)
            }
            print ""
        }' "$work/runs"
}

need_postgresql
cargo build --release -p pgstar
set_up
print_heading
for_each_case measure_case
