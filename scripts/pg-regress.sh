#!/bin/sh
# PostgreSQL's own test suites through pgstar: every test must come out as it does without pgstar.
#
# The suites are those of the installed server's version, from Debian's source package. Each runs on a throw-away
# server in each of these modes; what differs is listed, with the outputs themselves kept where the last line says.
#   direct   without pgstar
#   plain    through pgstar without rollups
#   scram    likewise, and pgstar checks passwords itself and sessions leave their backends to later ones
#   beside   directly, while pgstar keeps rollups over tables of the suite: tests that list all publications or all
#            advisory locks of the database see pgstar's own
#   off      through that pgstar, with rewriting and the cache switched off
#   rollups  through that pgstar, under strict freshness: says how many statements were answered and from what. EXPLAIN
#            shows the plan of the statement that runs, so plans are not compared here: tests where they differ are named
# Rollups answer nothing while other sessions define functions all the time, so from beside on the tests of the regression
# suite run one after the other. In every mode those of REPEATED are run again when all are through, for the cache.
# The last two are compared with beside, the others with direct; what beside differs in is shown and is no failure,
# because nothing of it went through pgstar. The isolation suite writes down which notices of one session come before it is
# seen to wait for another: its runner looks every 10 ms, and writes what has come by then. Where a machine is so busy that a
# notice takes longer through pgstar's process, the order differs, so those tests run alone, up to REPEATS times: each has to
# come out as directly once. REGRESS_SUITES (regress isolation libpq_pipeline) and
# REGRESS_MODES choose;
# PGSTAR_PG_ACCOUNT is the system account for the servers when this is run as root.
set -eu
cd "$(dirname "$0")/.."

. scripts/install.sh
. scripts/postgresql.sh
. scripts/stand.sh

SUITES=${REGRESS_SUITES:-regress isolation libpq_pipeline}
MODES=${REGRESS_MODES:-direct plain scram beside off rollups}
# Throw-away, for servers that live as long as one run.
PASSWORD=regress
# Whose rows the rollups of the regression suite keep; they are made by its first test.
ROLLUP_TABLES='onek tenk1 tenk2 int2_tbl int4_tbl int8_tbl text_tbl'
# Tests that mostly ask, which run twice.
REPEATED='aggregates select select_distinct select_implicit limit window groupingsets union subselect join memoize
    incremental_sort portals select_parallel'
# Tables of the other suites come and go. Statements that aggregate and have one of these names in their text are
# decided all the same, and none means these tables, which are in another schema.
ELSEWHERE_TABLES='accounts test foo pq_pipeline_demo'
STEP_SECONDS_MAX=120
REPEATS=10

target=$(target_directory)
results=$target/pg-regress/results
running=
trap 'show_log; take_down' EXIT

# What a run that could not go on has said.
show_log() {
    if [ -n "$running" ]; then tail -n 20 "$output/log" >&2; fi
}

need_tools() {
    need_postgresql
    pgxs=$PGSTAR_PG_BIN/../lib/pgxs/src/test
    for program in apt-get dpkg-source dpkg-query gcc cargo "$pgxs/regress/pg_regress"; do
        has "$program" || fail "$program is needed: this runs on Debian, with dpkg-dev and gcc"
    done
    package=$(dpkg-query --search "$(readlink -f "$PGSTAR_PG_BIN/postgres")" | cut -d : -f 1)
    version=$(dpkg-query --show --showformat '${Version}' "$package")
    source_dir=$target/pg-regress/$package-$version
}

# The sources of the installed version, from the system's own package sources with deb-src in place of deb. The lists
# are kept apart: nothing of the system's settings changes.
fetch_sources() {
    [ -f "$source_dir/complete" ] && return
    say "fetching the sources of $package $version"
    mkdir -p "$work/apt/parts" "$work/apt/lists/partial" "$source_dir"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/apt/parts/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && sed 's/^deb /deb-src /' "$file" >"$work/apt/parts/deb-src-${file##*/}.list"
    done
    (
        cd "$work/apt"
        set -- -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/apt/parts" \
            -o "Dir::State::lists=$work/apt/lists" -o APT::Sandbox::User=root
        apt-get "$@" update
        apt-get "$@" source --download-only "$package=$version"
        dpkg-source --no-check -x ./*.dsc "$work/apt/source" >/dev/null
        # The server's headers, unpacked beside the sources and not installed.
        apt-get -qq -o APT::Sandbox::User=root download "postgresql-server-dev-${package##*-}=$version"
        dpkg-deb --extract ./postgresql-server-dev-*.deb "$source_dir/dev"
    )
    for suite in regress isolation modules/libpq_pipeline; do
        rm -rf "${source_dir:?}/${suite##*/}"
        cp -R "$work/apt/source/src/test/$suite" "$source_dir/"
    done
    build_programs
    touch "$source_dir/complete"
}

