//! Deriving a query's expressions from the columns of one rollup.
//!
//! Expressions come in over the rollup's own occurrences and go out over the columns of its table,
//! which are [`ROLLUP_OCCURRENCE`] with the column's position as its number, and those of what is kept
//! beside it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::block::Tables;
use crate::bucket::{self, Grain, with_operand};
use crate::catalog::{AttNum, ColumnType};
use crate::equivalence::Equivalence;
use crate::expr::{BinaryOp, ColumnRef, ColumnTypes, Literal, OccurrenceId, Scalar, TypeName};
use crate::implication::{Bound, as_bound};
use crate::premise::Premise;
use crate::print::expression;
use crate::reason::{Code, Reason};
use crate::rollup::{InstantForm, RollupDefinition, TimeKey};
use crate::scalar::quoted;
use crate::time::{self, Civil};
use crate::types;
use crate::volatility::may_raise;
use crate::zone::Zone;

/// The rollup's table in a rewritten statement: its only occurrence.
pub(crate) const ROLLUP_OCCURRENCE: OccurrenceId = OccurrenceId(0);

/// The column of the rollup's table at this position.
pub(crate) fn stored_column(position: usize) -> Scalar {
    Scalar::Column(ColumnRef {
        occurrence: ROLLUP_OCCURRENCE,
        attnum: AttNum(position as i16),
    })
}

/// What expressions may be derived from.
#[derive(Clone, Copy)]
pub(crate) struct Deriver<'a> {
    pub(crate) rollup: &'a RollupDefinition,
    /// The rollup's own base tables.
    pub(crate) tables: Tables<'a>,
    /// The session's.
    pub(crate) zone: Zone,
    /// What the query bounds on both sides, in canonical form: times that are not infinite.
    pub(crate) finite: &'a [Scalar],
    /// Instants that the query keeps to days in which all zones have whole quarters of an hour.
    pub(crate) recent: &'a [Scalar],
    /// What is taken for granted of clocks by what was derived so far.
    pub(crate) premises: &'a RefCell<BTreeSet<Premise>>,
    /// Which aggregates were derived so far whose last digits may differ from PostgreSQL's.
    pub(crate) approximate: &'a RefCell<BTreeSet<String>>,
}

/// A stored bucket of what a query names.
struct StoredBucket<'a> {
    key: &'a TimeKey,
    /// Its beginning, of the type of what is named.
    beginning: Scalar,
    /// What has to hold of clocks.
    premise: Option<Premise>,
}

/// What a constant means that a time is compared with.
struct Point {
    civil: Civil,
    /// It is an instant, at which the session's clocks show this.
    is_shown: bool,
}

/// A compared time as a timestamp.
#[derive(Debug, Clone)]
pub(crate) struct TimeOperand {
    pub(crate) timestamp: Scalar,
    /// What is compared is its day.
    pub(crate) is_day: bool,
    /// The values that it can have lie as far apart, in microseconds.
    pub(crate) resolution: i64,
}

/// The timestamp that a compared value is a day of, or is itself.
pub(crate) fn time_operand(operand: &Scalar, columns: &dyn ColumnTypes) -> Option<TimeOperand> {
    let to_timestamp = |date: Scalar| date.cast(TypeName::plain("timestamp", types::TIMESTAMP));
    let ty = types::type_of(operand, columns)?;
    match (ty.oid.0, operand) {
        (types::DATE, Scalar::Cast { operand: time, .. })
            if types::type_of(time, columns)?.oid.0 == types::TIMESTAMP =>
        {
            Some(TimeOperand {
                timestamp: (**time).clone(),
                is_day: true,
                resolution: time::DAY,
            })
        }
        (types::DATE, _) => Some(TimeOperand {
            timestamp: to_timestamp(operand.clone()),
            is_day: true,
            resolution: time::DAY,
        }),
        (types::TIMESTAMP | types::TIMESTAMPTZ, _) => Some(TimeOperand {
            timestamp: operand.clone(),
            is_day: false,
            resolution: time::resolution(ty.typmod),
        }),
        _ => None,
    }
}

