#!/bin/sh
# Fuzzes each decoder of the wire for a while, on stable Rust: FUZZ_SECONDS each. A crash leaves its input in
# target/fuzz, and the corpus stays there for the next run. Needs a C++ compiler and Linux.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh

SECONDS_EACH=${FUZZ_SECONDS:-20}
TARGETS='startup_packet client_frame server_frame'
INPUT_BYTES_MAX=4096
MEMORY_MIB_MAX=512

# What cargo-fuzz passes without a sanitizer. Only for the host's own name are build scripts left uninstrumented.
INSTRUMENTATION='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1 --cfg fuzzing'

has c++ || has g++ || install_packages g++ || fail "no C++ compiler was found; try: $(install_line g++)"
case "${CARGO_TARGET_DIR:-target}" in
    /*) kept=$CARGO_TARGET_DIR/fuzz ;;
    *) kept=$PWD/${CARGO_TARGET_DIR:-target}/fuzz ;;
esac
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$INSTRUMENTATION cargo build --manifest-path fuzz/Cargo.toml --release --target "$host" --target-dir "$kept"
for target in $TARGETS; do
    corpus=$kept/corpus/$target
    mkdir -p "$corpus"
    say "fuzzing $target for $SECONDS_EACH s"
    if ! "$kept/$host/release/$target" -max_total_time="$SECONDS_EACH" -max_len="$INPUT_BYTES_MAX" \
        -rss_limit_mb="$MEMORY_MIB_MAX" -artifact_prefix="$kept/$target-" "$corpus" >"$kept/$target.log" 2>&1; then
        tail -n 40 "$kept/$target.log" >&2
        fail "$target crashed; its input is in $kept"
    fi
    say "$target: $(sed -n 's/^Done \([0-9]* runs\).*/\1/p' "$kept/$target.log"), no crash"
done