# The C functions that the regression suite loads, and the client of the pipeline suite.
build_programs() {
    mkdir -p "$source_dir/lib"
    includes=$source_dir/dev/usr/include/postgresql
    gcc -w -O1 -fPIC -shared "-I$includes/${package##*-}/server" "-I$includes" \
        -o "$source_dir/lib/regress.so" "$source_dir/regress/regress.c"
    gcc -w -O1 "-I$includes/${package##*-}/server" "-I$("$PGSTAR_PG_BIN/pg_config" --includedir)" \
        -o "$source_dir/lib/libpq_pipeline" "$source_dir/libpq_pipeline/libpq_pipeline.c" \
        "-L$source_dir/dev/usr/lib/postgresql/${package##*-}/lib" -lpq -lpgcommon -lpgport
    for library in refint autoinc; do
        cp "$("$PGSTAR_PG_BIN/pg_config" --pkglibdir)/$library.so" "$source_dir/lib/"
    done
}

# The suites need passwords on no server but that of the mode scram, and change streams where rollups are.
start_server_for() {
    wal_level=replica
    server_password=
    case "$1" in
        scram) server_password=$PASSWORD ;;
        beside | off | rollups) wal_level=logical ;;
    esac
    export PGPASSWORD="$server_password"
    start_server max_prepared_transactions=2 wal_level="$wal_level"
}

# Starts pgstar before the server, as a mode wants it.
start_pgstar_for() {
    configuration="[upstream]
        url = \"postgresql://postgres${server_password:+:$server_password}@127.0.0.1:$server_port/$database\""
    case "$1" in
        scram) configuration="$configuration
            [auth]
            method = \"scram\"" ;;
        beside | off | rollups) configuration="$configuration
            $("rollups_of_$suite")" ;;
    esac
    start_pgstar "$target/debug/pgstar" "$configuration"
}

# rollup NAME QUERY
rollup() {
    printf '[[rollup]]\nname = "%s"\nquery = """%s"""\n' "$1" "$2"
}

rollups_of_regress() {
    for table in onek tenk1 tenk2; do
        rollup "$table" "SELECT two, four, ten, hundred, thousand, count(*), sum(unique1), sum(four), sum(ten), sum(hundred),
            min(unique1), max(unique1), min(unique2), max(unique2), min(tenthous), max(tenthous)
            FROM public.$table GROUP BY two, four, ten, hundred, thousand"
    done
    rollup onek_by_ten 'SELECT ten, two, four, count(*), sum(four) FROM public.onek GROUP BY ten, two, four'
    rollup tenk1_by_unique1 'SELECT unique1, ten, count(*), sum(twothousand), sum(ten)
        FROM public.tenk1 GROUP BY unique1, ten'
    for table in int2_tbl int4_tbl text_tbl; do
        rollup "$table" "SELECT f1, count(*) FROM public.$table GROUP BY f1"
    done
    rollup int8_tbl 'SELECT q1, q2, count(*) FROM public.int8_tbl GROUP BY q1, q2'
}

rollups_of_isolation() {
    for table in $ELSEWHERE_TABLES; do
        rollup "$table" "SELECT ten, count(*) FROM elsewhere.$table GROUP BY ten"
    done
}

rollups_of_libpq_pipeline() {
    rollups_of_isolation
}

# Runs tests by PostgreSQL's own runner: those of --schedule=FILE, or those that the arguments name.
run_tests() {
    (
        cd "$output"
        as_account "$pgxs/$suite/$runner" --bindir="$PGSTAR_PG_BIN" --inputdir="$work/source/$suite" \
            --outputdir="$output" --dlpath="$work/source/lib" --use-existing "$concurrency" \
            --dbname="$database" --host=127.0.0.1 --port="$port" --user=postgres "$@"
    ) || true
    if [ -f "$output/regression.diffs" ]; then cat "$output/regression.diffs" >>"$output/all.diffs"; fi
}

