# Installing what is missing, for the other scripts to source: says what it does, and what to do by hand.
#
# Knows the package managers; does not know what is needed or why. POSIX sh.

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

fail() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Whether this runs unattended, where a test that is left out must be a failure.
in_ci() {
    case "${CI:-}" in '' | 0 | false | no) return 1 ;; *) return 0 ;; esac
}

# The first package manager that this system has; empty for none that is known here.
package_manager() {
    for manager in apt-get dnf apk brew; do
        if has "$manager"; then
            echo "$manager"
            return
        fi
    done
}

# What stands before a command that needs root: nothing, or sudo.
root_prefix() {
    if [ "$(package_manager)" = brew ] || [ "$(id -u)" = 0 ]; then echo ''; else echo 'sudo '; fi
}

# The line to type by hand for these packages.
install_line() {
    case "$(package_manager)" in
        apt-get) echo "$(root_prefix)apt-get install $*" ;;
        dnf) echo "$(root_prefix)dnf install $*" ;;
        apk) echo "$(root_prefix)apk add $*" ;;
        brew) echo "brew install $*" ;;
        *) echo "install $* with this system's package manager" ;;
    esac
}

# Whether packages can be installed without asking anybody. PGSTAR_NO_INSTALL=1 forbids it.
may_install() {
    case "${PGSTAR_NO_INSTALL:-}" in '' | 0 | false | no) ;; *) return 1 ;; esac
    case "$(package_manager)" in
        '') return 1 ;;
        brew) [ "$(id -u)" != 0 ] ;;
        *) [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null ;;
    esac
}

# Runs a command as root; its output is shown only when it fails.
as_root() {
    if [ "$(id -u)" = 0 ]; then quietly "$@"; else quietly sudo -n "$@"; fi
}

quietly() {
    quiet_log=$(mktemp)
    quiet_status=0
    "$@" >"$quiet_log" 2>&1 </dev/null || quiet_status=$?
    if [ "$quiet_status" != 0 ]; then tail -n 20 "$quiet_log" >&2; fi
    rm -f "$quiet_log"
    return "$quiet_status"
}

# Installs packages, or returns non-zero. Package lists are fetched only when a first attempt fails.
install_packages() {
    may_install || return 1
    say "installing: $(install_line "$@")"
    case "$(package_manager)" in
        apt-get) apt_install "$@" 2>/dev/null || { as_root apt-get update -q && apt_install "$@"; } ;;
        dnf) as_root dnf install -y -q "$@" ;;
        apk) as_root apk add --no-cache "$@" ;;
        brew) quietly brew install -q "$@" ;;
    esac
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
}
