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
                complaint(misfit, name, snapshot),
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
    let hint = suggestion.unwrap_or_else(|| misfit.reason.code.meaning().trim().to_owned());
    Complaint {
        message,
        hint: Some(hint),
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
