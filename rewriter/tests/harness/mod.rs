//! Cases as data: what a `.case` file holds, how a decision is written down, and how a difference is shown.
//!
//! A file names its schema, declares rollups, then lists entries:
//!
//! ```text
//! schema ssb
//!
//! rollup by_month
//! SELECT …
//!
//! # Why this case exists.
//! rewrite year-from-month
//! set timezone = 'Asia/Kolkata'
//! SELECT …
//! ----
//! rollup by_month
//! SELECT … FROM pgstar.by_month …
//! proof …
//! ```
//!
//! `rollup by_month approximate` declares a rollup whose floating-point sums may differ in their last digits.
//!
//! Paragraphs end at a blank line. Other entries are `passthrough NAME`, followed by one reason a
//! line, and `norollup NAME`, a defining SELECT that is refused.

// A panic is how a test fails.
#![allow(clippy::unwrap_used)]

pub mod ddl;
pub mod memory;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::expr::BoundTime;
use pgstar_rewriter::{Context, Decision, Floats, Match, Rollup, RollupDefinition, decide};

/// The schema that rollup tables are in.
pub const ROLLUP_SCHEMA: &str = "pgstar";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rewrite,
    Passthrough,
    NoRollup,
}

impl Kind {
    pub fn keyword(self) -> &'static str {
        match self {
            Kind::Rewrite => "rewrite",
            Kind::Passthrough => "passthrough",
            Kind::NoRollup => "norollup",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: Kind,
    pub name: String,
    pub comment: String,
    /// `set …` lines as written.
    pub settings: Vec<(String, String)>,
    pub sql: String,
    pub expected: String,
}

#[derive(Debug, Clone)]
pub struct Declared {
    pub name: String,
    pub floats: Floats,
    pub sql: String,
}

impl Declared {
    fn read(head: &str, sql: String) -> Declared {
        let (name, floats) = match head.strip_suffix(" approximate") {
            Some(name) => (name, Floats::Approximate),
            None => (head, Floats::Refused),
        };
        Declared {
            name: name.to_owned(),
            floats,
            sql,
        }
    }

