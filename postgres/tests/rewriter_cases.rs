//! The rewriter's cases against PostgreSQL: every rewritten statement gives the original's own answer.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;
#[allow(dead_code)] // Not every test binary needs every helper.
#[path = "../../rewriter/tests/harness/mod.rs"]
mod harness;
mod rewriter_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use common::Database;
use harness::{CaseFile, Entry, Kind, case_files, ddl, schema_sql};
use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::Connection;
use pgstar_rewriter::catalog::{Catalog, Oid, Relation, RelationKind};
use pgstar_rewriter::{Context, Rollup, decide};
use rewriter_support::data::{Random, fill};
use rewriter_support::ordered::{has_limit, visible};
use rewriter_support::{
    Outcome, ask_bound, build_rollups, difference, different_order, enter_session, is_approximate,
    premises_hold, rows_of,
};

/// How many different contents each schema gets.
const STATES: u64 = 3;

async fn database(schema: &str) -> Database {
    let database = Database::create().await;
    database.run(&schema_sql(schema)).await;
    database
}

struct Check<'a> {
    client: &'a Connection,
    catalog: &'a Catalog,
    rollups: &'a [Rollup],
    failures: &'a mut String,
    place: String,
}

impl Check<'_> {
    fn fail(&mut self, entry: &Entry, what: &str) {
        writeln!(
            self.failures,
            "{} {}: {what}\n{}\n",
            self.place, entry.name, entry.sql
        )
        .unwrap();
    }

    async fn entry(&mut self, entry: &Entry) {
        if entry.kind == Kind::NoRollup {
            return;
        }
        enter_session(self.client, &entry.search_path(), &entry.time_zone()).await;
        let decision = entry.decide(self.catalog, self.rollups);
        let bound = entry.bound();
        let original = ask_bound(self.client, &entry.sql, &bound).await;
        // What should have passed through is compared as well, should it ever be rewritten.
        if decision.matches.is_empty() {
            return;
        }
        if let Outcome::Refused(error) = &original {
            self.fail(entry, &format!("PostgreSQL refuses the original: {error}"));
        }
        let has_limit = has_limit(&entry.sql);
        for found in &decision.matches {
            if !premises_hold(self.client, found).await {
                continue;
            }
            let rewritten = ask_bound(self.client, &found.sql, &bound).await;
            let rows = rows_of(found, has_limit);
            if let Some(difference) = difference(&original, &rewritten, rows) {
                self.fail(entry, &format!("{difference}\n{}", found.sql));
            }
        }
        self.order(entry).await;
    }

    /// The order, seen by adding what is ordered by to both answers.
    async fn order(&mut self, entry: &Entry) {
        let Some(visible) = visible(&entry.sql) else {
            return;
        };
        let path = entry.search_path();
        let context = Context {
            catalog: self.catalog,
            rollups: self.rollups,
            search_path: &path,
            time_zone: &entry.time_zone(),
            bound: &entry.bound(),
        };
        let decision = decide(&visible.sql, context);
        let bound = entry.bound();
        let original = ask_bound(self.client, &visible.sql, &bound).await;
        for found in &decision.matches {
            if is_approximate(found) || !premises_hold(self.client, found).await {
                continue;
            }
            let rewritten = ask_bound(self.client, &found.sql, &bound).await;
            let rows = rows_of(found, visible.has_limit);
            let difference = difference(&original, &rewritten, rows)
                .or_else(|| different_order(&original, &rewritten, visible.columns));
            if let Some(difference) = difference {
                self.fail(entry, &format!("ORDER BY: {difference}\n{}", found.sql));
            }
        }
    }
}

