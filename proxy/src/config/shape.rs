//! What the user typed: the TOML document, judged by the list of known keys, with every place kept.
//!
//! Unknown names, missing keys and wrong types end here; what a value means is for others.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Absence, Key, Kind, SECTIONS, Section};
use super::problem::{Complaint, Position, Problem, Problems, did_you_mean, quoted};

/// The text of a file and what is wrong with it so far.
pub(super) struct Findings<'t> {
    file: &'t Path,
    text: &'t str,
    problems: Vec<Problem>,
}

impl<'t> Findings<'t> {
    pub fn new(file: &'t Path, text: &'t str) -> Self {
        Findings {
            file,
            text,
            problems: Vec::new(),
        }
    }

    /// The file's whole text.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// Where the byte at `offset` is.
    pub fn position(&self, offset: usize) -> Position {
        Position::in_text(self.text, offset)
    }

    /// Notes a problem at `offset`.
    pub fn report(&mut self, offset: usize, complaint: Complaint) {
        let Complaint { message, hint } = complaint;
        let position = Some(self.position(offset));
        self.problems.push(Problem {
            file: self.file.to_path_buf(),
            position,
            message,
            hint,
        });
    }

    /// The value, if nothing at all was wrong with the file.
    pub fn conclude<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems::new(self.problems)),
        }
    }

    /// Parses the text. With a syntax error there is no document: what follows one is guesswork.
    pub fn parse(&mut self) -> Option<Document<'t>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        let mut last_line = None;
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            // The parser recovers within the line; its second complaint is about the same mistake.
            let line = Some(self.position(offset).line);
            if line != last_line {
                let complaint = syntax_complaint(error.message());
                self.report(offset, complaint);
            }
            last_line = line;
        }
        errors.is_empty().then(|| Document {
            root: root.into_inner(),
        })
    }
}

fn syntax_complaint(message: &str) -> Complaint {
    let hint = message.contains("string").then(|| {
        "A text value stands in quotation marks; a query over several lines in \"\"\"…\"\"\"."
            .to_owned()
    });
    Complaint {
        message: format!("invalid TOML: {message}"),
        hint,
    }
}

/// A file that is valid TOML.
pub(super) struct Document<'t> {
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Reports every unknown name, missing key and wrong type.
    pub fn check_shape(&self, findings: &mut Findings<'_>) {
        for (name, value) in &self.root {
            match keys::section(name.get_ref()) {
                Some(section) => check_section_value(section, value, findings),
                None => findings.report(name.span().start, unknown_section(name.get_ref())),
            }
        }
        for section in SECTIONS.iter().filter(|section| !section.repeated) {
            if !self.root.contains_key(section.name) {
                check_missing(section, &DeTable::new(), 0, findings);
            }
        }
    }

    /// The table of a section; empty when the file has none.
    pub fn table(&self, name: &str) -> Table<'_, 't> {
        match self.root.get(name).map(Spanned::get_ref) {
            Some(DeValue::Table(entries)) => Table {
                header: header(name),
                entries: Some(entries),
            },
            _ => Table {
                header: header(name),
                entries: None,
            },
        }
    }

    /// The tables of a repeated section, in the file's order, each with where it starts.
    pub fn tables(&self, name: &str) -> impl Iterator<Item = Table<'_, 't>> {
        let array = match self.root.get(name).map(Spanned::get_ref) {
            Some(DeValue::Array(array)) => array.iter().as_slice(),
            _ => &[],
        };
        array
            .iter()
            .filter_map(move |element| match element.get_ref() {
                DeValue::Table(entries) => Some(Table {
                    header: header(name),
                    entries: Some(entries),
                }),
                _ => None,
            })
    }
}

/// One table of the file. Values of a wrong type count as absent: they have been reported.
pub(super) struct Table<'d, 't> {
    header: String,
    entries: Option<&'d DeTable<'t>>,
}

impl<'d, 't> Table<'d, 't> {
    fn value(&self, key: &str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.entries?.get(key)
    }

