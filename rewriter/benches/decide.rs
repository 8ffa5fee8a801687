//! How long a decision takes at first sight of a statement, parsing included.
//!
//! The statements and rollups are those of the Star Schema Benchmark's cases; more rollups are the
//! same ones again under other names, every one of which is tried.

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pgstar_rewriter::{Context, Rollup, decide};

const ROLLUP_COUNTS: [usize; 4] = [1, 10, 100, 1_000];
const STATEMENTS: [&str; 3] = ["q1.1", "q2.1", "q4.3"];

fn first_sight(criterion: &mut Criterion) {
    let file = harness::case_files()
        .into_iter()
        .find(|file| file.path.ends_with("010_ssb.case"))
        .expect("the benchmark's cases are there");
    let catalog = harness::ddl::catalog(&harness::schema_sql(&file.schema));
    let search_path = harness::default_search_path();
    let mut group = criterion.benchmark_group("decide at first sight");
    for name in STATEMENTS {
        let statement = file
            .entries()
            .find(|entry| entry.name.contains(name))
            .expect("the benchmark's queries are cases");
        for count in ROLLUP_COUNTS {
            let rollups: Vec<Rollup> = file
                .rollups(&catalog)
                .into_iter()
                .cycle()
                .take(count)
                .collect();
            let context = Context {
                catalog: &catalog,
                rollups: &rollups,
                search_path: &search_path,
                time_zone: "UTC",
            };
            group.bench_function(
                BenchmarkId::new(name, format!("{count} rollups")),
                |bencher| {
                    bencher.iter(|| decide(black_box(&statement.sql), context));
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, first_sight);
criterion_main!(benches);
