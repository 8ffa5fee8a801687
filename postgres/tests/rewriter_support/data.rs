//! Rows that are as unpleasant as a schema allows: NULLs, duplicates, dangling keys, texts with quotes,
//! days on which clocks change, NaN and -0. The same seed gives the same rows.

use pgstar_postgres::connect::Connection;
use pgstar_rewriter::catalog::{Catalog, Column, Relation, RelationKind};
use tokio_postgres::error::SqlState;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// How many rows to make of a table.
fn size(relation: &Relation) -> usize {
    const WIDE: usize = 12;
    match relation.foreign_keys.len() {
        _ if relation.columns.len() > WIDE => 160,
        0 if relation.unique_keys.is_empty() => 8,
        0 => 7,
        _ => 9,
    }
}

/// Fills every ordinary table of the catalog.
pub async fn fill(client: &Connection, catalog: &Catalog, random: &mut Random) {
    // Only the keys that the catalog trusts are respected: the others may dangle.
    let begin = "SET session_replication_role = replica";
    client.batch_execute(begin).await.unwrap();
    let types = UserTypes::load(client).await;
    for relation in in_order(catalog) {
        let targets = referenced_rows(client, catalog, relation).await;
        let rows: Vec<String> = (0..size(relation))
            .map(|number| row(relation, &targets, number, &types, random))
            .collect();
        insert(client, relation, &rows).await;
    }
    let end = "SET session_replication_role = DEFAULT; ANALYZE";
    client.batch_execute(end).await.unwrap();
}

/// All rows at once, or one by one where some break a unique key or NOT NULL that the catalog has reason not to count on.
async fn insert(client: &Connection, relation: &Relation, rows: &[String]) {
    let name = pgstar_rewriter::quote_qualified(&relation.schema, &relation.name);
    let sql = format!("INSERT INTO {name} VALUES {}", rows.join(", "));
    match client.batch_execute(&sql).await {
        Ok(()) => return,
        Err(error) if is_expected(&error) => {}
        Err(error) => panic!("{error:?} in\n{sql}"),
    }
    for row in rows {
        let sql = format!("INSERT INTO {name} VALUES {row}");
        match client.batch_execute(&sql).await {
            Err(error) if !is_expected(&error) => panic!("{error:?} in\n{sql}"),
            _ => {}
        }
    }
}

fn is_expected(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::UNIQUE_VIOLATION | &SqlState::NOT_NULL_VIOLATION)
    )
}

/// Referenced tables first.
fn in_order(catalog: &Catalog) -> Vec<&Relation> {
    let mut left: Vec<&Relation> = catalog
        .relations()
        .iter()
        .filter(|relation| relation.kind == RelationKind::Table)
        .filter(|relation| relation.schema != "pg_catalog")
        .collect();
    left.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let mut ordered: Vec<&Relation> = Vec::new();
    while !left.is_empty() {
        let is_ready = |relation: &&Relation| {
            relation.foreign_keys.iter().all(|key| {
                ordered.iter().any(|known| known.oid == key.references)
                    || key.references == relation.oid
            })
        };
        let position = left.iter().position(is_ready).expect("keys in a circle");
        ordered.push(left.remove(position));
    }
    ordered
}

/// What the server says of types that the schema made.
struct UserTypes {
    /// Each enum's labels, in order.
    enums: Vec<(u32, String)>,
    /// Each domain and the type that it is made of.
    domains: Vec<(u32, u32)>,
}

impl UserTypes {
    async fn load(client: &Connection) -> UserTypes {
        let enums = "SELECT enumtypid, enumlabel::text FROM pg_enum ORDER BY 1, enumsortorder";
        let enums = client.query(enums, &[]).await.unwrap();
        // A citext is written like a text.
        let domains = "SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd' \
                       UNION ALL SELECT oid, 'text'::regtype FROM pg_type WHERE typname = 'citext'";
        let domains = client.query(domains, &[]).await.unwrap();
        UserTypes {
            enums: enums.iter().map(|row| (row.get(0), row.get(1))).collect(),
            domains: domains.iter().map(|row| (row.get(0), row.get(1))).collect(),
        }
    }

