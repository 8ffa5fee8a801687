//! The statements of a fold, from the pieces of the plan.

use super::{FoldKey, FoldOccurrence, FoldPartial, FoldPlan, KEY_FATE, PartialKind, SIGN};
use crate::print::quote_identifier;

/// The rows of one occurrence that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The table that holds them: the occurrence's columns and [`SIGN`]; also [`KEY_FATE`] if
    /// `has_fates`. Quoted.
    pub staged: String,
    /// Whether it is known of each row what became of the key that others refer to.
    pub has_fates: bool,
}

/// How many groups changed, by what has to be done for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups {
    /// All of them.
    pub all: u64,
    /// To be computed from the base tables.
    pub recomputed: u64,
    /// To be taken out: they have no rows any more.
    pub emptied: u64,
    /// To be added to.
    pub kept: u64,
    /// To be put in.
    pub new: u64,
    /// With fewer rows than none. Nothing can be done for them: the rollup was wrong before.
    pub impossible: u64,
}

/// Of a group in the table of deltas, that it is one of those. A group that came and went again is none of them.
const IS_EMPTIED: &str = "place IS NOT NULL AND is_emptied";
const IS_KEPT: &str = "place IS NOT NULL AND NOT is_emptied";
const IS_NEW: &str = "place IS NULL AND NOT is_emptied";

/// Where an occurrence's rows come from in one term.
enum Source<'a> {
    /// As the snapshot sees it.
    Now,
    /// As it was before these changes.
    Before(&'a Changed),
    /// These changes.
    Delta(&'a Changed, Option<&'a str>),
    /// These changes taken back.
    Undone(&'a Changed),
}

impl Source<'_> {
    fn has_sign(&self) -> bool {
        !matches!(self, Source::Now)
    }
}