/// Where a comparison with a constant turns from false to true or back: values from this point on are
/// decided alike, and so are those before.
pub(crate) fn turning_point(op: BinaryOp, constant: Civil, resolution: i64) -> Option<Civil> {
    let Civil(constant) = constant;
    let below = constant - constant.rem_euclid(resolution);
    match op {
        BinaryOp::GreaterOrEqual | BinaryOp::Less if below == constant => Some(Civil(constant)),
        BinaryOp::GreaterOrEqual | BinaryOp::Less => Some(Civil(below + resolution)),
        BinaryOp::Greater | BinaryOp::LessOrEqual => Some(Civil(below + resolution)),
        _ => None,
    }
}

/// The beginning of the bucket that a value of the key says, as a timestamp or as an instant.
pub(crate) fn beginning(key: &TimeKey, value: Scalar) -> Scalar {
    let beginning = match key.stored_as_date {
        true => value.cast(TypeName::plain("timestamp", types::TIMESTAMP)),
        false => value,
    };
    match key.instant {
        Some(InstantForm::Utc) => at_time_zone("UTC", beginning),
        Some(InstantForm::Instant) | None => beginning,
    }
}

impl TimeKey {
    fn stored_beginning(&self) -> Scalar {
        beginning(self, stored_column(self.position))
    }
}

pub(crate) fn at_time_zone(zone: &str, operand: Scalar) -> Scalar {
    Scalar::Call {
        name: "timezone",
        arguments: vec![Scalar::Literal(Literal::String(zone.to_owned())), operand],
    }
}

