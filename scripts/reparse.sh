#!/bin/sh
# Compares what pgstar reads and writes with PostgreSQL's own parser. Compiles that parser, for which bindgen wants libclang.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -q libclang || ls /usr/lib/llvm-*/lib/libclang* >/dev/null 2>&1
}

has_libclang || install_packages libclang-dev || fail "no libclang was found; try: $(install_line libclang-dev), or set LIBCLANG_PATH"
has cc || install_packages gcc libc6-dev || fail "no C compiler was found; try: $(install_line gcc libc6-dev)"
exec cargo test --manifest-path reparse/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/reparse" "$@"
