//! docs/reasons.md says of every reason code what the code says, and its examples are refused for that reason.
//!
//! The document is the data: its block `sql schema` is what `catalog` below describes, each block `sql rollup=NAME`
//! is a rollup over it, and each plain `sql` block in the section of a code is an example of that code. Codes that the
//! proxy decides on, such as those of a session's state, have examples in blocks of other languages.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pgstar_rewriter::catalog::{
    AttNum, Catalog, Column, ColumnType, ForeignKey, Oid, Relation, RelationKind, UserNames,
};
use pgstar_rewriter::{Code, Context, Decision, Rollup, RollupDefinition, decide};

const DOCUMENT: &str = include_str!("../../docs/reasons.md");

const INT4: u32 = 23;
const INT8: u32 = 20;
const TEXT: u32 = 25;
const FLOAT8: u32 = 701;
const TIMESTAMP: u32 = 1114;
const NUMERIC: u32 = 1700;
/// `numeric(12, 2)` as `atttypmod` has it.
const NUMERIC_12_2: i32 = ((12 << 16) | 2) + 4;

/// The section of one code.
struct Section<'d> {
    code: &'d str,
    /// The first quotation, its lines joined.
    meaning: String,
    text: &'d str,
}

fn sections() -> Vec<Section<'static>> {
    let parts = DOCUMENT.split("\n### `").skip(1);
    parts.map(section).collect()
}

fn section(part: &'static str) -> Section<'static> {
    let (code, rest) = part.split_once("`\n").unwrap();
    let text = rest.split("\n## ").next().unwrap();
    let quotation = text.lines().skip_while(|line| line.is_empty());
    let lines = quotation.map_while(|line| line.strip_prefix("> "));
    Section {
        code,
        meaning: lines.collect::<Vec<_>>().join(" "),
        text,
    }
}

/// Fenced blocks: what follows the opening fence, and the lines inside.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut blocks = vec![];
    let mut rest = text;
    while let Some((_, opened)) = rest.split_once("\n```") {
        let (info, body) = opened.split_once('\n').unwrap();
        let (body, after) = body.split_once("\n```\n").expect("a fence that is closed");
        blocks.push((info, body));
        rest = after;
    }
    blocks
}

fn rollups(catalog: &Catalog, search_path: &[String]) -> Vec<Rollup> {
    let declared = blocks(DOCUMENT)
        .into_iter()
        .filter_map(|(info, sql)| Some((info.strip_prefix("sql rollup=")?, sql)));
    let rollup = |(name, sql): (&str, &str)| Rollup {
        definition: RollupDefinition::parse(name, sql, catalog, search_path).unwrap(),
        schema: "pgstar".to_owned(),
        table: name.to_owned(),
        rows: 1,
    };
    declared.map(rollup).collect()
}

fn decision(sql: &str) -> Decision {
    let catalog = catalog();
    let search_path = ["public".to_owned()];
    let rollups = rollups(&catalog, &search_path);
    decide(
        sql,
        Context {
            catalog: &catalog,
            rollups: &rollups,
            search_path: &search_path,
            time_zone: "UTC",
            bound: &[],
        },
    )
}

fn column(position: usize, (name, oid, not_null): (&str, u32, bool)) -> Column {
    let typmod = if oid == NUMERIC { NUMERIC_12_2 } else { -1 };
    let collation = Oid(if oid == TEXT { 100 } else { 0 });
    let ty = ColumnType {
        oid: Oid(oid),
        typmod,
        collation,
    };
    Column {
        attnum: AttNum(position as i16 + 1),
        name: name.to_owned(),
        ty,
        not_null,
    }
}

fn table(oid: u32, name: &str, columns: &[(&str, u32, bool)]) -> Relation {
    Relation {
        oid: Oid(oid),
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: RelationKind::Table,
        columns: columns
            .iter()
            .enumerate()
            .map(|(position, column_)| column(position, *column_))
            .collect(),
        unique_keys: vec![],
        foreign_keys: vec![],
        row_security: false,
        has_rules: false,
        view: None,
    }
}

