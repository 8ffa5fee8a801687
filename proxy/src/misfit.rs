//! Says where in the configuration file a rollup does not fit the database.

use pgstar_rewriter::Code;

use crate::config::{Complaint, Config, Problems, did_you_mean};
use crate::warehouse::{Misfit, Snapshot};

/// The misfits as problems of the file; `None` when there are none.
pub fn problems(config: &Config, misfits: &[Misfit], snapshot: &Snapshot) -> Option<Problems> {
    let problems: Vec<_> = misfits
        .iter()
        .map(|misfit| {
            let name = named(misfit);
            let offset = name
                .and_then(|name| offset_of(&misfit.rollup.query, name))
                .unwrap_or(0);
            config.problem(
                misfit.rollup.position_of(offset),
                match name.and_then(|name| rollup_named(config, misfit, name)) {
                    Some(other) => of_rollup(misfit, other),
                    None => complaint(misfit, name, snapshot),
                },
            )
        })
        .collect();
    (!problems.is_empty()).then(|| Problems::new(problems))
}

fn complaint(misfit: &Misfit, name: Option<&str>, snapshot: &Snapshot) -> Complaint {
    let rollup = &misfit.rollup.name;
    let detail = &misfit.reason.detail;
    let (message, known): (String, Vec<String>) = match misfit.reason.code {
        Code::UnknownColumn => (
            format!("rollup \"{rollup}\" names unknown column {detail}"),
            columns(snapshot),
        ),
        Code::UnknownRelation => (
            format!("rollup \"{rollup}\" names unknown table {detail}"),
            tables(snapshot),
        ),
        code => (
            format!("rollup \"{rollup}\" cannot be kept: {code}: {detail}"),
            vec![],
        ),
    };
    let last = name
        .and_then(|name| name.rsplit('.').next())
        .unwrap_or_default();
    let suggestion = did_you_mean(last, known.iter().map(String::as_str));
    let of_floats = || {
        let hint = "Set float = \"approximate\" in this [[rollup]] if the last digits may differ from PostgreSQL's, \
                    or keep the measure as numeric.";
        (misfit.reason.code == Code::FloatAggregate).then(|| hint.to_owned())
    };
    let hint = suggestion
        .or_else(of_floats)
        .unwrap_or_else(|| misfit.reason.code.meaning().trim().to_owned());
    Complaint {
        message,
        hint: Some(hint),
    }
}

/// The rollup that a refused table's name means, as far as it can be said.
fn rollup_named<'a>(config: &'a Config, misfit: &Misfit, name: &'a str) -> Option<&'a str> {
    if !matches!(
        misfit.reason.code,
        Code::UnknownRelation | Code::RowSecurity
    ) {
        return None;
    }
    let in_schema = name.strip_prefix("pgstar.");
    let table = in_schema.unwrap_or(name);
    let declared = config.rollups.iter().map(|rollup| rollup.name.as_str());
    let mut declared = declared.into_iter();
    declared.find(|rollup| *rollup == table).or(in_schema)
}

/// Rollups' tables come and go.
fn of_rollup(misfit: &Misfit, other: &str) -> Complaint {
    let rollup = &misfit.rollup.name;
    let hint = "Name the tables that it is built from: pgstar itself fills a rollup from a finer one where it can.";
    Complaint {
        message: format!("rollup \"{rollup}\" reads rollup \"{other}\""),
        hint: Some(hint.to_owned()),
    }
}

/// The first name in quotes of the refusal's detail.
fn named(misfit: &Misfit) -> Option<&str> {
    misfit.reason.detail.split('"').nth(1)
}

fn offset_of(query: &str, name: &str) -> Option<usize> {
    query.to_ascii_lowercase().find(&name.to_ascii_lowercase())
}

fn columns(snapshot: &Snapshot) -> Vec<String> {
    let relations = snapshot.catalog.relations().iter();
    relations
        .flat_map(|relation| &relation.columns)
        .map(|column| column.name.clone())
        .collect()
}

fn tables(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .catalog
        .relations()
        .iter()
        .map(|relation| relation.name.clone())
        .collect()
}