    /// A string and its place, quotation marks included.
    pub fn text(&self, key: &str) -> Option<(&'d str, Range<usize>)> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.as_ref(), value.span())),
            _ => None,
        }
    }

    /// A whole number and its place; `None` inside for one that no number type here can hold.
    pub fn count(&self, key: &str) -> Option<(Option<u32>, Range<usize>)> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Integer(number) => {
                let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
                Some((count, value.span()))
            }
            _ => None,
        }
    }

    /// The key as messages name it: `[cache] memory`.
    pub fn path(&self, key: &str) -> String {
        format!("{} {key}", self.header)
    }
}

fn header(name: &str) -> String {
    keys::section(name).map_or_else(|| format!("[{name}]"), Section::header)
}

fn check_section_value(
    section: &'static Section,
    value: &Spanned<DeValue<'_>>,
    findings: &mut Findings<'_>,
) {
    match (value.get_ref(), section.repeated) {
        (DeValue::Table(entries), false) => check_table(section, entries, value.span(), findings),
        (DeValue::Array(array), true) => {
            for element in array.iter() {
                match element.get_ref() {
                    DeValue::Table(entries) => {
                        check_table(section, entries, element.span(), findings)
                    }
                    _ => findings.report(element.span().start, not_a_table(section)),
                }
            }
        }
        _ => findings.report(value.span().start, not_a_table(section)),
    }
}

fn check_table(
    section: &'static Section,
    entries: &DeTable<'_>,
    span: Range<usize>,
    findings: &mut Findings<'_>,
) {
    for (name, value) in entries {
        match section.key(name.get_ref()) {
            Some(key) => check_kind(section, key, value, findings),
            None => findings.report(name.span().start, unknown_key(section, name.get_ref())),
        }
    }
    check_missing(section, entries, span.start, findings);
}

fn check_missing(
    section: &'static Section,
    entries: &DeTable<'_>,
    offset: usize,
    findings: &mut Findings<'_>,
) {
    for key in section
        .keys
        .iter()
        .filter(|key| matches!(key.absent, Absence::Refused(_)))
    {
        if !entries.contains_key(key.name) {
            let message = format!("missing key \"{}\" in {}", key.name, section.header());
            findings.report(offset, Complaint::new(message, for_example(key)));
        }
    }
}

fn check_kind(
    section: &'static Section,
    key: &'static Key,
    value: &Spanned<DeValue<'_>>,
    findings: &mut Findings<'_>,
) {
    let is_right = match key.kind {
        Kind::Text => value.get_ref().is_str(),
        Kind::Count => value.get_ref().is_integer(),
    };
    if is_right {
        return;
    }
    let wanted = match key.kind {
        Kind::Text => "a string",
        Kind::Count => "a whole number",
    };
    let typed = value.get_ref().type_str();
    let message = format!(
        "{} {} must be {wanted}, not of type {typed}",
        section.header(),
        key.name
    );
    findings.report(
        value.span().start,
        Complaint::new(message, for_example(key)),
    );
}

fn for_example(key: &Key) -> String {
    format!("For example: {}", key.example())
}

fn unknown_section(name: &str) -> Complaint {
    let names = SECTIONS.iter().map(|section| section.name);
    let hint = did_you_mean(name, names).unwrap_or_else(|| {
        let headers: Vec<String> = SECTIONS.iter().map(Section::header).collect();
        format!("The file may have {}.", headers.join(", "))
    });
    Complaint::new(format!("unknown section or key {}", quoted(name)), hint)
}

fn unknown_key(section: &'static Section, name: &str) -> Complaint {
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    let hint = did_you_mean(name, names.iter().copied())
        .unwrap_or_else(|| format!("{} may have: {}.", section.header(), names.join(", ")));
    Complaint::new(
        format!("unknown key {} in {}", quoted(name), section.header()),
        hint,
    )
}

fn not_a_table(section: &'static Section) -> Complaint {
    let header = section.header();
    Complaint::new(
        format!("\"{}\" must be written as a table {header}", section.name),
        format!("Put {header} on a line of its own, and its keys on the lines below it."),
    )
}