impl FoldPlan {
    /// Creates the session's table for a rollup's deltas, from the rollup's own table. Names quoted.
    pub fn create_delta(&self, delta: &str, rollup: &str) -> String {
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(at, key)| format!("r.{} AS k{at}", key.name));
        let partials = self.partials.iter().enumerate();
        let partials = partials.flat_map(|(at, partial)| {
            let leaving = partial
                .is_extreme()
                .then(|| format!("r.{} AS e{at}", partial.name));
            [format!("r.{} AS d{at}", partial.name)]
                .into_iter()
                .chain(leaving)
        });
        let columns: Vec<String> = keys.chain(partials).collect();
        format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {delta} AS SELECT {}, \
             0::bigint AS negative, r.ctid AS place, false AS is_recomputed, false AS is_emptied, false AS is_impossible \
             FROM {rollup} AS r WITH NO DATA",
            columns.join(", ")
        )
    }

    /// The statements that fill the table of deltas, one row for each group that changed. `changed` goes
    /// with `occurrences`.
    pub fn delta(&self, changed: &[Option<Changed>], delta: &str, rollup: &str) -> Vec<String> {
        let terms: Vec<String> = self.terms(changed).collect();
        let linear = (!terms.is_empty()).then(|| self.sum_terms(&terms, delta, rollup));
        let touched = self.touched(changed);
        let mut statements: Vec<String> = linear.into_iter().collect();
        if !touched.is_empty() {
            statements.push(self.mark_touched(&touched, delta));
            // What was summed up for them, a number of rows that left among it, does not matter.
            statements.push(format!(
                "DELETE FROM {delta} AS d USING {delta} AS r WHERE r.negative IS NULL \
                 AND d.negative IS NOT NULL AND {}",
                self.is_same_delta()
            ));
        }
        statements
    }

    fn sum_terms(&self, terms: &[String], delta: &str, rollup: &str) -> String {
        let mut columns: Vec<String> = (0..self.keys.len()).map(|at| format!("k{at}")).collect();
        let keys = columns.join(", ");
        let mut values = columns.clone();
        for (at, partial) in self.partials.iter().enumerate() {
            if let Some(change) = partial.change(at) {
                columns.push(format!("d{at}"));
                values.push(format!("{change} AS d{at}"));
            }
            if let Some(leaving) = partial.leaving(at) {
                columns.push(format!("e{at}"));
                values.push(format!("{leaving} AS e{at}"));
            }
        }
        values.push("count(*) FILTER (WHERE s < 0) AS negative".to_owned());
        columns.push("negative".to_owned());
        let group_by = match keys.as_str() {
            "" => String::new(),
            keys => format!(" GROUP BY {keys}"),
        };
        let from = terms.join(" UNION ALL ");
        let rows = format!("coalesce(r.{}, 0) + d.d{}", self.rows_name(), self.rows);
        let grouped = format!("SELECT {} FROM ({from}) AS t{group_by}", values.join(", "));
        let list = columns.join(", ");
        let picked: Vec<String> = columns.iter().map(|column| format!("d.{column}")).collect();
        format!(
            "INSERT INTO {delta} ({list}, place, is_recomputed, is_emptied, is_impossible) \
             SELECT {}, r.ctid, {}, {}, {rows} < 0 \
             FROM ({grouped}) AS d LEFT JOIN {rollup} AS r ON {} WHERE {}",
            picked.join(", "),
            self.needs_recomputing(),
            // The one group over everything stays, also when it is empty.
            match self.keys.is_empty() {
                true => "false".to_owned(),
                false => format!("{rows} = 0"),
            },
            self.is_same_group(),
            self.is_a_change(),
        )
    }

    fn mark_touched(&self, touched: &[String], delta: &str) -> String {
        let keys: String = (0..self.keys.len()).map(|at| format!("k{at}, ")).collect();
        let distinct = match self.keys.is_empty() {
            // Any row at all touches the one group.
            true => format!(
                "SELECT true, false, false FROM ({}) AS t LIMIT 1",
                touched.join(" UNION ALL ")
            ),
            false => format!(
                "SELECT DISTINCT {keys}true, false, false FROM ({}) AS t",
                touched.join(" UNION ALL ")
            ),
        };
        format!("INSERT INTO {delta} ({keys}is_recomputed, is_emptied, is_impossible) {distinct}")
    }

    /// One SELECT of groups for each left-joined table that changed, and for each way in which its row
    /// may have been part of them: as itself, or as the NULLs that stood in for it. A group too many does
    /// no harm.
    fn touched(&self, changed: &[Option<Changed>]) -> Vec<String> {
        let each = self.occurrences.iter().enumerate();
        let left = each.filter(|(_, occurrence)| occurrence.left_condition.is_some());
        left.filter_map(|(at, _)| changed.get(at)?.as_ref().map(|_| at))
            .flat_map(|at| {
                [
                    self.touched_by(at, false, changed),
                    self.touched_by(at, true, changed),
                ]
            })
            .collect()
    }

    fn touched_by(&self, at: usize, as_nulls: bool, changed: &[Option<Changed>]) -> String {
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(at, key)| format!("{} AS k{at}", key.expression));
        let keys: Vec<String> = keys.collect();
        let changed_at = |at: usize| changed.get(at).and_then(Option::as_ref);
        let mut conditions: Vec<String> = self.predicates.iter().cloned().collect();
        let mut inner: Vec<String> = vec![];
        let mut left = String::new();
        for (position, occurrence) in self.occurrences.iter().enumerate() {
            let alias = &occurrence.alias;
            let changed = changed_at(position);
            let now_and_before = match changed {
                Some(changed) => occurrence.now_and_before(changed),
                None => occurrence.table.clone(),
            };
            match (&occurrence.left_condition, changed) {
                (None, _) => inner.push(format!("{now_and_before} AS {alias}")),
                (Some(condition), Some(changed)) if position == at => {
                    let staged = &changed.staged;
                    if as_nulls {
                        left += &format!(" LEFT JOIN {staged} AS {alias} ON false");
                        conditions.push(format!(
                            "EXISTS (SELECT FROM {staged} AS {alias} WHERE {condition})"
                        ));
                    } else {
                        left += &format!(" JOIN {staged} AS {alias} ON {condition}");
                    }
                }
                (Some(condition), Some(changed)) => {
                    let columns = occurrence.column_list(&format!("{alias}."));
                    left += &format!(
                        " CROSS JOIN LATERAL (SELECT {columns} FROM {now_and_before} AS {alias} WHERE {condition} \
                         UNION ALL SELECT {columns} FROM (SELECT) AS one LEFT JOIN {} AS {alias} ON false) AS {alias}",
                        changed.staged
                    );
                }
                (Some(condition), None) => {
                    left += &format!(" LEFT JOIN {now_and_before} AS {alias} ON {condition}");
                }
            }
        }
        let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
        format!(
            "SELECT {} FROM {}{left}{}",
            keys.join(", "),
            inner.join(" CROSS JOIN "),
            condition(&conditions)
        )
    }

    /// Whether `r` and `d`, both of the table of deltas, are one group.
    fn is_same_delta(&self) -> String {
        if self.keys.is_empty() {
            return "TRUE".to_owned();
        }
        let of = |row: &str| {
            let names = (0..self.keys.len()).map(|at| format!("{row}.k{at}"));
            key_hash(&names.collect::<Vec<_>>())
        };
        let equal = self.keys.iter().enumerate();
        let equal = equal.map(|(at, key)| format!("r.k{at} {} d.k{at}", key.equality()));
        let equal: Vec<String> = equal.collect();
        format!("{} = {} AND {}", of("r"), of("d"), equal.join(" AND "))
    }

    /// Asks how many groups changed: one row, with the fields of [`Groups`] in their order.
    pub fn count_delta(&self, delta: &str) -> String {
        let merged =
            |condition: &str| format!("count(*) FILTER (WHERE NOT is_recomputed AND {condition})");
        format!(
            "SELECT count(*), count(*) FILTER (WHERE is_recomputed), {}, {}, {}, \
             count(*) FILTER (WHERE is_impossible) FROM {delta}",
            merged(IS_EMPTIED),
            merged(IS_KEPT),
            merged(IS_NEW)
        )
    }

    /// Brings the groups up to date that need not be recomputed. In the snapshot and transaction of [`delta`](Self::delta): a
    /// group is found where it was found then, which is where it stays for as long as nobody else writes to the rollup, or
    /// locks it out.
    pub fn merge(&self, groups: &Groups, delta: &str, rollup: &str) -> Vec<String> {
        let those = |condition: &str| {
            format!("(SELECT * FROM {delta} WHERE NOT is_recomputed AND {condition}) AS d")
        };
        let at_its_place = "r.ctid = d.place";
        let delete = || {
            format!(
                "DELETE FROM {rollup} AS r USING {} WHERE {at_its_place}",
                those(IS_EMPTIED)
            )
        };
        let update = || {
            let partials = self.partials.iter().enumerate();
            let set = partials
                .map(|(at, partial)| format!("{} = {}", partial.name, self.merged(at, partial)));
            let set: Vec<String> = set.collect();
            format!(
                "UPDATE {rollup} AS r SET {} FROM {} WHERE {at_its_place}",
                set.join(", "),
                those(IS_KEPT)
            )
        };
        let insert = || {
            let keys = (0..self.keys.len()).map(|at| format!("d.k{at}"));
            let partials = self.partials.iter().enumerate();
            let partials = partials.map(|(at, partial)| self.first(at, partial));
            let values: Vec<String> = keys.chain(partials).collect();
            format!(
                "INSERT INTO {rollup} ({}) SELECT {} FROM {}",
                self.column_names().join(", "),
                values.join(", "),
                those(IS_NEW)
            )
        };
        let delete = (groups.emptied > 0).then(delete);
        let update = (groups.kept > 0).then(update);
        let insert = (groups.new > 0).then(insert);
        delete.into_iter().chain(update).chain(insert).collect()
    }

    /// Takes out the groups that are recomputed.
    pub fn delete_recomputed(&self, delta: &str, rollup: &str) -> String {
        format!(
            "DELETE FROM {rollup} AS r USING {delta} AS d WHERE d.is_recomputed AND {}",
            self.is_same_group()
        )
    }

    /// Computes those groups from the base tables.
    pub fn insert_recomputed(&self, delta: &str, rollup: &str) -> String {
        let keys = self.keys.iter().map(|key| key.expression.clone());
        let partials = self
            .partials
            .iter()
            .map(|partial| partial.aggregate.clone());
        let items: Vec<String> = keys.chain(partials).collect();
        let groups: Vec<String> = (0..self.keys.len()).map(|at| format!("k{at}")).collect();
        let groups = match groups.is_empty() {
            true => String::new(),
            false => format!(
                "(SELECT DISTINCT {} FROM {delta} WHERE is_recomputed) AS pgstar_group, ",
                groups.join(", ")
            ),
        };
        let wanted = self.is_wanted_group();
        let predicates = self.predicates.as_deref().into_iter();
        let conditions: Vec<&str> = predicates.chain(wanted.as_deref()).collect();
        format!(
            "INSERT INTO {rollup} ({}) SELECT {} FROM {groups}{}{}{}",
            self.column_names().join(", "),
            items.join(", "),
            self.tables_now(),
            condition(&conditions),
            self.group_by()
        )
    }

    /// The tables as they are joined.
    pub(super) fn tables_now(&self) -> String {
        self.from(&|_: usize| Source::Now)
    }

    /// Groups what is selected, keys first.
    pub(super) fn group_by(&self) -> String {
        let positions: Vec<String> = (1..=self.keys.len()).map(|at| at.to_string()).collect();
        match positions.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", positions.join(", ")),
        }
    }

    pub(super) fn column_names(&self) -> Vec<&str> {
        let keys = self.keys.iter().map(|key| key.name.as_str());
        let partials = self.partials.iter().map(|partial| partial.name.as_str());
        keys.chain(partials).collect()
    }

    fn rows_name(&self) -> &str {
        self.partials
            .get(self.rows)
            .map_or("", |partial| partial.name.as_str())
    }

    /// One SELECT of rows for each table that changed.
    fn terms(&self, changed: &[Option<Changed>]) -> impl Iterator<Item = String> {
        let changed_at = |at: usize| changed.get(at).and_then(Option::as_ref);
        let each = self.occurrences.iter().enumerate();
        each.flat_map(move |(at, occurrence)| {
            let is_inner = occurrence.left_condition.is_none();
            let Some(delta) = changed_at(at).filter(|_| is_inner) else {
                return vec![];
            };
            let is_inner = |other: usize| {
                let other = self.occurrences.get(other);
                other.is_some_and(|other| other.left_condition.is_none())
            };
            // Groups that a change of a left-joined table touches are recomputed, so for all others it
            // is as if it had been like this before.
            let before = |other: usize| match changed_at(other) {
                Some(changed) if other > at && is_inner(other) => Source::Before(changed),
                Some(_) | None => Source::Now,
            };
            let whole = |fate: Option<&'static str>| {
                self.term(&|other| match other == at {
                    true => Source::Delta(delta, fate),
                    false => before(other),
                })
            };
            let Some(key) = occurrence.referenced.as_ref().filter(|_| delta.has_fates) else {
                return vec![whole(None)];
            };
            // Before these changes nothing could refer to a key that is new. Now nothing can refer to a
            // key that is gone, so what did is among the changes.
            let gone = changed_at(key.by).map(|referring| {
                self.term(&|other| match other {
                    other if other == at => Source::Delta(delta, Some("-1")),
                    other if other == key.by => Source::Undone(referring),
                    other => before(other),
                })
            });
            std::iter::once(whole(Some("0"))).chain(gone).collect()
        })
    }

    /// The rows of one term: keys, sign, arguments.
    fn term<'a>(&self, source: &dyn Fn(usize) -> Source<'a>) -> String {
        let signs: Vec<String> = self
            .occurrences
            .iter()
            .enumerate()
            .filter(|(at, _)| source(*at).has_sign())
            .map(|(_, occurrence)| format!("{}.{SIGN}", occurrence.alias))
            .collect();
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(at, key)| format!("{} AS k{at}", key.expression));
        let sign = format!("{} AS s", signs.join(" * "));
        let arguments = self.partials.iter().enumerate();
        let arguments = arguments
            .filter(|(_, partial)| partial.kind.reads_its_argument())
            .map(|(at, partial)| format!("{} AS a{at}", partial.argument));
        let items: Vec<String> = keys.chain([sign]).chain(arguments).collect();
        let predicates: Vec<&str> = self.predicates.as_deref().into_iter().collect();
        format!(
            "SELECT {} FROM {}{}",
            items.join(", "),
            self.from(source),
            condition(&predicates)
        )
    }

    fn from<'a>(&self, source: &dyn Fn(usize) -> Source<'a>) -> String {
        let mention = |at: usize, occurrence: &FoldOccurrence| {
            format!("{} AS {}", occurrence.rows(&source(at)), occurrence.alias)
        };
        let all = || self.occurrences.iter().enumerate();
        let inner: Vec<String> = all()
            .filter(|(_, occurrence)| occurrence.left_condition.is_none())
            .map(|(at, occurrence)| mention(at, occurrence))
            .collect();
        let left = all().filter_map(|(at, occurrence)| {
            let condition = occurrence.left_condition.as_ref()?;
            Some(format!(
                " LEFT JOIN {} ON {condition}",
                mention(at, occurrence)
            ))
        });
        inner.join(" CROSS JOIN ") + &left.collect::<String>()
    }

    /// Whether `r` and `d` are one group: the equality of GROUP BY, with an index on the hash.
    fn is_same_group(&self) -> String {
        if self.keys.is_empty() {
            return "TRUE".to_owned();
        }
        let of = |row: &str, name: &dyn Fn(usize) -> String| {
            let names: Vec<String> = (0..self.keys.len())
                .map(|at| format!("{row}.{}", name(at)))
                .collect();
            key_hash(&names)
        };
        let stored = |at: usize| {
            self.keys
                .get(at)
                .map_or(String::new(), |key| key.name.clone())
        };
        let hashes = [of("r", &stored), of("d", &|at| format!("k{at}"))];
        let equal = self
            .keys
            .iter()
            .enumerate()
            .map(|(at, key)| format!("r.{} {} d.k{at}", key.name, key.equality()));
        let equal: Vec<String> = equal.collect();
        format!("{} AND {}", hashes.join(" = "), equal.join(" AND "))
    }

    /// Whether a row of the base tables belongs to a group that is recomputed.
    fn is_wanted_group(&self) -> Option<String> {
        if self.keys.is_empty() {
            return None;
        }
        let mut conditions: Vec<String> = vec![];
        let varying = || {
            self.keys
                .iter()
                .enumerate()
                .filter(|(_, key)| !key.is_constant)
        };
        let needs_hash = varying().all(|(_, key)| !key.is_not_null);
        let base: Vec<String> = varying()
            .map(|(_, key)| format!("({})", key.expression))
            .collect();
        let group: Vec<String> = varying()
            .map(|(at, _)| format!("pgstar_group.k{at}"))
            .collect();
        if needs_hash && !base.is_empty() {
            conditions.push(format!("{} = {}", key_hash(&base), key_hash(&group)));
        }
        for (at, key) in self.keys.iter().enumerate() {
            conditions.push(format!(
                "({}) {} pgstar_group.k{at}",
                key.expression,
                key.equality()
            ));
        }
        Some(conditions.join(" AND "))
    }

    fn needs_recomputing(&self) -> String {
        let reasons: Vec<String> = self
            .partials
            .iter()
            .enumerate()
            .filter_map(|(at, partial)| partial.needs_recomputing(at))
            .collect();
        match reasons.is_empty() {
            true => "false".to_owned(),
            false => reasons.join(" OR "),
        }
    }

    /// Whether anything about the group may be different.
    fn is_a_change(&self) -> String {
        let changes: Vec<String> = self
            .partials
            .iter()
            .enumerate()
            .map(|(at, partial)| match partial.kind {
                // 1.5 and 1.50 are equal, and their sums print differently.
                PartialKind::Sum {
                    is_subtractable: false,
                    ..
                } => "d.negative > 0".to_owned(),
                PartialKind::Rows | PartialKind::Count | PartialKind::Sum { .. } => {
                    format!("d.d{at} <> 0")
                }
                PartialKind::Least(_) | PartialKind::Greatest(_) => {
                    format!("d.d{at} IS NOT NULL OR d.e{at} IS NOT NULL")
                }
                PartialKind::Opaque => "TRUE".to_owned(),
            })
            .collect();
        format!("({})", changes.join(" OR "))
    }

    /// The new value of a partial of a group that is there.
    fn merged(&self, at: usize, partial: &FoldPartial) -> String {
        let name = &partial.name;
        match partial.kind {
            PartialKind::Rows | PartialKind::Count => format!("r.{name} + d.d{at}"),
            PartialKind::Sum { count, .. } => {
                let counted = self
                    .partials
                    .get(count)
                    .map_or("", |partial| partial.name.as_str());
                format!(
                    "CASE WHEN r.{counted} + d.d{count} = 0 THEN NULL ELSE coalesce(r.{name}, 0) + d.d{at} END"
                )
            }
            PartialKind::Least(_) => format!("least(r.{name}, d.d{at})"),
            PartialKind::Greatest(_) => format!("greatest(r.{name}, d.d{at})"),
            PartialKind::Opaque => format!("r.{name}"),
        }
    }

    /// Its value in a group that was not there.
    fn first(&self, at: usize, partial: &FoldPartial) -> String {
        match partial.kind {
            PartialKind::Sum { count, .. } => {
                format!("CASE WHEN d.d{count} = 0 THEN NULL ELSE d.d{at} END")
            }
            _ => format!("d.d{at}"),
        }
    }
}

