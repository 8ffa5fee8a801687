//! How long a decision takes at first sight of a statement, parsing included, and where what was proved of one that differs in
//! constants holds.
//!
//! The statements and the first rollups are those of the Star Schema Benchmark's cases; more rollups
//! keep other columns and measures of the same tables, so that each is another one.
//!
//! What is measured is the processor time of the thread: on a busy machine the time that passes says nothing.

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use harness::memory::Memory;
use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::{Context, Rollup, RollupDefinition, decide, decide_reusing};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Columns that rollups may keep: the column, and the condition that joins its table.
const KEYS: [(&str, &str); 14] = [
    ("d_year", "date ON lo_orderdate = d_datekey"),
    ("d_yearmonthnum", "date ON lo_orderdate = d_datekey"),
    ("d_weeknuminyear", "date ON lo_orderdate = d_datekey"),
    ("c_region", "customer ON lo_custkey = c_custkey"),
    ("c_nation", "customer ON lo_custkey = c_custkey"),
    ("c_city", "customer ON lo_custkey = c_custkey"),
    ("s_region", "supplier ON lo_suppkey = s_suppkey"),
    ("s_nation", "supplier ON lo_suppkey = s_suppkey"),
    ("s_city", "supplier ON lo_suppkey = s_suppkey"),
    ("p_mfgr", "part ON lo_partkey = p_partkey"),
    ("p_category", "part ON lo_partkey = p_partkey"),
    ("p_brand1", "part ON lo_partkey = p_partkey"),
    ("lo_quantity", ""),
    ("lo_discount", ""),
];

const MEASURES: [&str; 4] = [
    "sum(lo_revenue)",
    "sum(lo_supplycost)",
    "sum(lo_extendedprice * lo_discount)",
    "sum(lo_revenue - lo_supplycost)",
];

/// A rollup of three to five keys; the number decides which.
fn generated(number: usize) -> String {
    let scattered = number.wrapping_mul(0x9E37_79B1) >> 3;
    let mut positions: Vec<usize> = (0..3 + number % 3)
        .map(|step| (scattered >> (4 * step)) % KEYS.len())
        .collect();
    positions.sort_unstable();
    positions.dedup();
    let keys: Vec<&str> = positions.iter().map(|position| KEYS[*position].0).collect();
    let mut joins: Vec<&str> = positions.iter().map(|position| KEYS[*position].1).collect();
    joins.retain(|join| !join.is_empty());
    joins.dedup();
    let joins: String = joins.iter().map(|join| format!(" JOIN {join}")).collect();
    let keys = keys.join(", ");
    let measure = MEASURES[number % MEASURES.len()];
    format!("SELECT {keys}, count(*), {measure} FROM lineorder{joins} GROUP BY {keys}")
}

fn rollups(file: &harness::CaseFile, catalog: &Catalog, count: usize) -> Vec<Rollup> {
    let search_path = harness::default_search_path();
    let other = |number: usize| {
        let definition = RollupDefinition::parse(
            &format!("other_{number}"),
            &generated(number),
            catalog,
            &search_path,
        );
        harness::rollup_of(definition.expect("the generated rollups are valid"))
    };
    let mut rollups = file.rollups(catalog);
    rollups.extend((0..count).map(other));
    rollups.truncate(count);
    rollups
}

const ROLLUP_COUNTS: [usize; 4] = [1, 10, 100, 1_000];
const STATEMENTS: [&str; 3] = ["q1.1", "q2.1", "q4.3"];

/// The processor time of this thread, in nanoseconds.
struct ProcessorTime;

impl ProcessorTime {
    fn now() -> u64 {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
        tv_sec.cast_unsigned() * 1_000_000_000 + tv_nsec.cast_unsigned()
    }
}

impl Measurement for ProcessorTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        ProcessorTime::now()
    }

    fn end(&self, started: u64) -> u64 {
        ProcessorTime::now() - started
    }

    fn add(&self, left: &u64, right: &u64) -> u64 {
        left + right
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn decisions(criterion: &mut Criterion<ProcessorTime>) {
    let file = harness::case_files()
        .into_iter()
        .find(|file| file.path.ends_with("010_ssb.case"))
        .expect("the benchmark's cases are there");
    let catalog = harness::ddl::catalog(&harness::schema_sql(&file.schema));
    let search_path = harness::default_search_path();
    let mut group = criterion.benchmark_group("decide");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    for name in STATEMENTS {
        let statement = file
            .entries()
            .find(|entry| entry.name.contains(name))
            .expect("the benchmark's queries are cases");
        for count in ROLLUP_COUNTS {
            let rollups = rollups(&file, &catalog, count);
            let context = Context {
                catalog: &catalog,
                rollups: &rollups,
                search_path: &search_path,
                time_zone: "UTC",
                bound: &[],
            };
            let id =
                |how: &str| BenchmarkId::new(format!("{name} {how}"), format!("{count} rollups"));
            let sql = statement.sql.as_str();
            group.bench_function(id("at first sight"), |bencher| {
                bencher.iter(|| decide(black_box(sql), context));
            });
            let memory = Memory::of(&rollups);
            group.bench_function(id("with other constants"), |bencher| {
                bencher.iter(|| decide_reusing(black_box(sql), context, &memory));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = decisions
}
criterion_main!(benches);