# The suite's first test makes the tables. It runs before pgstar is there, which does not begin with rollups over
# tables that do not exist.
prepare_regress() {
    runner=pg_regress
    concurrency=--max-concurrent-tests=20
    case "$mode" in beside | off | rollups) concurrency=--max-connections=1 ;; esac
    printf 'test: test_setup\n' >"$work/schedule"
    run_tests --schedule="$work/schedule"
    # In every mode, so that the rest of the suite begins alike.
    for table in $ROLLUP_TABLES; do
        sql "$server_port" "$database" "ALTER TABLE $table REPLICA IDENTITY FULL"
    done
}

run_regress() {
    case "$mode" in beside | off | rollups) wait_until_in_step ;; esac
    grep -v '^test: test_setup$' "$work/source/regress/parallel_schedule" >"$work/schedule"
    run_tests --schedule="$work/schedule"
    run_again
}

# The repeated tests, for whose statements answers may be kept by now. What they make is there already, so they fail, and
# alike in every mode.
run_again() {
    first=$output
    output=$first/again
    mkdir -p "$output"
    give_to_account "$output"
    # The list is meant as several words.
    # shellcheck disable=SC2086
    run_tests $REPEATED >"$output/log" 2>&1
    for file in "$output"/results/*.out; do mv "$file" "$first/results/again_${file##*/}"; done
    output=$first
}

wait_until_in_step() {
    waited=0
    while sql "$pgstar_port" "$database" 'SHOW pgstar.rollups' | grep -q -v '|in step|'; do
        [ "$waited" -lt "$STEP_SECONDS_MAX" ] || fail "the rollups are not in step: $(sql "$pgstar_port" "$database" 'SHOW pgstar.rollups')"
        sleep 1
        waited=$((waited + 1))
    done
}

prepare_isolation() {
    sql "$server_port" "$database" 'CREATE SCHEMA elsewhere'
    for table in $ELSEWHERE_TABLES; do
        sql "$server_port" "$database" "CREATE TABLE elsewhere.$table (id int PRIMARY KEY, ten int NOT NULL)"
    done
}

run_isolation() {
    runner=pg_isolation_regress
    concurrency=--max-concurrent-tests=20
    run_tests --schedule="$work/source/isolation/isolation_schedule"
}

prepare_libpq_pipeline() {
    prepare_isolation
}

# Runs each test of libpq's pipelines; where PostgreSQL has a trace of the protocol, it must be the same.
run_libpq_pipeline() {
    for test in $("$source_dir/lib/libpq_pipeline" tests); do
        verdict=ok
        expected=$source_dir/libpq_pipeline/traces/$test.trace
        set -- -r 700
        if [ -f "$expected" ]; then set -- "$@" -t "$output/$test.trace"; fi
        "$source_dir/lib/libpq_pipeline" "$@" "$test" "host=127.0.0.1 port=$port user=postgres dbname=$database" ||
            verdict=FAILED
        if [ -f "$expected" ] && ! diff "$expected" "$output/$test.trace"; then verdict=FAILED; fi
        echo "test $test ... $verdict"
    done
}

# What pg_regress gives to a database that it makes itself. Made here, because pgstar connects to it when it starts,
# and would keep pg_regress from dropping it.
make_database() {
    sql "$server_port" postgres "CREATE DATABASE $database TEMPLATE template0"
    for setting in lc_messages=C lc_monetary=C lc_numeric=C lc_time=C bytea_output=hex timezone_abbreviations=Default; do
        sql "$server_port" postgres "ALTER DATABASE $database SET ${setting%=*} TO '${setting#*=}'"
    done
    if [ "$mode" = off ]; then
        sql "$server_port" postgres "ALTER DATABASE $database SET pgstar.rewrite TO off"
        sql "$server_port" postgres "ALTER DATABASE $database SET pgstar.cache TO off"
    fi
}

# A server for one suite in one mode, with pgstar before it where the mode has it; sets $port.
set_up() {
    suite=$1 mode=$2 output=$3
    # Their names are in what the suites print.
    case "$suite" in
        regress) database=regression ;;
        isolation) database=isolation_regression ;;
        libpq_pipeline) database=pipeline ;;
    esac
    mkdir -p "$output"
    give_to_account "$output"
    start_server_for "$mode"
    make_database
    port=$server_port
    running=yes
    "prepare_$suite" >"$output/log" 2>&1
    if [ "$mode" != direct ]; then
        start_pgstar_for "$mode"
        [ "$mode" = beside ] || port=$pgstar_port
    fi
}

