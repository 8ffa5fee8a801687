#!/bin/sh
# Measures the memory that an idle session takes in pgstar, with IDLE_SESSIONS of them at a time.
#
# PostgreSQL itself would need gigabytes for so many: a stand-in (scripts/idle.py) plays the server for them.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh
. scripts/stand.sh

SESSIONS=${IDLE_SESSIONS:-10000}
# Sessions that are opened and closed before the first measurement, so that what is kept once is not counted.
WARM_UP=100

memory_kib() {
    sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pgstar_pid/status"
}

# Holds so many sessions while a command runs.
while_holding() {
    mkfifo "$work/stop"
    python3 scripts/idle.py hold "$pgstar_port" "$1" <"$work/stop" >"$work/held" &
    holder=$!
    exec 3>"$work/stop"
    while ! grep -q held "$work/held"; do
        kill -0 "$holder" 2>/dev/null || fail "the sessions could not be opened"
        sleep 0.2
    done
    shift
    "$@"
    exec 3>&-
    wait "$holder"
    rm "$work/stop"
}

stop_stand_in() {
    kill "$stand_in" 2>/dev/null || true
    take_down
}

need_postgresql
# Two sockets for each session, and some for the rest.
files=$(ulimit -Hn)
if [ "$files" != unlimited ] && [ $((2 * SESSIONS + 200)) -gt "$files" ]; then
    SESSIONS=$(((files - 200) / 2))
    say "this system allows $files open files: $SESSIONS sessions"
fi
has python3 || fail "python3 was not found"
cargo build --release -p pgstar
start_server
sql "$server_port" postgres 'CREATE DATABASE bench'
python3 scripts/idle.py serve "$server_port" >"$work/stand-in" &
stand_in=$!
trap stop_stand_in EXIT
while ! [ -s "$work/stand-in" ]; do sleep 0.1; done
start_pgstar "$(target_directory)/release/pgstar" "
    [upstream]
    url = \"postgresql://postgres@127.0.0.1:$(cat "$work/stand-in")/bench\"
    [limits]
    connections = $SESSIONS"
while_holding "$WARM_UP" true
before=$(memory_kib)
measure() { after=$(memory_kib); }
while_holding "$SESSIONS" measure
echo "$SESSIONS idle sessions: $before KiB before, $after KiB with them, $(((after - before) * 1024 / SESSIONS)) bytes each"
