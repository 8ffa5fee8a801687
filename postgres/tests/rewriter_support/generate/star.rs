//! A random star or snowflake: tables, types, and how far its keys can be trusted.

use super::Type;
use super::views::View;
use crate::rewriter_support::data::Random;

/// How a dimension hangs on its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    /// Enforced, never NULL.
    Total,
    /// Enforced, may be NULL.
    Partial,
    /// Not enforced; the dimension has a key.
    Dangling,
    /// Declared, but not for rows that were there before.
    NotValid,
    /// Declared, but only checked at commit.
    Deferred,
    /// The dimension has no key: rows may match twice.
    Multiplying,
}

#[derive(Debug, Clone)]
pub(super) struct Dimension {
    pub(super) table: String,
    pub(super) alias: String,
    /// The alias that refers to it, and pairs of a column there and the key's column here.
    pub(super) parent: String,
    pub(super) on: Vec<(String, String)>,
    pub(super) reference: Reference,
    /// Another role of an earlier dimension's table.
    pub(super) is_role: bool,
}

/// A column beside the keys.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    /// As written in SQL, perhaps in quotes.
    pub(super) name: String,
    pub(super) ty: Type,
}

/// A random star; the fact is `f`.
#[derive(Debug, Clone)]
pub struct Star {
    pub ddl: String,
    pub(super) dimensions: Vec<Dimension>,
    /// The attributes of each table; several aliases may share one.
    pub(super) tables: Vec<(String, Vec<Attribute>)>,
    pub(super) views: Vec<View>,
}

/// Types, collations and domains that the tables below use.
const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'Glad');

CREATE DOMAIN small AS integer CHECK (VALUE < 100000);

CREATE DOMAIN word AS text;

CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE COLLATION icu (provider = icu, locale = 'und');

";

/// Column types with what can be done with them; the first ones come more often.
const ATTRIBUTES: &[(&str, Type)] = &[
    ("integer", Type::Integer),
    ("text", Type::Text),
    ("numeric(10,2)", Type::Scaled),
    ("date", Type::Date),
    ("timestamp", Type::Timestamp),
    ("timestamptz", Type::Instant),
    ("smallint", Type::Integer),
    ("bigint", Type::Integer),
    ("varchar(3)", Type::Text),
    ("boolean", Type::Boolean),
    ("double precision", Type::Float),
    ("numeric", Type::Numeric),
    ("char(3)", Type::Padded),
    ("numeric(8,3)", Type::Scaled),
    ("real", Type::Float),
    ("small", Type::Integer),
    ("word", Type::Text),
    ("text COLLATE \"C\"", Type::Text),
    ("text COLLATE icu", Type::Text),
    ("text COLLATE loose", Type::Loose),
    ("mood", Type::Enum),
    ("interval", Type::Interval),
    ("uuid", Type::Uuid),
];

/// Names that nobody should have to quote, and names that have to be.
const NAMES: &[&str] = &[
    "a",
    "b",
    "c",
    "n",
    "u",
    "x",
    "t",
    "v",
    "p",
    "d",
    "ts",
    "tz",
    "ok",
    "\"Order\"",
    "\"select\"",
    "\"ä\"\"x\"",
    "count",
    "month",
];

impl Star {
    pub fn random(random: &mut Random) -> Star {
        let mut star = Star {
            ddl: TYPES.to_owned(),
            dimensions: vec![],
            tables: vec![],
            views: vec![],
        };
        let mut keys = Vec::new();
        let mut later = String::new();
        for number in 0..1 + random.below(3) {
            star.arm(number, &mut keys, &mut later, random);
        }
        // The fact has most types; a column that was dropped leaves a hole in the numbers.
        let mut columns = keys;
        if random.chance(30) {
            columns.insert(random.below(columns.len() + 1), "gone integer".to_owned());
            later += "ALTER TABLE f DROP COLUMN gone;\n\n";
        }
        columns.extend(star.attributes("f", 9 + random.below(5), random));
        star.ddl += &format!("CREATE TABLE f (\n    {}\n);\n\n", columns.join(",\n    "));
        star.ddl += &later;
        star.add_views(random);
        star
    }