/// What the document's schema creates.
fn catalog() -> Catalog {
    let id = vec![AttNum(1)];
    let customer = Relation {
        unique_keys: vec![id.clone()],
        ..table(
            1,
            "customer",
            &[
                ("id", INT4, true),
                ("nation", TEXT, true),
                ("city", TEXT, true),
            ],
        )
    };
    let promotion = table(
        2,
        "promotion",
        &[("code", TEXT, true), ("name", TEXT, true)],
    );
    let orders = Relation {
        unique_keys: vec![id.clone()],
        foreign_keys: vec![ForeignKey {
            columns: vec![AttNum(2)],
            references: Oid(1),
            referenced_columns: id,
        }],
        ..table(
            3,
            "orders",
            &[
                ("id", INT8, true),
                ("customer_id", INT4, true),
                ("promotion_code", TEXT, false),
                ("ordered_at", TIMESTAMP, true),
                ("status", TEXT, true),
                ("quantity", INT4, true),
                ("revenue", NUMERIC, true),
                ("weight", FLOAT8, true),
            ],
        )
    };
    let payroll = Relation {
        row_security: true,
        ..table(4, "payroll", &[("salary", NUMERIC, true)])
    };
    let open_orders = Relation {
        kind: RelationKind::MaterializedView,
        ..table(
            5,
            "open_orders",
            &[("customer_id", INT4, false), ("revenue", NUMERIC, false)],
        )
    };
    let functions = HashSet::from(["initcap".to_owned()]);
    let user_names = UserNames {
        functions,
        ..UserNames::default()
    };
    Catalog::new(
        vec![customer, promotion, orders, payroll, open_orders],
        user_names,
    )
}

#[test]
fn every_code_has_one_section_with_its_meaning() {
    let written: Vec<&str> = sections().iter().map(|section| section.code).collect();
    let distinct: BTreeSet<&str> = written.iter().copied().collect();
    assert_eq!(written.len(), distinct.len(), "a code has two sections");
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let missing: Vec<_> = known.difference(&distinct).collect();
    let extra: Vec<_> = distinct.difference(&known).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "docs/reasons.md lacks {missing:?} and should not have {extra:?}"
    );

    let meanings: BTreeMap<&str, &str> = Code::ALL
        .iter()
        .map(|code| (code.as_str(), code.meaning().trim()))
        .collect();
    for section in sections() {
        assert_eq!(
            section.meaning, meanings[section.code],
            "the meaning of {}",
            section.code
        );
    }
}

#[test]
fn every_section_has_an_example_and_says_what_to_do() {
    for Section { code, text, .. } in sections() {
        assert!(text.contains("\n**Example.** "), "{code} has no example");
        assert!(
            text.contains("\n**What to do.** "),
            "{code} does not say what to do"
        );
    }
}

#[test]
fn every_example_is_refused_for_its_reason() {
    let mut shown = 0;
    for Section { code, text, .. } in sections() {
        for (_, sql) in blocks(text).into_iter().filter(|(info, _)| *info == "sql") {
            let Decision {
                matches, reasons, ..
            } = decision(sql);
            assert!(matches.is_empty(), "{code}: answered from a rollup: {sql}");
            let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            assert!(
                codes.contains(&code),
                "{code}: refused for {codes:?}: {sql}"
            );
            shown += 1;
        }
        for (_, sql) in blocks(text)
            .into_iter()
            .filter(|(info, _)| *info == "sql refused-rollup")
        {
            let reason =
                RollupDefinition::parse("r", sql, &catalog(), &["public".to_owned()]).unwrap_err();
            assert_eq!(reason.code.as_str(), code, "{sql}");
            shown += 1;
        }
    }
    assert!(shown > Code::ALL.len() / 2, "only {shown} examples");
}

/// Otherwise the examples above might be refused for being over another schema.
#[test]
fn the_rollups_of_the_document_answer_what_it_says_they_do() {
    let answered = blocks(DOCUMENT)
        .into_iter()
        .filter(|(info, _)| *info == "sql answered");
    let answered: Vec<&str> = answered.map(|(_, sql)| sql).collect();
    assert!(!answered.is_empty());
    for sql in answered {
        let Decision {
            matches, reasons, ..
        } = decision(sql);
        assert!(!matches.is_empty(), "refused for {reasons:?}: {sql}");
    }
}

#[test]
fn the_schema_of_the_document_names_what_the_catalog_has() {
    let (_, schema) = blocks(DOCUMENT)
        .into_iter()
        .find(|(info, _)| *info == "sql schema")
        .unwrap();
    let words: HashSet<&str> = schema
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    for relation in catalog().relations() {
        let names = relation
            .columns
            .iter()
            .map(|column| &column.name)
            .chain([&relation.name]);
        names
            .for_each(|name| assert!(words.contains(name.as_str()), "{name} of {}", relation.name));
    }
}