async fn check_file(file: &CaseFile, failures: &mut String) {
    let database = database(&file.schema).await;
    let client = database.connect().await;
    let catalog = load_catalog(&client).await.unwrap();
    let rollups = file.rollups(&catalog);
    for state in 0..=STATES {
        // The first state has no rows at all.
        if state > 0 {
            empty(&client, &catalog).await;
            fill(&client, &catalog, &mut Random(state)).await;
        }
        build_rollups(&client, &rollups).await;
        let mut check = Check {
            client: &client,
            catalog: &catalog,
            rollups: &rollups,
            failures,
            place: format!(
                "{} state {state}:",
                file.path.file_name().unwrap().display()
            ),
        };
        for entry in file.entries() {
            check.entry(entry).await;
        }
    }
}

async fn empty(client: &Connection, catalog: &Catalog) {
    let tables: Vec<String> = catalog
        .relations()
        .iter()
        .filter(|relation| relation.kind == RelationKind::Table)
        .filter(|relation| relation.schema != "pg_catalog")
        .map(|relation| pgstar_rewriter::quote_qualified(&relation.schema, &relation.name))
        .collect();
    let sql = format!("TRUNCATE {}", tables.join(", "));
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rewritten_statements_give_the_originals_answers() {
    let mut failures = String::new();
    for file in case_files() {
        check_file(&file, &mut failures).await;
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Everything a proof may use, with names in place of numbers.
fn facts(catalog: &Catalog) -> BTreeMap<String, String> {
    // The cases' DDL declares indexes and sequences only by what needs them.
    let is_other = |relation: &Relation| relation.kind == RelationKind::Other;
    let mine = |relation: &&Relation| {
        relation.schema != "pg_catalog"
            && !relation.schema.starts_with("pg_")
            && !is_other(relation)
    };
    catalog
        .relations()
        .iter()
        .filter(mine)
        .map(|relation| {
            (
                format!("{}.{}", relation.schema, relation.name),
                facts_of(relation, catalog),
            )
        })
        .collect()
}

fn facts_of(relation: &Relation, catalog: &Catalog) -> String {
    let built_in = |oid: Oid| if oid.0 < 16384 { oid.0 } else { 0 };
    let mut text = format!(
        "{:?} security {} rules {}\n",
        relation.kind, relation.row_security, relation.has_rules
    );
    // The cases' DDL knows only the names of views' columns.
    if matches!(
        relation.kind,
        RelationKind::View | RelationKind::MaterializedView
    ) {
        return text;
    }
    for column in &relation.columns {
        writeln!(
            text,
            "{} {} {} {} {} {} {}",
            column.attnum.0,
            column.name,
            built_in(column.ty.oid),
            column.ty.typmod,
            built_in(column.ty.collation),
            column.not_null,
            catalog.user_names().enum_types.contains(&column.ty.oid),
        )
        .unwrap();
    }
    let mut keys: Vec<String> = relation
        .unique_keys
        .iter()
        .map(|key| format!("{key:?}\n"))
        .collect();
    keys.extend(relation.foreign_keys.iter().map(|key| {
        let target = &catalog.relation_by_oid(key.references).unwrap().name;
        format!(
            "{:?} to {target} {:?}\n",
            key.columns, key.referenced_columns
        )
    }));
    keys.sort();
    text + &keys.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_ddl_is_read_as_postgresql_reads_it() {
    let mut schemas: Vec<String> = case_files().into_iter().map(|file| file.schema).collect();
    schemas.sort();
    schemas.dedup();
    for schema in schemas {
        let database = database(&schema).await;
        let loaded = load_catalog(&*database.connect().await).await.unwrap();
        let read = ddl::catalog(&schema_sql(&schema));
        let (loaded_facts, read_facts) = (facts(&loaded), facts(&read));
        for (name, facts) in &loaded_facts {
            let read = read_facts.get(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(facts, read, "{name}");
        }
        assert_eq!(loaded_facts.len(), read_facts.len());
        let names = |catalog: &Catalog| {
            let names = catalog.user_names();
            let mut functions = names.functions.clone();
            // Those of information_schema.
            functions.retain(|function| !function.starts_with("_pg_"));
            (
                functions,
                names.operators.clone(),
                names.nondeterministic_collations.len(),
            )
        };
        assert_eq!(names(&loaded), names(&read));
    }
}
