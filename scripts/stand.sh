# A throw-away PostgreSQL with proxies in front of it, for scripts that measure or compare: sets up a directory
# `work`, and takes everything down again when the script ends.
#
# To be sourced after scripts/install.sh and scripts/postgresql.sh. PGSTAR_PG_ACCOUNT is the system account for the
# servers when a script is run as root. POSIX sh.

ACCOUNT=${PGSTAR_PG_ACCOUNT:-postgres}
START_SECONDS_MAX=30
# Ports that are tried one after the other, from a different one for each script that runs.
PORT_FIRST=$((20000 + $$ % 5000))
PORT_TRIES=50

work=$(mktemp -d)
chmod 755 "$work"
server_runs=
pgstar_pid=
pgbouncer_pid=
trap take_down EXIT
trap 'exit 130' INT TERM

take_down() {
    stop_pgbouncer
    stop_pgstar
    stop_server
    rm -rf "$work"
}

# PostgreSQL and pgbouncer refuse to run as root.
as_account() {
    if [ "$(id -u)" = 0 ]; then runuser -u "$ACCOUNT" -- "$@"; else "$@"; fi
}

give_to_account() {
    if [ "$(id -u)" = 0 ]; then chown -R "$ACCOUNT" "$@"; fi
}

# Absolute, wherever the caller goes.
target_directory() {
    case "${CARGO_TARGET_DIR:-target}" in
        /*) echo "$CARGO_TARGET_DIR" ;;
        *) echo "$PWD/${CARGO_TARGET_DIR:-target}" ;;
    esac
}

# Starts a server on a free port of 127.0.0.1 and on a socket in $socket; sets $server_port. Each argument is a setting.
# It trusts everybody, or asks for passwords (SCRAM) when $server_password has that of user postgres.
start_server() {
    socket=$work/socket
    mkdir -p "$socket" "$work/data"
    echo "${server_password:-}" >"$work/password"
    give_to_account "$socket" "$work/data" "$work/password"
    if [ -n "${server_password:-}" ]; then method=scram-sha-256; else method=trust; fi
    as_account "$PGSTAR_PG_BIN/initdb" -D "$work/data" -U postgres -A "$method" --pwfile="$work/password" \
        --no-locale -E UTF8 -N >/dev/null
    settings=
    for setting in fsync=off "$@"; do settings="$settings -c '$setting'"; done
    server_port=$PORT_FIRST
    while ! as_account "$PGSTAR_PG_BIN/pg_ctl" -D "$work/data" -w -s -l "$work/data/log" start \
        -o "-k '$socket' -p $server_port -c listen_addresses=127.0.0.1 $settings" 2>/dev/null; do
        grep -q 'could not bind' "$work/data/log" && [ "$server_port" -lt $((PORT_FIRST + PORT_TRIES)) ] ||
            fail "PostgreSQL did not start: $(tail -n 5 "$work/data/log")"
        rm "$work/data/log"
        server_port=$((server_port + 1))
    done
    server_runs=yes
}

stop_server() {
    if [ -n "$server_runs" ]; then
        as_account "$PGSTAR_PG_BIN/pg_ctl" -D "$work/data" -w -s -m immediate stop || true
    fi
    server_runs=
    rm -rf "$work/data" "$work/socket"
}

# Starts this pgstar with the configuration of the second argument on a port that is free; sets $pgstar_port.
start_pgstar() {
    {
        echo '[listen]'
        echo 'address = "127.0.0.1:0"'
        echo '[admin]'
        echo 'address = "off"'
        echo "$2"
    } >"$work/pgstar.toml"
    : >"$work/pgstar.log"
    NO_COLOR=1 "$1" serve --config "$work/pgstar.toml" >"$work/pgstar.log" 2>&1 &
    pgstar_pid=$!
    waited=0
    while pgstar_port=$(sed -n 's/.*Accepting connections.*address=127.0.0.1:\([0-9]*\).*/\1/p' "$work/pgstar.log") &&
        [ -z "$pgstar_port" ]; do
        if ! kill -0 "$pgstar_pid" 2>/dev/null || [ "$waited" -ge "$START_SECONDS_MAX" ]; then
            cat "$work/pgstar.log" >&2
            fail "pgstar did not start"
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

stop_pgstar() {
    end "$pgstar_pid"
    pgstar_pid=
}

# Ends a child of this script, if the argument names one.
end() {
    if [ -n "$1" ]; then
        kill "$1" 2>/dev/null || true
        wait "$1" 2>/dev/null || true
    fi
}

# Whether there is a pgbouncer, after trying to install one. Debian's package starts a service on port 6432, which
# is stopped again.
want_pgbouncer() {
    has pgbouncer || [ -x /usr/sbin/pgbouncer ] && return
    install_packages pgbouncer || return 1
    has systemctl && as_root systemctl disable --now pgbouncer
    has pgbouncer || [ -x /usr/sbin/pgbouncer ]
}

# Starts pgbouncer in front of the server, for sessions of user postgres; sets $pgbouncer_port.
start_pgbouncer() {
    pgbouncer_port=$PORT_FIRST
    while [ "$pgbouncer_port" -lt $((PORT_FIRST + PORT_TRIES)) ]; do
        pgbouncer_port=$((pgbouncer_port + 1))
        try_pgbouncer && return
    done
    fail "pgbouncer did not start: $(tail -n 5 "$work/pgbouncer.log")"
}

try_pgbouncer() {
    cat >"$work/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=$server_port user=postgres ${server_password:+password=$server_password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir =
auth_type = any
pool_mode = session
default_pool_size = 1000
max_client_conn = 1000
INI
    run_pgbouncer sql "$pgbouncer_port" postgres 'SELECT 1'
}

# Starts pgbouncer with $work/pgbouncer.ini, and waits until the command that is given succeeds.
run_pgbouncer() {
    # It changes to the account by itself.
    account=
    if [ "$(id -u)" = 0 ]; then account="-u $ACCOUNT"; fi
    # Two words, or none.
    # shellcheck disable=SC2086
    PATH=$PATH:/usr/sbin pgbouncer $account "$work/pgbouncer.ini" >"$work/pgbouncer.log" 2>&1 &
    pgbouncer_pid=$!
    for _ in 1 2 3 4 5; do
        sleep 1
        kill -0 "$pgbouncer_pid" 2>/dev/null || return 1
        if "$@" >/dev/null 2>&1; then return; fi
    done
    stop_pgbouncer
    return 1
}

stop_pgbouncer() {
    end "$pgbouncer_pid"
    pgbouncer_pid=
}

# sql PORT DATABASE STATEMENT: rows without decoration.
sql() {
    "$PGSTAR_PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$1" -U postgres -d "$2" -c "$3"
}

# Processor time that a process has used so far, in clock ticks of 10 ms; empty where that is unknown.
ticks_of() {
    [ -r "/proc/$1/stat" ] && sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}