impl<'a> Deriver<'a> {
    fn classes(&self) -> &'a Equivalence {
        &self.rollup.classes
    }

    /// The value of an expression, constant within each row of the rollup.
    pub(crate) fn derive(&self, scalar: &Scalar) -> Result<Scalar, Reason> {
        if let Some(position) = self.key(scalar) {
            return Ok(stored_column(position));
        }
        if let Some(derived) = self.of_finer_bucket(scalar) {
            return Ok(derived);
        }
        match scalar {
            Scalar::Column(column) => match self
                .beside_rollup(*column)
                .or_else(|| self.constant(*column))
            {
                Some(known) => Ok(known),
                None => Err(self.missing(&self.tables.column_label(*column))),
            },
            Scalar::Aggregate(_) => {
                Err(Reason::new(Code::UnsupportedAggregate, self.label(scalar)))
            }
            other => other.try_map_children(&mut |child| self.derive(child)),
        }
    }

    /// A column of what is kept beside the rollup's table.
    fn beside_rollup(&self, column: ColumnRef) -> Option<Scalar> {
        let base = self.rollup.block.occurrences.len();
        let position = column.occurrence.0.checked_sub(base)?;
        Some(Scalar::Column(ColumnRef {
            occurrence: OccurrenceId(ROLLUP_OCCURRENCE.0 + 1 + position),
            ..column
        }))
    }

    /// The value that a column has in all rows behind the rollup, because its own filter asks for it. Values
    /// of these types that are equal to a constant are that constant, byte for byte.
    fn constant(&self, column: ColumnRef) -> Option<Scalar> {
        let ty = self.tables.column_type(column)?;
        let target = constant_type(ty)?;
        // A constant has the default collation.
        let is_alike = ty.collation == types::plain(target.oid).collation;
        let is_text = matches!(target.oid, types::TEXT | types::VARCHAR | types::BPCHAR);
        if !is_alike || (is_text && !self.tables.is_deterministic(ty.collation)) {
            return None;
        }
        let wanted = self.classes().canonical(&Scalar::Column(column));
        let predicates = self.rollup.canonical_predicates.iter();
        let mut bounds = predicates
            .filter_map(as_bound)
            .filter(|bound| bound.op == BinaryOp::Equal && *bound.operand == wanted);
        bounds.find_map(|bound| {
            is_value(bound.constant, &target).then(|| bound.constant.clone().cast(target.clone()))
        })
    }

    /// The position of the key that equals the expression in every row.
    fn key(&self, scalar: &Scalar) -> Option<usize> {
        let wanted = self.classes().canonical(scalar);
        self.rollup
            .keys()
            .find(|(_, key)| **key == wanted)
            .map(|(position, _)| position)
    }

    /// Functions of time that a finer bucket decides: they give the same for the bucket's beginning.
    fn of_finer_bucket(&self, scalar: &Scalar) -> Option<Scalar> {
        bucket::as_coarse(scalar, &self.tables).find_map(|coarse| {
            let buckets = self.buckets(coarse.operand);
            let bucket = buckets
                .iter()
                .find(|bucket| coarse.is_decided_by(bucket.key.grain))?;
            self.presume(bucket.premise.as_ref());
            Some(with_operand(scalar, coarse.operand, &bucket.beginning))
        })
    }

    /// The stored buckets that the value lies in: of itself, or of the instant at which clocks show it.
    fn buckets(&self, operand: &Scalar) -> Vec<StoredBucket<'a>> {
        let direct = self
            .time_keys(operand)
            .filter(|key| key.instant.is_none())
            .map(|key| StoredBucket {
                key,
                beginning: key.stored_beginning(),
                premise: None,
            });
        let (zone, instant, shown) = match bucket::as_local_time(operand, &self.tables) {
            Some((zone, instant)) => (Zone::named(zone), instant, Some(zone)),
            None => (self.zone, operand, None),
        };
        let instants = self.time_keys(instant).filter(|key| key.instant.is_some());
        let instants = instants.filter(|key| self.is_alike_in(zone, key));
        let instants = instants.map(|key| StoredBucket {
            key,
            beginning: match shown {
                Some(zone) => at_time_zone(zone, key.stored_beginning()),
                None => key.stored_beginning(),
            },
            premise: (zone != Zone::Utc).then(|| Premise::quarter_hours(shown)),
        });
        direct.chain(instants).collect()
    }

    fn presume(&self, premise: Option<&Premise>) {
        self.premises.borrow_mut().extend(premise.cloned());
    }

    /// Whether the buckets, which are UTC's, begin where the zone's clocks begin such buckets.
    fn is_alike_in(&self, zone: Zone, key: &TimeKey) -> bool {
        match zone {
            Zone::Utc => true,
            Zone::Named => {
                key.grain.nests_in(Grain::QUARTER_HOUR) && self.recent.contains(&key.operand)
            }
            Zone::Other => false,
        }
    }

    fn time_keys(&self, operand: &Scalar) -> impl Iterator<Item = &'a TimeKey> {
        let wanted = self.classes().canonical(operand);
        let is_finite = self.finite.contains(&wanted);
        self.rollup
            .time_keys
            .iter()
            .filter(move |key| key.operand == wanted && (is_finite || !key.loses_infinity))
    }

    /// A conjunct of WHERE or FILTER over the rollup's columns.
    pub(crate) fn predicate(&self, conjunct: &Scalar) -> Result<Scalar, Reason> {
        if may_raise(conjunct, &self.tables) {
            return Err(Reason::new(Code::MayRaise, self.label(conjunct)));
        }
        self.refuse_skipped_times(conjunct)?;
        match (self.derive(conjunct), conjunct) {
            (Ok(derived), _) => Ok(derived),
            // Each of them is TRUE, FALSE or NULL exactly where it was.
            (Err(_), Scalar::And(_) | Scalar::Or(_) | Scalar::Not(_)) => {
                conjunct.try_map_children(&mut |part| self.predicate(part))
            }
            (Err(refusal), _) => self.aligned_bound(conjunct).unwrap_or(Err(refusal)),
        }
    }

    /// A conjunct that may raise an error: over the very values that the base rows have.
    pub(crate) fn raising_predicate(&self, conjunct: &Scalar) -> Result<Scalar, Reason> {
        self.refuse_skipped_times(conjunct)?;
        self.derive(conjunct)
    }

    fn refuse_skipped_times(&self, conjunct: &Scalar) -> Result<(), Reason> {
        if self.zone != Zone::Utc && equates_zones(conjunct, &self.tables) {
            let detail = format!("{}: clocks may skip a time", self.label(conjunct));
            return Err(Reason::new(Code::UnsupportedExpression, detail));
        }
        Ok(())
    }

    /// A comparison with a constant decides a whole bucket alike when it changes its mind only where a bucket
    /// begins. `None` when the conjunct is not a bound on something that is stored in buckets.
    fn aligned_bound(&self, conjunct: &Scalar) -> Option<Result<Scalar, Reason>> {
        let Bound {
            operand,
            op,
            constant,
        } = as_bound(conjunct)?;
        let TimeOperand {
            timestamp,
            is_day,
            resolution,
        } = time_operand(operand, &self.tables)?;
        let buckets: Vec<StoredBucket<'_>> = self
            .buckets(&timestamp)
            .into_iter()
            .filter(|bucket| !is_day || bucket.key.grain.keeps_midnights())
            .collect();
        let Some(coarsest) = buckets.first() else {
            return self.cut_by_zone(conjunct, &timestamp).map(Err);
        };
        let turn = self
            .point(constant, &timestamp)
            .and_then(|Point { civil, is_shown }| {
                let civil = match constant {
                    // A text takes the type of what it is compared with, and a date cuts off the time.
                    constant if is_day && time::is_untyped(constant) => civil.midnight(),
                    _ => civil,
                };
                let turn = turning_point(op, civil, resolution)?;
                let premise = match is_shown {
                    true => Some(Premise::clocks_keep_side(op, constant, turn, is_day)?),
                    false => None,
                };
                Some((turn, premise))
            });
        let aligned = turn.and_then(|(turn, premise)| {
            let mut buckets = buckets.iter();
            let found = buckets.find(|bucket| bucket.key.grain.begins_at(turn))?;
            self.presume(premise.as_ref());
            Some(found)
        });
        let Some(StoredBucket {
            key,
            beginning,
            premise,
        }) = aligned
        else {
            let detail = format!(
                "{}: the rollup keeps {}",
                self.label(conjunct),
                coarsest.key.grain.name()
            );
            return Some(Err(Reason::new(Code::BucketUnaligned, detail)));
        };
        self.presume(premise.as_ref());
        let beginning = match (is_day, key.stored_as_date) {
            (true, true) => stored_column(key.position),
            (true, false) => beginning.clone().cast(TypeName::plain("date", types::DATE)),
            (false, _) => beginning.clone(),
        };
        Some(Ok(Scalar::binary(op, beginning, constant.clone())))
    }

    /// The refusal where what is named is stored in buckets, but in others than those of the session's clocks.
    fn cut_by_zone(&self, conjunct: &Scalar, instant: &Scalar) -> Option<Reason> {
        let key = self.time_keys(instant).find(|key| key.instant.is_some())?;
        let detail = format!(
            "{}: the rollup keeps {} of UTC",
            self.label(conjunct),
            key.grain.name()
        );
        Some(Reason::new(Code::BucketUnaligned, detail))
    }

    /// What clocks show at the constant: those of the session when it is an instant.
    fn point(&self, constant: &Scalar, operand: &Scalar) -> Option<Point> {
        let is_instant =
            types::type_of(operand, &self.tables).is_some_and(|ty| ty.oid.0 == types::TIMESTAMPTZ);
        let is_alike = is_instant || self.zone == Zone::Utc;
        let point = time::constant(constant, is_alike);
        let point = match is_instant {
            // In UTC, where buckets begin alike.
            true => point.or_else(|| time::constant_in_utc(constant)),
            false => point,
        };
        let alike = point.map(|civil| Point {
            civil,
            is_shown: false,
        });
        let shown = || {
            let civil = time::constant(constant, true)?;
            // What is bound to a parameter is not there when PostgreSQL is asked about its clocks.
            let is_written = !constant.any(&|node| matches!(node, Scalar::Parameter(_)));
            (self.zone == Zone::Named && !is_alike && is_written).then_some(Point {
                civil,
                is_shown: true,
            })
        };
        alike.or_else(shown)
    }

    fn missing(&self, what: &str) -> Reason {
        Reason::new(Code::DimensionMissing, what)
    }

    /// The expression in the base tables' names, for people.
    pub(crate) fn label(&self, scalar: &Scalar) -> String {
        quoted(&expression(scalar, &|column: ColumnRef| {
            self.tables.column_label(column)
        }))
    }
}

