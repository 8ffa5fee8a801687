# The virtual environment with the Python drivers that tests use: sets and exports PGSTAR_TEST_PYTHON, its
# interpreter.
#
# To be sourced, after scripts/install.sh, in the repository's root. Without Python these tests cannot run: then
# PGSTAR_TEST_PYTHON stays unset and python_missing says why. POSIX sh.

REQUIREMENTS=scripts/test-requirements.txt
# The oldest minor version of Python 3 that the drivers' wheels are made for.
PYTHON_MINOR_MIN=10

# Makes the environment. Where that is impossible, CI fails and other places go on without.
want_python() {
    python_missing=
    if [ -z "${PGSTAR_TEST_PYTHON:-}" ]; then
        venv=$(target_directory)/test-venv
        make_venv "$venv" && PGSTAR_TEST_PYTHON=$venv/bin/python
    elif ! has_drivers "$PGSTAR_TEST_PYTHON"; then
        fail "PGSTAR_TEST_PYTHON is $PGSTAR_TEST_PYTHON, which lacks a driver of $REQUIREMENTS"
    fi
    if [ -n "${PGSTAR_TEST_PYTHON:-}" ]; then
        export PGSTAR_TEST_PYTHON
    elif in_ci; then
        fail "the tests of Python drivers cannot run: $python_missing"
    else
        say "the tests of Python drivers will be SKIPPED: $python_missing"
    fi
}

# Absolute: tests run in the directories of their packages.
target_directory() {
    case "${CARGO_TARGET_DIR:-target}" in
        /*) echo "$CARGO_TARGET_DIR" ;;
        *) echo "$PWD/${CARGO_TARGET_DIR:-target}" ;;
    esac
}

# Makes or completes the environment, or sets python_missing and returns non-zero.
make_venv() {
    if cmp -s "$REQUIREMENTS" "$1/requirements.txt" && has_drivers "$1/bin/python"; then
        return
    fi
    find_python || return 1
    say "making a Python environment with the drivers of $REQUIREMENTS"
    create_venv "$1" || return 1
    if ! quietly "$1/bin/python" -m pip install --quiet --only-binary :all: --requirement "$REQUIREMENTS"; then
        python_missing="pip could not install what $REQUIREMENTS names (its complaint is above)"
        return 1
    fi
    # Last, so that an environment which lacks something is completed next time.
    cp "$REQUIREMENTS" "$1/requirements.txt"
}

has_drivers() {
    [ -x "$1" ] && "$1" -c '
import importlib.util, sys
drivers = ["psycopg", "psycopg2", "sqlalchemy"]
sys.exit(not all(importlib.util.find_spec(name) for name in drivers))' 2>/dev/null
}

find_python() {
    is_new_python && return
    if ! has python3 && [ -n "$(package_manager)" ]; then
        # shellcheck disable=SC2046
        install_packages $(python_packages) && is_new_python && return
    fi
    # shellcheck disable=SC2046
    python_missing="Python 3.$PYTHON_MINOR_MIN or newer was not found; try: $(install_line $(python_packages))"
    return 1
}

is_new_python() {
    python3 -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MINOR_MIN))" 2>/dev/null
}

python_packages() {
    case "$(package_manager)" in
        apt-get) echo python3 python3-venv ;;
        brew) echo python@3.13 ;;
        *) echo python3 ;;
    esac
}

# Debian's python3 comes without what makes environments: python3-venv brings it.
create_venv() {
    mkdir -p "$(dirname "$1")"
    python3 -m venv --clear "$1" >/dev/null 2>&1 && return
    # shellcheck disable=SC2046
    if install_packages $(python_packages) && quietly python3 -m venv --clear "$1"; then
        return
    fi
    # shellcheck disable=SC2046
    python_missing="python3 cannot make a virtual environment; try: $(install_line $(python_packages))"
    return 1
}