tear_down() {
    running=
    if [ "$mode" != direct ]; then
        sql "$pgstar_port" "$database" 'SHOW pgstar.stats' >"$output/stats" || true
        sql "$pgstar_port" "$database" 'SHOW pgstar.queries' >"$output/queries" || true
        stop_pgstar
        mv "$work/pgstar.log" "$output/pgstar.log"
    fi
    cp "$work/data/log" "$output/server.log"
    stop_server
}

# Runs one suite in one mode; its results are left in a directory of that name.
run_suite() {
    say "running $1 ($2)"
    set_up "$1" "$2" "$work/$1-$2"
    "run_$suite" >>"$output/log" 2>&1
    tear_down
    grep -hE '^(test )? *[^ ]+ +\.\.\. ' "$output/log" | sed 's/^test  *//; s/ [0-9]* ms.*//; s/  */ /g; s/^ //' |
        sort >"$output/verdicts"
    rm -rf "$results/$suite-$mode"
    mkdir -p "$results"
    cp -R "$output" "$results/"
    say "$suite ($mode): $(grep -c '\.\.\. ok' "$output/verdicts") of $(wc -l <"$output/verdicts") tests ok"
    if [ "$mode" = rollups ]; then grep -E 'statements_total|passthrough_total' "$output/stats" >&2 || true; fi
}

# Whether tests of the isolation suite that standard input names pass when nothing else runs; each that has is left out of
# the next repetition.
pass_alone() {
    set_up isolation "$1" "$work/isolation-$1-alone"
    tests=$(cat)
    for _ in $(seq "$REPEATS"); do
        [ -n "$tests" ] || break
        # The list is meant as several words.
        # shellcheck disable=SC2086
        run_tests $tests >"$output/round" 2>&1
        cat "$output/round" >>"$output/log"
        tests=$(sed -n 's/^test \([^ ]*\) .*\.\.\. FAILED.*/\1/p' "$output/round")
    done
    tear_down
    cp -R "$output" "$results/"
    say "isolation ($1), alone: $(grep -c '\.\.\. ok' "$output/log") times ok, $(grep -c '\.\.\. FAILED' "$output/log") times not; never ok:" ${tests:-none}
    [ -z "$tests" ]
}

# Lists what is not as in the run to compare with: verdicts and outputs. Whether there is nothing.
compare() {
    left_out=
    case "$2" in
        direct) return 0 ;;
        # Those of pgstar's advisory locks that are held for a moment are seen in one run and not in the other.
        off | rollups) base=beside left_out=--exclude=advisory_lock.out ;;
        *) base=direct ;;
    esac
    like=$results/$1-$base
    output=$results/$1-$2
    if [ ! -f "$like/verdicts" ]; then
        say "$1 ($2): there is no run ($base) to compare with"
        return 0
    fi
    if [ "$2" = rollups ] && [ -d "$like/results" ]; then
        diff -rq "$like/results" "$output/results" >&2 || true
        like=$(without_plans "$like") output=$(without_plans "$output")
    fi
    alike=yes
    diff "$like/verdicts" "$output/verdicts" || alike=
    if [ -d "$like/results" ]; then diff -r $left_out "$like/results" "$output/results" || alike=; fi
    if [ -z "$alike" ]; then
        say "$1 ($2) differs from $base: see $results/$1-$2"
        if [ "$1" = isolation ]; then
            diff -rq "$like/results" "$output/results" | sed -n 's/.*\/\(.*\)\.out differ$/\1/p' >"$work/differing"
            pass_alone "$2" <"$work/differing"
        else
            [ "$2" = beside ]
        fi
        return
    fi
    say "$1 ($2): every test as $base"
}

# A copy of a run's outputs without the plans in them, and without verdicts, which rest on the plans, too.
without_plans() {
    copy=$work/without-plans/${1##*/}
    rm -rf "$copy"
    mkdir -p "$copy/results"
    for file in "$1"/results/*.out; do
        awk '/^ *QUERY PLAN *$/ { in_plan = 1 }
             !in_plan { print }
             /^\([0-9]+ rows?\)$/ { in_plan = 0 }' "$file" >"$copy/results/${file##*/}"
    done
    cut -d . -f 1 "$1/verdicts" >"$copy/verdicts"
    echo "$copy"
}

need_tools
cargo build -p pgstar
fetch_sources
# Where the servers' account may read it, wherever the repository is.
cp -R "$source_dir" "$work/source"
differing=0
for suite in $SUITES; do
    for mode in $MODES; do
        run_suite "$suite" "$mode"
        compare "$suite" "$mode" || differing=$((differing + 1))
    done
done
[ "$differing" = 0 ] || fail "$differing of the runs through pgstar differ; outputs are in $results"
