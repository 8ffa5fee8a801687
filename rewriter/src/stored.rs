//! Which columns a rollup's table has: the group keys, and what aggregates are derived from.

use crate::aggregate::has_few_digits;
use crate::approximate::{Floats, approximate_type, as_double, as_exact};
use crate::block::{Block, Tables};
use crate::catalog::ColumnType;
use crate::exact::{prints_exactly, reads_loose_text};
use crate::expr::{Aggregate, AggregateFunction, BinaryOp, Scalar, TypeName};
use crate::print::expression;
use crate::reason::{Code, Reason};
use crate::rollup::{Stored, StoredColumn, label};
use crate::types;

/// Collects columns under names that are unique in the table.
struct ColumnList<'a> {
    columns: Vec<StoredColumn>,
    tables: Tables<'a>,
    floats: Floats,
}

/// The columns, in their order.
pub(crate) fn stored_columns(
    block: &Block,
    tables: Tables<'_>,
    floats: Floats,
) -> Result<Vec<StoredColumn>, Reason> {
    let mut list = ColumnList {
        columns: vec![],
        tables,
        floats,
    };
    for key in &block.group_by {
        list.key(key, block)?;
    }
    let rows = Aggregate::plain(AggregateFunction::Count, None);
    list.partial(rows, "row_count")?;
    for output in &block.outputs {
        list.output(&output.name, &output.value, block)?;
    }
    Ok(list.columns)
}