    fn base(&self, oid: u32) -> u32 {
        let known = self.domains.iter().find(|(domain, _)| *domain == oid);
        known.map_or(oid, |(_, base)| *base)
    }
}

/// For each foreign key the rows that it may refer to, as literals.
async fn referenced_rows(
    client: &Connection,
    catalog: &Catalog,
    relation: &Relation,
) -> Vec<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for key in &relation.foreign_keys {
        // A table's own rows are not there yet; integer keys are numbered from 0.
        if key.references == relation.oid {
            let width = key.columns.len();
            all.push(
                (0..5)
                    .map(|number| vec![format!("{number}"); width])
                    .collect(),
            );
            continue;
        }
        let target = catalog.relation_by_oid(key.references).unwrap();
        let literals: Vec<String> = key
            .referenced_columns
            .iter()
            .map(|attnum| {
                format!(
                    "quote_literal(\"{}\")",
                    target.column_at(*attnum).unwrap().name
                )
            })
            .collect();
        let name = pgstar_rewriter::quote_qualified(&target.schema, &target.name);
        let sql = format!(
            "SELECT {} FROM {name} ORDER BY 1 LIMIT 5",
            literals.join(", ")
        );
        let rows = client.query(&sql, &[]).await.unwrap();
        let values =
            |row: &tokio_postgres::Row| (0..literals.len()).map(|column| row.get(column)).collect();
        all.push(rows.iter().map(values).collect());
    }
    all
}

fn row(
    relation: &Relation,
    targets: &[Vec<Vec<String>>],
    number: usize,
    types: &UserTypes,
    random: &mut Random,
) -> String {
    let mut values: Vec<String> = Vec::new();
    for column in &relation.columns {
        let is_key = relation
            .unique_keys
            .iter()
            .any(|key| key.contains(&column.attnum));
        values.push(value(column, is_key, number, types, random));
    }
    for (key, target) in relation.foreign_keys.iter().zip(targets) {
        let is_nullable = key.columns.iter().any(|attnum| {
            relation
                .column_at(*attnum)
                .is_some_and(|column| !column.not_null)
        });
        let referenced = if is_nullable && random.chance(25) {
            vec!["NULL".to_owned(); key.columns.len()]
        } else {
            // Some rows of a dimension are never referenced, others often.
            target[random.below(target.len()).min(random.below(7))].clone()
        };
        for (attnum, value) in key.columns.iter().zip(referenced) {
            let position = relation
                .columns
                .iter()
                .position(|column| column.attnum == *attnum)
                .unwrap();
            // A NULL must not end up in a column of another key that allows none.
            if value != "NULL" || !relation.columns[position].not_null {
                values[position] = value;
            }
        }
    }
    format!("({})", values.join(", "))
}

const TEXTS: &[&str] = &[
    "a",
    "b",
    "A",
    "a ",
    "",
    "it''s",
    "Ä € 💶",
    "50%%",
    "\\n",
    "red",
    "a_b",
    "zz",
    "ab\"c",
    "x",
    "web",
];
const DAYS: &[&str] = &[
    "2023-12-31",
    "2024-01-01",
    "2024-01-31",
    "2024-02-29",
    "2024-03-01",
    "2024-03-10",
    "2024-03-31",
    "2024-04-15",
    "2024-10-27",
    "2024-11-03",
    "2024-12-30",
    "2025-01-01",
    "1999-12-31",
    "2011-12-31",
    "2024-04-26",
    "1969-07-20",
    "1899-12-31",
    "0044-03-15 BC",
    "infinity",
    "-infinity",
];
const TIMES: &[&str] = &[
    "00:00:00",
    "00:00:00.000001",
    "01:30:00",
    "02:30:00",
    "03:30:00",
    "23:59:59.999999",
    "12:05:17.25",
    "23:30:00",
];
const NUMERICS: &[&str] = &[
    "0", "1", "1.00", "1.5", "-2.25", "10.10", "7", "NaN", "2.500", "10000.01",
];
const FLOATS: &[&str] = &[
    "0", "-0", "NaN", "1.5", "0.1", "0.2", "1e300", "-1e-300", "Infinity", "3",
];