    /// Columns of a table that are not keys, remembered with their types.
    fn attributes(&mut self, table: &str, count: usize, random: &mut Random) -> Vec<String> {
        let mut attributes: Vec<Attribute> = vec![];
        let mut columns = vec![];
        while attributes.len() < count {
            let name = *random.pick(NAMES);
            if attributes.iter().any(|known| known.name == name) {
                continue;
            }
            let among = if random.chance(60) {
                8
            } else {
                ATTRIBUTES.len()
            };
            // Every table has something to add up and something to name, the fact also a time.
            let (sql, ty) = match (attributes.len(), table) {
                (0, _) => ATTRIBUTES[0],
                (1, _) => ATTRIBUTES[1],
                (2, "f") => ATTRIBUTES[4],
                (3, "f") => ATTRIBUTES[2],
                _ => ATTRIBUTES[random.below(among)],
            };
            let not_null = if random.chance(35) { " NOT NULL" } else { "" };
            columns.push(format!("{name} {sql}{not_null}"));
            attributes.push(Attribute {
                name: name.to_owned(),
                ty,
            });
        }
        self.tables.push((table.to_owned(), attributes));
        columns
    }

    /// A column more of the fact, of a type that an extension brings.
    pub fn add_citext(&mut self) -> String {
        let sql = "CREATE EXTENSION citext; ALTER TABLE f ADD COLUMN any_case citext;";
        self.ddl += &format!("{sql}\n\n");
        if let Some((_, attributes)) = self.tables.iter_mut().find(|(name, _)| name == "f") {
            attributes.push(Attribute {
                name: "any_case".to_owned(),
                ty: Type::Loose,
            });
        }
        sql.to_owned()
    }

    pub(super) fn attributes_of(&self, alias: &str) -> &[Attribute] {
        let dimension = self
            .dimensions
            .iter()
            .find(|dimension| dimension.alias == alias);
        let table = dimension.map_or(alias, |dimension| &dimension.table);
        let found = self.tables.iter().find(|(name, _)| name == table);
        found.map_or(&[], |(_, attributes)| attributes)
    }

    /// A dimension, perhaps with others behind it, perhaps in a second role.
    fn arm(
        &mut self,
        number: usize,
        fact: &mut Vec<String>,
        later: &mut String,
        random: &mut Random,
    ) {
        use Reference::{Dangling, Deferred, Multiplying, NotValid, Partial, Total};
        let table = format!("d{number}");
        let reference = *random.pick(&[
            Total,
            Total,
            Total,
            Total,
            Partial,
            Partial,
            Dangling,
            NotValid,
            Deferred,
            Multiplying,
        ]);
        let key = Key::random(reference, random);
        let before = self.dimensions.len();
        let outer = if random.chance(45) {
            self.outer(&format!("{table}o"), random.below(2), random)
        } else {
            None
        };
        let mut own = key.columns(reference != Multiplying);
        own.extend(self.attributes(&table, 3 + random.below(3), random));
        let mut arms = self.dimensions.split_off(before);
        if let Some((foreign_key, behind)) = outer {
            own.push(foreign_key);
            arms.insert(
                0,
                Dimension {
                    parent: table.clone(),
                    ..behind
                },
            );
        }
        self.create(&table, &own);
        let column = format!("k{number}");
        fact.extend(key.referring(&column, &table, reference));
        if matches!(reference, NotValid | Deferred) {
            *later += &key.declared_later(&column, &table, reference);
        }
        self.dimension(&table, &table, "f", key.pairs(&column), reference, false);
        self.dimensions.extend(arms);
        if random.chance(30) && matches!(reference, Total | Partial) {
            let role = *random.pick(&[Total, Partial]);
            let column = format!("k{number}b");
            fact.extend(key.referring(&column, &table, role));
            self.dimension(
                &table,
                &format!("{table}b"),
                "f",
                key.pairs(&column),
                role,
                true,
            );
        }
    }

    /// A dimension of a dimension, perhaps with one more behind it: the column that refers to it, and itself.
    fn outer(
        &mut self,
        table: &str,
        further: usize,
        random: &mut Random,
    ) -> Option<(String, Dimension)> {
        use Reference::{Multiplying, Partial, Total};
        let reference = *random.pick(&[Total, Total, Partial, Multiplying]);
        let key = Key {
            ty: random.pick::<&str>(&["integer", "integer", "text"]),
            is_pair: false,
            fact_type: None,
        };
        let behind = if further > 0 {
            self.outer(&format!("{table}o"), further - 1, random)
        } else {
            None
        };
        let mut own = key.columns(reference != Multiplying);
        own.extend(self.attributes(table, 2 + random.below(2), random));
        if let Some((foreign_key, behind)) = behind {
            own.push(foreign_key);
            self.dimensions.push(Dimension {
                parent: table.to_owned(),
                ..behind
            });
        }
        self.create(table, &own);
        let foreign_key = key.referring("up", table, reference).remove(0);
        let dimension = Dimension {
            table: table.to_owned(),
            alias: table.to_owned(),
            parent: String::new(),
            on: key.pairs("up"),
            reference,
            is_role: false,
        };
        Some((foreign_key, dimension))
    }