impl ColumnList<'_> {
    fn key(&mut self, key: &Scalar, block: &Block) -> Result<(), Reason> {
        let is_known = |column: &StoredColumn| column.stored == Stored::Key(key.clone());
        if self.columns.iter().any(is_known) {
            return Ok(());
        }
        let ty = types::type_of(key, &self.tables).ok_or_else(|| {
            Reason::new(
                Code::UnsupportedExpression,
                format!("the type of key {} is not known", label(key, self.tables)),
            )
        })?;
        if !prints_exactly(key, &self.tables) {
            let detail = format!(
                "key {} has a type whose equal values may print differently",
                label(key, self.tables)
            );
            return Err(Reason::new(Code::UnsupportedExpression, detail));
        }
        let output = block.outputs.iter().find(|output| output.value == *key);
        let own_name = match key {
            Scalar::Column(column) => self
                .tables
                .relation(column.occurrence)
                .and_then(|relation| relation.column_at(column.attnum)),
            _ => None,
        };
        let name = output
            .map(|output| output.name.clone())
            .or(own_name.map(|column| column.name.clone()));
        self.push(
            name.unwrap_or_else(|| "key".to_owned()),
            Stored::Key(key.clone()),
            ty,
        );
        Ok(())
    }

    fn output(&mut self, name: &str, value: &Scalar, block: &Block) -> Result<(), Reason> {
        if block.group_by.contains(value) {
            return Ok(());
        }
        match value {
            Scalar::Aggregate(aggregate) => self.aggregate(aggregate, Some(name)),
            Scalar::Column(_) => {
                let detail = format!(
                    "{} must be in GROUP BY to be stored",
                    label(value, self.tables)
                );
                Err(Reason::new(Code::UnsupportedExpression, detail))
            }
            _ => value
                .children()
                .into_iter()
                .try_for_each(|child| self.output_part(child, block)),
        }
    }

    fn output_part(&mut self, part: &Scalar, block: &Block) -> Result<(), Reason> {
        match part {
            Scalar::Aggregate(aggregate) => self.aggregate(aggregate, None),
            other => self.output("", other, block),
        }
    }

    /// Stores what the aggregate can be derived from: at any coarser grain where that is possible.
    fn aggregate(&mut self, aggregate: &Aggregate, name: Option<&str>) -> Result<(), Reason> {
        let aggregate = without_needless_distinct(aggregate.clone());
        let subject = types::subject(&aggregate).map(|subject| sanitized(subject, self.tables));
        let base = subject.unwrap_or_else(|| "rows".to_owned());
        let default_name = |function: AggregateFunction| format!("{}_{base}", function.as_str());
        let own_name = match name {
            Some(name) if name != aggregate.function.as_str() && !name.is_empty() => {
                name.to_owned()
            }
            _ if types::subject(&aggregate).is_none() => name.unwrap_or("count").to_owned(),
            _ => default_name(aggregate.function),
        };
        let Some(argument) = aggregate.argument.as_ref().filter(|_| !aggregate.distinct) else {
            return self.partial(aggregate, &own_name);
        };
        let of = |function, argument: Scalar| Aggregate {
            filter: aggregate.filter.clone(),
            ..Aggregate::plain(function, Some(argument))
        };
        let (sum, count) = (AggregateFunction::Sum, AggregateFunction::Count);
        let is_float =
            types::type_of(argument, &self.tables).is_some_and(|ty| types::is_float(ty.oid));
        match aggregate.function {
            AggregateFunction::Avg if is_float => {
                let summed = as_double(argument, &self.tables);
                self.partial(of(sum, summed), &default_name(sum))?;
            }
            AggregateFunction::VarPop
            | AggregateFunction::VarSamp
            | AggregateFunction::StddevPop
            | AggregateFunction::StddevSamp
                if is_float =>
            {
                // What cannot be summed up in `numeric` is none either.
                partial_type(&aggregate, self.tables, self.floats)?;
                let summed = as_exact(argument, &self.tables);
                self.partial(of(sum, summed.clone()), &format!("sum_exact_{base}"))?;
                let square = square(&summed, &self.tables);
                self.partial(of(sum, square), &format!("sum_square_{base}"))?;
            }
            AggregateFunction::Sum => self.partial(of(sum, argument.clone()), &own_name)?,
            AggregateFunction::Avg => {
                self.partial(of(sum, argument.clone()), &default_name(sum))?;
            }
            AggregateFunction::StddevPop | AggregateFunction::StddevSamp
                if !has_few_digits(argument, &self.tables) =>
            {
                return self.partial(aggregate, &own_name);
            }
            AggregateFunction::VarPop
            | AggregateFunction::VarSamp
            | AggregateFunction::StddevPop
            | AggregateFunction::StddevSamp => {
                self.partial(of(sum, argument.clone()), &default_name(sum))?;
                let square = square(argument, &self.tables);
                self.partial(of(sum, square), &format!("sum_square_{base}"))?;
            }
            _ => return self.partial(aggregate, &own_name),
        }
        // A sum over no non-null value is NULL, and an average needs its divisor: both need the count.
        if aggregate.filter.is_some() || !types::is_not_null(argument, &self.tables) {
            self.partial(of(count, argument.clone()), &default_name(count))?;
        }
        Ok(())
    }

    fn partial(&mut self, partial: Aggregate, name: &str) -> Result<(), Reason> {
        let is_known = |column: &StoredColumn| column.stored == Stored::Partial(partial.clone());
        if self.columns.iter().any(is_known) {
            return Ok(());
        }
        let ty = partial_type(&partial, self.tables, self.floats)?;
        self.push(name.to_owned(), Stored::Partial(partial), ty);
        Ok(())
    }

    fn push(&mut self, name: String, stored: Stored, ty: ColumnType) {
        let is_free = |name: &str| {
            !is_system_column(name) && self.columns.iter().all(|column| column.name != name)
        };
        let name = if is_free(&name) {
            name
        } else {
            let numbered = (2..).map(|number| format!("{name}_{number}"));
            numbered
                .into_iter()
                .find(|candidate| is_free(candidate))
                .unwrap_or(name)
        };
        self.columns.push(StoredColumn { name, stored, ty });
    }
}

fn is_system_column(name: &str) -> bool {
    matches!(
        name,
        "tableoid" | "xmin" | "cmin" | "xmax" | "cmax" | "ctid"
    )
}