pub(super) fn condition(conjuncts: &[&str]) -> String {
    match conjuncts.is_empty() {
        true => String::new(),
        false => format!(" WHERE ({})", conjuncts.join(") AND (")),
    }
}

/// One number for all of a group's keys, NULL or not: an index and a hash join need an equality.
pub(crate) fn key_hash(keys: &[String]) -> String {
    format!("hash_record_extended(ROW({}), 0)", keys.join(", "))
}

impl FoldKey {
    fn equality(&self) -> &'static str {
        match self.is_not_null {
            true => "=",
            false => "IS NOT DISTINCT FROM",
        }
    }
}

impl FoldOccurrence {
    fn column_list(&self, prefix: &str) -> String {
        let columns = self.columns.iter();
        let names = columns.map(|column| format!("{prefix}{}", quote_identifier(&column.name)));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Every row that is there or was, some of them twice.
    fn now_and_before(&self, changed: &Changed) -> String {
        let columns = self.column_list("");
        format!(
            "(SELECT {columns} FROM {} UNION ALL SELECT {columns} FROM {})",
            self.table, changed.staged
        )
    }

    fn rows(&self, source: &Source<'_>) -> String {
        let columns: String = self
            .columns
            .iter()
            .map(|column| format!("{}, ", quote_identifier(&column.name)))
            .collect();
        match source {
            Source::Now => self.table.clone(),
            Source::Before(changed) => format!(
                "(SELECT {columns}1 AS {SIGN} FROM {} UNION ALL SELECT {columns}- {SIGN} FROM {})",
                self.table, changed.staged
            ),
            Source::Delta(changed, None) => changed.staged.clone(),
            Source::Delta(changed, Some(fate)) => {
                format!(
                    "(SELECT * FROM {} WHERE {KEY_FATE} = {fate})",
                    changed.staged
                )
            }
            Source::Undone(changed) => {
                format!(
                    "(SELECT {columns}- {SIGN} AS {SIGN} FROM {})",
                    changed.staged
                )
            }
        }
    }
}

impl PartialKind {
    fn reads_its_argument(self) -> bool {
        match self {
            PartialKind::Rows | PartialKind::Opaque => false,
            PartialKind::Count
            | PartialKind::Sum { .. }
            | PartialKind::Least(_)
            | PartialKind::Greatest(_) => true,
        }
    }
}

impl FoldPartial {
    fn is_extreme(&self) -> bool {
        self.extreme().is_some()
    }

