//! How long it takes to find the decision for a statement whose text was decided before.

#![allow(clippy::unwrap_used)] // A bench that cannot begin should stop.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pgstar::route::{Repeat, SessionFacts};
use pgstar_loadtest::ssb::QUERIES;
use tokio::runtime::Builder;

fn repeated(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let facts = SessionFacts {
        search_path: vec!["pg_catalog".to_owned(), "public".to_owned()],
        time_zone: "Europe/Berlin".to_owned(),
        ..SessionFacts::default()
    };
    let decisions = Repeat::new(facts);
    let mut group = criterion.benchmark_group("decide a repeated text");
    for query in &QUERIES {
        runtime.block_on(decisions.decide(query.sql));
    }
    for query in QUERIES
        .iter()
        .filter(|query| ["Q1.1", "Q4.3"].contains(&query.name))
    {
        group.bench_function(query.name, |bencher| {
            bencher.iter(|| runtime.block_on(decisions.decide(black_box(query.sql))));
        });
    }
    group.finish();
}

criterion_group!(benches, repeated);
criterion_main!(benches);