fn partial_type(
    partial: &Aggregate,
    tables: Tables<'_>,
    floats: Floats,
) -> Result<ColumnType, Reason> {
    let refuse = |code, why: &str| {
        let whole = Scalar::Aggregate(Box::new(partial.clone()));
        let detail = format!("{}{why}", label(&whole, tables));
        Err(Reason::new(code, detail))
    };
    let (AggregateFunction::Count, false) = (partial.function, partial.distinct) else {
        let Some(subject) = types::subject(partial) else {
            return refuse(Code::UnsupportedAggregate, "");
        };
        let Some(ty) = types::type_of(subject, &tables) else {
            return refuse(Code::UnsupportedAggregate, "");
        };
        let is_extreme = matches!(
            partial.function,
            AggregateFunction::Min | AggregateFunction::Max
        );
        if is_extreme && reads_loose_text(subject, &tables) {
            return refuse(Code::UnsupportedAggregate, "");
        }
        if !is_determined(partial, subject, tables) {
            return refuse(
                Code::UnsupportedAggregate,
                " depends on the order of rows: ORDER BY must have its argument, whose equal values must print equal",
            );
        }
        let approximate = approximate_type(partial.function, ty.oid).filter(|_| !partial.distinct);
        let exact = types::aggregate_type(partial.function, ty, &tables);
        return match (exact, approximate, floats) {
            (Some(result), _, _) | (None, Some(result), Floats::Approximate) => Ok(result),
            (None, Some(_), Floats::Refused) => refuse(Code::FloatAggregate, ""),
            (None, None, _) => refuse(Code::UnsupportedAggregate, ""),
        };
    };
    Ok(types::plain(types::INT8))
}

/// Whether the rows of a group give one result, in whatever order they come.
fn is_determined(partial: &Aggregate, subject: &Scalar, tables: Tables<'_>) -> bool {
    let is_constant = |scalar: &Scalar| scalar.is_constant();
    let direct_arguments = match partial.function.is_ordered_set() {
        true => partial.argument.iter().all(is_constant),
        false => partial.more_arguments.iter().all(is_constant),
    };
    let is_ordered = || {
        let by = |item: &crate::expr::OrderItem| item.value == *subject;
        partial.order_by.iter().any(by) && prints_exactly(subject, &tables)
    };
    direct_arguments
        && match partial.function {
            AggregateFunction::ArrayAgg | AggregateFunction::StringAgg => is_ordered(),
            AggregateFunction::Mode | AggregateFunction::PercentileDisc => is_ordered(),
            AggregateFunction::Sum | AggregateFunction::Avg if partial.distinct => {
                prints_exactly(subject, &tables)
            }
            AggregateFunction::Count if partial.distinct => !reads_loose_text(subject, &tables),
            _ => true,
        }
}

/// The least and greatest of distinct values are those of all.
pub(crate) fn without_needless_distinct(mut aggregate: Aggregate) -> Aggregate {
    use AggregateFunction::{BitAnd, BitOr, BoolAnd, BoolOr, Max, Min};
    if matches!(
        aggregate.function,
        Min | Max | BoolAnd | BoolOr | BitAnd | BitOr
    ) {
        aggregate.distinct = false;
    }
    aggregate
}

/// `x * x` as numeric: PostgreSQL's variances sum squares that are exact, too.
pub(crate) fn square(argument: &Scalar, tables: &Tables<'_>) -> Scalar {
    let is_numeric = types::type_of(argument, tables).is_some_and(|ty| ty.oid.0 == types::NUMERIC);
    let factor = match is_numeric {
        true => argument.clone(),
        false => argument
            .clone()
            .cast(TypeName::plain("numeric", types::NUMERIC)),
    };
    Scalar::binary(BinaryOp::Multiply, factor.clone(), factor)
}

/// A word for a column name from an expression: the column's name where it is one.
fn sanitized(scalar: &Scalar, tables: Tables<'_>) -> String {
    const NAME_BYTES_MAX: usize = 40;
    let text = expression(scalar, &|column| {
        tables
            .column_label(column)
            .split('.')
            .next_back()
            .unwrap_or_default()
            .to_owned()
    });
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("_").to_ascii_lowercase();
    name.chars().take(NAME_BYTES_MAX).collect()
}
