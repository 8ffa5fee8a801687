//! The mix: one script for each benchmark query with varying parameters, and two full scans.
//!
//! Must not know servers. Scripts are pgbench's own, with one addition: pgbench computes with
//! numbers only, so a line `-- choose name: A, B, C` asks for a random text in place of `:name`,
//! which becomes one branch of `\if` for each. Without that expansion a script still runs with
//! `pgbench -D name=A`. Parameters stand inside literals, which only pgbench's simple protocol replaces.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

/// A script and how often it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// Its name in reports.
    pub name: &'static str,
    /// Its share of transactions, relative to the other weights.
    pub weight: u32,
    template: &'static str,
}

const WEIGHT_OF_A_QUERY: u32 = 10;
/// Full scans that no rollup answers cost both sides the same; often drawn they would hide the rest.
const WEIGHT_OF_A_SCAN: u32 = 1;

macro_rules! script {
    ($name:literal, $file:literal, $weight:ident) => {
        Script {
            name: $name,
            weight: $weight,
            template: include_str!(concat!("../../scripts/", $file)),
        }
    };
}

/// The mix, in the order of reports.
pub const SCRIPTS: [Script; 15] = [
    script!("Q1.1", "q1.1.sql", WEIGHT_OF_A_QUERY),
    script!("Q1.2", "q1.2.sql", WEIGHT_OF_A_QUERY),
    script!("Q1.3", "q1.3.sql", WEIGHT_OF_A_QUERY),
    script!("Q2.1", "q2.1.sql", WEIGHT_OF_A_QUERY),
    script!("Q2.2", "q2.2.sql", WEIGHT_OF_A_QUERY),
    script!("Q2.3", "q2.3.sql", WEIGHT_OF_A_QUERY),
    script!("Q3.1", "q3.1.sql", WEIGHT_OF_A_QUERY),
    script!("Q3.2", "q3.2.sql", WEIGHT_OF_A_QUERY),
    script!("Q3.3", "q3.3.sql", WEIGHT_OF_A_QUERY),
    script!("Q3.4", "q3.4.sql", WEIGHT_OF_A_QUERY),
    script!("Q4.1", "q4.1.sql", WEIGHT_OF_A_QUERY),
    script!("Q4.2", "q4.2.sql", WEIGHT_OF_A_QUERY),
    script!("Q4.3", "q4.3.sql", WEIGHT_OF_A_QUERY),
    script!("ad hoc 1", "adhoc1.sql", WEIGHT_OF_A_SCAN),
    script!("ad hoc 2", "adhoc2.sql", WEIGHT_OF_A_SCAN),
];

impl Script {
    /// The script as pgbench runs it.
    pub fn expand(&self) -> String {
        match self.template.split_once('\n').and_then(choice) {
            Some(choice) => choice.expand(),
            None => self.template.to_owned(),
        }
    }
}

/// Writes the expanded scripts into a directory, and returns their paths in the mix's order.
pub fn write_all(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let write = |(index, script): (usize, &Script)| {
        let path = directory.join(format!("{index:02}.sql"));
        fs::write(&path, script.expand())?;
        Ok(path)
    };
    SCRIPTS.iter().enumerate().map(write).collect()
}

/// A first line that asks for a random text, and the rest of its script.
struct Choice<'a> {
    name: &'a str,
    texts: Vec<&'a str>,
    settings: String,
    sql: String,
}

fn choice<'a>((first, rest): (&'a str, &'a str)) -> Option<Choice<'a>> {
    let (name, texts) = first.strip_prefix("-- choose ")?.split_once(": ")?;
    let is_setting = |line: &&str| line.starts_with('\\');
    let (settings, sql): (Vec<&str>, Vec<&str>) = rest.lines().partition(is_setting);
    Some(Choice {
        name,
        texts: texts.split(", ").collect(),
        settings: settings.join("\n"),
        sql: sql.join("\n"),
    })
}

impl Choice<'_> {
    fn expand(&self) -> String {
        let Choice {
            name,
            texts,
            settings,
            sql,
        } = self;
        let mut script = format!("\\set {name} random(1, {})\n", texts.len());
        if !settings.is_empty() {
            script.push_str(settings);
            script.push('\n');
        }
        let mut branch = "if";
        for (text, number) in texts.iter().zip(1..) {
            let sql = sql.replace(&format!(":{name}"), text);
            // Writing to a String cannot fail.
            let _ = write!(script, "\\{branch} :{name} = {number}\n{sql}\n");
            branch = "elif";
        }
        script.push_str("\\endif\n");
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssb::QUERIES;

    const CHOOSING: Script = Script {
        name: "test",
        weight: 1,
        template: "-- choose region: ASIA, MIDDLE EAST\n\\set a random(0, 9)\nselect ':region'\nfrom t where c = 'X:a';\n",
    };

    #[test]
    fn each_text_becomes_a_branch() {
        let expected = "\\set region random(1, 2)\n\\set a random(0, 9)\n\
            \\if :region = 1\nselect 'ASIA'\nfrom t where c = 'X:a';\n\
            \\elif :region = 2\nselect 'MIDDLE EAST'\nfrom t where c = 'X:a';\n\\endif\n";
        assert_eq!(CHOOSING.expand(), expected);
    }

    #[test]
    fn every_benchmark_query_has_a_script_of_the_same_shape() {
        let select_and_from = |sql: &str| -> Vec<String> {
            let clauses = ["select ", "from ", "group by ", "order by "];
            let is_clause = |line: &&str| clauses.iter().any(|clause| line.starts_with(clause));
            let lines = sql.lines().filter(is_clause);
            lines
                .map(|line| line.trim_end_matches(';').to_owned())
                .collect()
        };
        for (query, script) in QUERIES.iter().zip(SCRIPTS) {
            assert_eq!(query.name, script.name);
            assert_eq!(select_and_from(query.sql), select_and_from(script.template));
        }
    }

    #[test]
    fn every_variable_of_a_script_is_set_in_it() {
        for script in SCRIPTS {
            let expanded = script.expand();
            for used in expanded.split(':').skip(1) {
                let end = used.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
                let name = &used[..end.unwrap_or(used.len())];
                let set = format!("\\set {name} ");
                assert!(expanded.contains(&set), "{name} in {}", script.name);
            }
        }
    }
}
