# Finds PostgreSQL's programs, or installs them: sets and exports PGSTAR_PG_BIN, the directory of postgres,
# initdb, psql and pgbench.
#
# To be sourced, after scripts/install.sh. Looks in the same places as pgstar itself does
# (postgres/src/server/binaries.rs), but wants psql and pgbench as well. POSIX sh.

PG_PROGRAMS='postgres initdb psql pgbench'
# The oldest major version that pgstar supports.
PG_VERSION_MIN=14

# Makes PGSTAR_PG_BIN a directory with all the programs, or ends the script saying what to install.
need_postgresql() {
    if [ -n "${PGSTAR_PG_BIN:-}" ]; then
        is_pg_bin "$PGSTAR_PG_BIN" ||
            fail "PGSTAR_PG_BIN is $PGSTAR_PG_BIN, which lacks one of: $PG_PROGRAMS (version $PG_VERSION_MIN or newer)"
    else
        PGSTAR_PG_BIN=$(find_pg_bin)
        if [ -z "$PGSTAR_PG_BIN" ]; then
            install_postgresql || postgresql_missing
            PGSTAR_PG_BIN=$(find_pg_bin)
        fi
        [ -n "$PGSTAR_PG_BIN" ] || postgresql_missing
    fi
    export PGSTAR_PG_BIN
}

postgresql_missing() {
    # The list of packages is meant as several words.
    # shellcheck disable=SC2046
    fail "PostgreSQL $PG_VERSION_MIN or newer with $PG_PROGRAMS was not found. Install it:

    $(install_line $(postgresql_packages))

or set PGSTAR_PG_BIN to the directory of its programs."
}

postgresql_packages() {
    case "$(package_manager)" in
        dnf) echo postgresql-server postgresql-contrib ;;
        apk) echo postgresql postgresql-client postgresql-contrib ;;
        brew) echo postgresql@17 ;;
        *) echo postgresql ;;
    esac
}

find_pg_bin() {
    for directory in "$(directory_on_path)" "$(pg_config --bindir 2>/dev/null)" $(usual_places); do
        if is_pg_bin "$directory"; then
            echo "$directory"
            return
        fi
    done
}

directory_on_path() {
    # On Debian, psql and pgbench on PATH are wrappers beside no postgres: those are not taken.
    server=$(command -v postgres) && dirname "$server"
}

# Newest version first.
usual_places() {
    for pattern in '/usr/lib/postgresql/*/bin' '/usr/pgsql-*/bin' '/usr/libexec/postgresql*' '/usr/local/pgsql*/bin' \
        '/opt/homebrew/opt/postgresql*/bin' '/usr/local/opt/postgresql*/bin' \
        '/Applications/Postgres.app/Contents/Versions/*/bin'; do
        for directory in $pattern; do
            if [ -d "$directory" ]; then
                echo "$(echo "$directory" | tr -cd '0-9') $directory"
            fi
        done
    done | sort -rn | cut -d ' ' -f 2-
}

is_pg_bin() {
    for program in $PG_PROGRAMS; do
        [ -x "$1/$program" ] || return 1
    done
    version=$("$1/postgres" --version 2>/dev/null | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge "$PG_VERSION_MIN" ]
}

install_postgresql() {
    say "PostgreSQL is missing"
    if [ "$(package_manager)" = apt-get ]; then
        install_postgresql_apt
    else
        # shellcheck disable=SC2046
        install_packages $(postgresql_packages)
    fi
}

# Debian's package would create a server and start it on port 5432; it is told not to, and its settings file
# is put back as it was afterwards.
install_postgresql_apt() {
    install_packages postgresql-common || return 1
    settings=/etc/postgresql-common/createcluster.conf
    as_root cp -p "$settings" "$settings.before-pgstar" || return 1
    as_root sh -c "echo 'create_main_cluster = false' >>$settings"
    apt_status=0
    install_packages postgresql || apt_status=$?
    as_root mv "$settings.before-pgstar" "$settings"
    return "$apt_status"
}