    fn create(&mut self, name: &str, columns: &[String]) {
        self.ddl += &format!(
            "CREATE TABLE {name} (\n    {}\n);\n\n",
            columns.join(",\n    ")
        );
    }

    fn dimension(
        &mut self,
        table: &str,
        alias: &str,
        parent: &str,
        on: Vec<(String, String)>,
        reference: Reference,
        is_role: bool,
    ) {
        self.dimensions.push(Dimension {
            table: table.to_owned(),
            alias: alias.to_owned(),
            parent: parent.to_owned(),
            on,
            reference,
            is_role,
        });
    }

    /// Which kinds of references there are, for a report.
    pub fn references(&self) -> String {
        let kind = |dimension: &Dimension| {
            format!(
                "{:?}{}",
                dimension.reference,
                if dimension.is_role { " role" } else { "" }
            )
        };
        self.dimensions
            .iter()
            .map(kind)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A dimension's key: `id`, or `id` and `id2`.
struct Key {
    ty: &'static str,
    is_pair: bool,
    /// Another type of the columns that refer to it.
    fact_type: Option<&'static str>,
}

impl Key {
    fn random(reference: Reference, random: &mut Random) -> Key {
        let ty = match reference {
            Reference::Total | Reference::Partial => *random.pick(&[
                "integer", "integer", "integer", "bigint", "text", "numeric", "uuid", "date",
                "char(3)",
            ]),
            _ => "integer",
        };
        let is_pair = matches!(reference, Reference::Total | Reference::Partial)
            && ty == "integer"
            && random.chance(20);
        // Of another integer type than the one it refers to now and then.
        let fact_type = (ty == "bigint" && random.chance(50)).then_some("integer");
        Key {
            ty,
            is_pair,
            fact_type,
        }
    }

    fn columns(&self, is_unique: bool) -> Vec<String> {
        let ty = self.ty;
        match (self.is_pair, is_unique) {
            (true, true) => vec![
                format!("id {ty}"),
                format!("id2 {ty}"),
                "PRIMARY KEY (id, id2)".to_owned(),
            ],
            (true, false) => vec![format!("id {ty}"), format!("id2 {ty}")],
            (false, true) => vec![format!("id {ty} PRIMARY KEY")],
            (false, false) => vec![format!("id {ty}")],
        }
    }

    fn pairs(&self, column: &str) -> Vec<(String, String)> {
        let mut pairs = vec![(column.to_owned(), "id".to_owned())];
        if self.is_pair {
            pairs.push((format!("{column}x"), "id2".to_owned()));
        }
        pairs
    }

    /// The columns, and constraints, of a table that refers to it.
    fn referring(&self, column: &str, table: &str, reference: Reference) -> Vec<String> {
        use Reference::{Dangling, Deferred, Multiplying, NotValid, Partial, Total};
        let ty = self.fact_type.unwrap_or(self.ty);
        let not_null = if matches!(reference, Total | NotValid | Deferred) {
            " NOT NULL"
        } else {
            ""
        };
        let is_enforced = match reference {
            Total | Partial => true,
            Dangling | NotValid | Deferred | Multiplying => false,
        };
        if self.is_pair {
            let mut columns = vec![
                format!("{column} {ty}{not_null}"),
                format!("{column}x {ty}{not_null}"),
            ];
            if is_enforced {
                columns.push(format!(
                    "FOREIGN KEY ({column}, {column}x) REFERENCES {table} (id, id2)"
                ));
            }
            return columns;
        }
        let references = if is_enforced {
            format!(" REFERENCES {table} (id)")
        } else {
            String::new()
        };
        vec![format!("{column} {ty}{not_null}{references}")]
    }

    fn declared_later(&self, column: &str, table: &str, reference: Reference) -> String {
        let how = match reference {
            Reference::NotValid => "NOT VALID",
            _ => "DEFERRABLE INITIALLY DEFERRED",
        };
        format!(
            "ALTER TABLE f ADD CONSTRAINT f_{table} FOREIGN KEY ({column}) REFERENCES {table} (id) {how};\n\n"
        )
    }
}