    fn extreme(&self) -> Option<&'static str> {
        match self.kind {
            PartialKind::Least(function) | PartialKind::Greatest(function) => {
                Some(function.as_str())
            }
            PartialKind::Rows
            | PartialKind::Count
            | PartialKind::Sum { .. }
            | PartialKind::Opaque => None,
        }
    }

    /// What the changes add up to; for an extreme, that of the rows that came.
    fn change(&self, at: usize) -> Option<String> {
        let change = match self.kind {
            PartialKind::Rows => "coalesce(sum(s), 0)".to_owned(),
            PartialKind::Count => {
                // Of a composite value IS NOT NULL asks whether its fields are.
                format!("coalesce(sum(s) FILTER (WHERE a{at} IS DISTINCT FROM NULL), 0)")
            }
            PartialKind::Sum { .. } => format!(
                "coalesce(sum(a{at}) FILTER (WHERE s > 0), 0) - coalesce(sum(a{at}) FILTER (WHERE s < 0), 0)"
            ),
            PartialKind::Least(function) | PartialKind::Greatest(function) => {
                format!("{}(a{at}) FILTER (WHERE s > 0)", function.as_str())
            }
            PartialKind::Opaque => return None,
        };
        Some(change)
    }

    /// That of the rows that went.
    fn leaving(&self, at: usize) -> Option<String> {
        let function = self.extreme()?;
        Some(format!("{function}(a{at}) FILTER (WHERE s < 0)"))
    }

    fn needs_recomputing(&self, at: usize) -> Option<String> {
        let name = &self.name;
        match self.kind {
            PartialKind::Rows | PartialKind::Count => None,
            PartialKind::Sum {
                is_subtractable: false,
                ..
            } => Some("d.negative > 0".to_owned()),
            // NaN and the infinities do not go away by subtraction.
            PartialKind::Sum {
                is_numeric: true, ..
            } => Some(format!(
                "(d.negative > 0 AND (d.d{at} IN ('NaN', 'Infinity', '-Infinity') \
                 OR coalesce(r.{name}, 0) IN ('NaN', 'Infinity', '-Infinity')))"
            )),
            PartialKind::Sum { .. } => None,
            // What went may have been the extreme, unless something is beyond it that did not go.
            PartialKind::Least(_) => Some(format!(
                "(d.e{at} IS NOT NULL AND (d.e{at} <= least(r.{name}, d.d{at})) IS NOT FALSE)"
            )),
            PartialKind::Greatest(_) => Some(format!(
                "(d.e{at} IS NOT NULL AND (d.e{at} >= greatest(r.{name}, d.d{at})) IS NOT FALSE)"
            )),
            PartialKind::Opaque => Some("true".to_owned()),
        }
    }
}