/// Numbers of a type, over two powers of ten so that sums carry.
fn integer(random: &mut Random) -> i64 {
    match random.below(10) {
        0 => -(random.below(5) as i64),
        1 => random.below(2_000) as i64,
        _ => random.below(6) as i64,
    }
}

fn value(
    column: &Column,
    is_key: bool,
    number: usize,
    types: &UserTypes,
    random: &mut Random,
) -> String {
    if !column.not_null && !is_key && random.chance(20) {
        return "NULL".to_owned();
    }
    let oid = types.base(column.ty.oid.0);
    match oid {
        16 => ["true", "false"][random.below(2)].to_owned(),
        20 | 21 | 23 if is_key => number.to_string(),
        20 | 21 | 23 => format!("({})", integer(random)),
        25 | 1042 | 1043 if is_key => format!("'u{number}'"),
        25 | 1042 | 1043 => format!("'{}'", cut(random.pick::<&str>(TEXTS), column)),
        700 | 701 if is_key => format!("'{number}.5'"),
        700 => format!("'{}'", ["0", "-0", "NaN", "1.5", "0.1"][random.below(5)]),
        701 => format!("'{}'", random.pick(FLOATS)),
        1082 if is_key => format!("date '2024-01-01' + {}", number * 17),
        1082 => format!("'{}'", random.pick(DAYS)),
        1083 => format!("'{}'", random.pick(TIMES)),
        1114 | 1184 => {
            let day = *random.pick(DAYS);
            let time = match day {
                "infinity" | "-infinity" => "",
                _ => random.pick::<&str>(TIMES),
            };
            match day.strip_suffix(" BC") {
                Some(day) => format!("'{day} {time} BC'"),
                None => format!("'{day} {time}'"),
            }
        }
        1186 => format!(
            "'{}'",
            ["1 day", "24 hours", "1 month", "30 days", "0"][random.below(5)]
        ),
        1700 if is_key => format!("{number}.0"),
        1700 => format!("'{}'", random.pick(&NUMERICS[..fitting_numerics(column)])),
        2950 if is_key => format!("'00000000-0000-0000-0000-0000000001{number:02}'"),
        2950 => format!("'00000000-0000-0000-0000-0000000000{:02}'", random.below(5)),
        3802 => "'{\"a\": 1}'".to_owned(),
        _ => {
            let labels: Vec<&String> = types
                .enums
                .iter()
                .filter(|(ty, _)| *ty == oid)
                .map(|(_, label)| label)
                .collect();
            match labels.as_slice() {
                [] => panic!("no values for type {oid}"),
                labels => format!("'{}'", random.pick(labels)),
            }
        }
    }
}

/// How many of the numbers have no more digits before the point than the column.
fn fitting_numerics(column: &Column) -> usize {
    let (precision, scale) = ((column.ty.typmod - 4) >> 16, (column.ty.typmod - 4) & 0x7ff);
    match column.ty.typmod {
        -1 => NUMERICS.len(),
        _ if precision - scale >= 5 => NUMERICS.len(),
        _ => NUMERICS.len() - 1,
    }
}

/// A text that fits the column.
fn cut(text: &str, column: &Column) -> String {
    if column.ty.typmod < 4 {
        return text.to_owned();
    }
    let characters = (column.ty.typmod - 4) as usize;
    let short: String = text
        .replace("''", "\u{1}")
        .chars()
        .take(characters)
        .collect();
    short.replace('\u{1}', "''")
}