/// The type to give a constant that a column of this type is equal to, where that makes it the column's value.
fn constant_type(ty: ColumnType) -> Option<TypeName> {
    let characters = ty.typmod - 4;
    Some(match (ty.oid.0, ty.typmod) {
        (types::TEXT, _) => TypeName::plain("text", types::TEXT),
        (types::VARCHAR, -1) => TypeName::plain("varchar", types::VARCHAR),
        (types::VARCHAR, typmod) => TypeName {
            sql: format!("varchar({characters})"),
            oid: types::VARCHAR,
            typmod,
        },
        // Padded to its length, of which blanks are no part.
        (types::BPCHAR, typmod) if typmod >= 0 => TypeName {
            sql: format!("char({characters})"),
            oid: types::BPCHAR,
            typmod,
        },
        (types::INT2, _) => TypeName::plain("smallint", types::INT2),
        (types::INT4, _) => TypeName::plain("integer", types::INT4),
        (types::INT8, _) => TypeName::plain("bigint", types::INT8),
        (types::DATE, _) => TypeName::plain("date", types::DATE),
        (types::TIMESTAMP, -1) => TypeName::plain("timestamp", types::TIMESTAMP),
        _ => return None,
    })
}

/// Whether the constant is read as a value of the type in every session, and is not rounded.
fn is_value(constant: &Scalar, target: &TypeName) -> bool {
    match (constant, target.oid) {
        (Scalar::Literal(Literal::String(_)), types::TEXT | types::VARCHAR | types::BPCHAR) => true,
        (Scalar::Literal(Literal::Number(digits)), types::INT2 | types::INT4 | types::INT8) => {
            digits.parse::<i64>().is_ok()
        }
        (Scalar::Literal(Literal::String(text)), types::DATE | types::TIMESTAMP) => {
            Civil::parse(text).is_some()
        }
        (Scalar::Cast { operand, to }, types::DATE | types::TIMESTAMP) => {
            to.oid == target.oid && is_value(operand, target)
        }
        _ => false,
    }
}

/// Whether a time with zone is compared for equality with one without. Where clocks skip an hour two times
/// without zone are equal to one with, while PostgreSQL's planner takes such equals for one another: its
/// groups then depend on its plan.
fn equates_zones(conjunct: &Scalar, tables: &Tables<'_>) -> bool {
    let oid = |scalar: &Scalar| types::type_of(scalar, tables).map(|ty| ty.oid.0);
    let differ = |left: &Scalar, right: &Scalar| {
        let is_local = |oid| matches!(oid, Some(types::TIMESTAMP | types::DATE));
        match (oid(left), oid(right)) {
            (Some(types::TIMESTAMPTZ), other) | (other, Some(types::TIMESTAMPTZ)) => {
                is_local(other)
            }
            _ => false,
        }
    };
    conjunct.any(&|node| match node {
        Scalar::Binary {
            op: BinaryOp::Equal,
            left,
            right,
        } => differ(left, right),
        Scalar::In { operand, list, .. } => list.iter().any(|item| differ(operand, item)),
        _ => false,
    })
}