    fn head(&self) -> String {
        match self.floats {
            Floats::Refused => self.name.clone(),
            Floats::Approximate => format!("{} approximate", self.name),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Part {
    Comment(String),
    Rollup(Declared),
    Entry(Entry),
}

#[derive(Debug, Clone)]
pub struct CaseFile {
    pub path: PathBuf,
    pub schema: String,
    pub parts: Vec<Part>,
}

impl CaseFile {
    pub fn read(path: &Path) -> CaseFile {
        let text = std::fs::read_to_string(path).unwrap();
        let mut schema = None;
        let mut parts = Vec::new();
        for paragraph in text.split("\n\n").map(|p| p.trim_matches('\n')) {
            if paragraph.is_empty() {
                continue;
            }
            match paragraph.strip_prefix("schema ") {
                Some(name) => schema = Some(name.trim().to_owned()),
                None => parts.push(part(paragraph, path)),
            }
        }
        CaseFile {
            path: path.to_owned(),
            schema: schema.unwrap_or_else(|| panic!("{}: names no schema", path.display())),
            parts,
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.parts.iter().filter_map(|part| match part {
            Part::Entry(entry) => Some(entry),
            Part::Comment(_) | Part::Rollup(_) => None,
        })
    }

    pub fn rollup_definitions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.declared()
            .map(|declared| (declared.name.as_str(), declared.sql.as_str()))
    }

    fn declared(&self) -> impl Iterator<Item = &Declared> {
        self.parts.iter().filter_map(|part| match part {
            Part::Rollup(declared) => Some(declared),
            Part::Comment(_) | Part::Entry(_) => None,
        })
    }

    /// The rollups as if their tables existed, all equally cheap.
    pub fn rollups(&self, catalog: &Catalog) -> Vec<Rollup> {
        let path = default_search_path();
        let parse = |Declared { name, floats, sql }: &Declared| {
            let definition = RollupDefinition::parse_with(name, sql, *floats, catalog, &path)
                .unwrap_or_else(|reason| panic!("{}: {name}: {reason}", self.path.display()));
            rollup_of(definition)
        };
        self.declared().map(parse).collect()
    }

    /// The file with other expectations.
    pub fn with_expectations(&self, expected: &[String]) -> String {
        let mut text = format!("schema {}\n", self.schema);
        let mut expected = expected.iter();
        for part in &self.parts {
            text.push('\n');
            match part {
                Part::Comment(comment) => writeln!(text, "{comment}").unwrap(),
                Part::Rollup(declared) => {
                    writeln!(text, "rollup {}\n{}", declared.head(), declared.sql).unwrap();
                }
                Part::Entry(entry) => {
                    let expectation = expected.next().unwrap();
                    writeln!(
                        text,
                        "{}\n{} {}",
                        entry.comment,
                        entry.kind.keyword(),
                        entry.name
                    )
                    .unwrap();
                    for (setting, value) in &entry.settings {
                        writeln!(text, "set {setting} = {value}").unwrap();
                    }
                    writeln!(text, "{}\n----\n{}", entry.sql, expectation.trim_end()).unwrap();
                }
            }
        }
        text
    }
}

fn part(paragraph: &str, path: &Path) -> Part {
    let lines: Vec<&str> = paragraph.lines().collect();
    let comments = lines
        .iter()
        .take_while(|line| line.starts_with('#'))
        .count();
    let (comment, rest) = lines.split_at(comments);
    let comment = comment.join("\n");
    let Some((head, body)) = rest.split_first() else {
        return Part::Comment(comment);
    };
    let (keyword, name) = head
        .split_once(' ')
        .unwrap_or_else(|| panic!("{}: \"{head}\" is no entry", path.display()));
    let kind = match keyword {
        "rollup" => {
            return Part::Rollup(Declared::read(name, body.join("\n")));
        }
        "rewrite" => Kind::Rewrite,
        "passthrough" => Kind::Passthrough,
        "norollup" => Kind::NoRollup,
        _ => panic!("{}: \"{head}\" is no entry", path.display()),
    };
    assert!(
        !comment.is_empty(),
        "{}: {name} does not say why it exists",
        path.display()
    );
    let settings: Vec<(String, String)> = body.iter().map_while(|line| setting(line)).collect();
    let body = &body[settings.len()..];
    let end = body.iter().position(|line| *line == "----");
    let (sql, expected) = body.split_at(end.unwrap_or(body.len()));
    Part::Entry(Entry {
        kind,
        name: name.to_owned(),
        comment,
        settings,
        sql: sql.join("\n"),
        expected: expected
            .iter()
            .skip(1)
            .copied()
            .collect::<Vec<_>>()
            .join("\n"),
    })
}

fn setting(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("set ")?.split_once('=')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}

impl Entry {
    /// The schemas of `set search_path`, or the usual ones.
    pub fn search_path(&self) -> Vec<String> {
        let given = self.settings.iter().find(|(name, _)| name == "search_path");
        given.map_or_else(default_search_path, |(_, path)| {
            path.split(',')
                .map(|schema| schema.trim().trim_matches('"').to_owned())
                .collect()
        })
    }

    pub fn time_zone(&self) -> String {
        let given = self.settings.iter().find(|(name, _)| name == "timezone");
        given.map_or_else(
            || "UTC".to_owned(),
            |(_, zone)| zone.trim_matches('\'').to_owned(),
        )
    }

    /// The times of `set $1 = timestamp '…'`, or of `set $1 = '…'` where PostgreSQL infers the type.
    pub fn bound(&self) -> Vec<Option<BoundTime>> {
        let mut bound = vec![];
        for number in 1.. {
            let parameter = format!("${number}");
            let Some((_, value)) = self.settings.iter().find(|(name, _)| *name == parameter) else {
                break;
            };
            let (ty, text) = value.split_once('\'').unwrap();
            let oid = match ty.trim() {
                "" => 0,
                "date" => 1082,
                "timestamp" => 1114,
                "timestamptz" => 1184,
                other => panic!("{other} is no type of a bound time"),
            };
            let text = text.trim_end_matches('\'').to_owned();
            bound.push(Some(BoundTime { oid, text }));
        }
        bound
    }

    pub fn decide(&self, catalog: &Catalog, rollups: &[Rollup]) -> Decision {
        self.decide_by(catalog, rollups, &|context| decide(&self.sql, context))
    }

    /// What is decided in the case's session.
    pub fn decide_by(
        &self,
        catalog: &Catalog,
        rollups: &[Rollup],
        decide: &dyn Fn(Context<'_>) -> Decision,
    ) -> Decision {
        decide(Context {
            catalog,
            rollups,
            search_path: &self.search_path(),
            time_zone: &self.time_zone(),
            bound: &self.bound(),
        })
    }

    /// What happens, in the words of the file.
    pub fn outcome(&self, catalog: &Catalog, rollups: &[Rollup]) -> (Kind, String) {
        if self.kind == Kind::NoRollup {
            let parsed =
                RollupDefinition::parse(&self.name, &self.sql, catalog, &self.search_path());
            return match parsed {
                Err(reason) => (Kind::NoRollup, reason.to_string()),
                Ok(definition) => (Kind::Rewrite, definition.build_select),
            };
        }
        let decision = self.decide(catalog, rollups);
        let kind = if decision.matches.is_empty() {
            Kind::Passthrough
        } else {
            Kind::Rewrite
        };
        (kind, render(&decision, rollups))
    }
}

pub fn default_search_path() -> Vec<String> {
    vec!["pg_catalog".to_owned(), "public".to_owned()]
}

pub fn rollup_of(definition: RollupDefinition) -> Rollup {
    Rollup {
        schema: ROLLUP_SCHEMA.to_owned(),
        table: definition.name.clone(),
        definition,
        rows: 0,
    }
}

/// A decision as lines: the best match with its proof, the names of others, or every reason.
pub fn render(decision: &Decision, rollups: &[Rollup]) -> String {
    let names = |found: &Match| {
        let positions = found.rollups.iter();
        let names: Vec<&str> = positions
            .map(|position| rollups[*position].definition.name.as_str())
            .collect();
        names.join(", ")
    };
    let mut text = String::new();
    match decision.matches.split_first() {
        Some((best, others)) => {
            writeln!(text, "rollup {}\n{}", names(best), best.sql).unwrap();
            for step in &best.proof {
                writeln!(text, "proof {}: {}", step.rule, step.detail).unwrap();
            }
            for other in others {
                writeln!(text, "also {}", names(other)).unwrap();
            }
        }
        None => {
            for reason in &decision.reasons {
                writeln!(text, "{reason}").unwrap();
            }
        }
    }
    if decision.depends_on_clock {
        writeln!(text, "depends on the clock").unwrap();
    }
    text.trim_end().to_owned()
}

pub fn cases_directory() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = [here.join("cases"), here.join("../rewriter/cases")];
    candidates
        .into_iter()
        .find(|directory| directory.is_dir())
        .unwrap()
}

/// Every case file, in order of their names.
pub fn case_files() -> Vec<CaseFile> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(cases_directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "case")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| CaseFile::read(path)).collect()
}

pub fn schema_sql(schema: &str) -> String {
    let path = cases_directory().join(format!("schemas/{schema}.sql"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lines of both texts, those that differ marked `-` (expected) and `+` (actual).
pub fn difference(expected: &str, actual: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), actual.lines().collect());
    let mut text = String::new();
    for position in 0..left.len().max(right.len()) {
        match (left.get(position), right.get(position)) {
            (Some(line), Some(same)) if line == same => writeln!(text, "    {line}").unwrap(),
            (old, new) => {
                if let Some(line) = old {
                    writeln!(text, "  - {line}").unwrap();
                }
                if let Some(line) = new {
                    writeln!(text, "  + {line}").unwrap();
                }
            }
        }
    }
    text
}
