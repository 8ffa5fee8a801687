//! Going through an expression: what its operands are, and the same expression over others.
//!
//! Every kind of node is named here twice, once to be looked at and once to be made anew; nothing else
//! has to know what a node is made of.

use std::convert::Infallible;

use crate::expr::{Aggregate, ColumnRef, OrderItem, Scalar, SubQuery, SubQueryKind, Window};

impl Scalar {
    /// The operands, in order.
    pub fn children(&self) -> Vec<&Scalar> {
        match self {
            Scalar::Column(_) | Scalar::Literal(_) | Scalar::Parameter(_) | Scalar::Outer(_) => {
                vec![]
            }
            Scalar::Call { name: _, arguments } => arguments.iter().collect(),
            Scalar::Binary { op: _, left, right }
            | Scalar::IsDistinct {
                left,
                right,
                negated: _,
            } => vec![left, right],
            Scalar::Negate(operand) | Scalar::Not(operand) => vec![operand],
            Scalar::And(parts) | Scalar::Or(parts) => parts.iter().collect(),
            Scalar::IsNull {
                operand,
                negated: _,
            } => vec![operand],
            Scalar::IsTruth {
                operand,
                truth: _,
                negated: _,
            } => vec![operand],
            Scalar::In {
                operand,
                list,
                negated: _,
            } => std::iter::once(&**operand).chain(list).collect(),
            Scalar::Regex {
                operand,
                pattern,
                any_case: _,
                negated: _,
            } => vec![operand, pattern],
            Scalar::Quantified {
                operand,
                op: _,
                all: _,
                array,
            } => vec![operand, array],
            Scalar::Array(elements) => elements.iter().collect(),
            Scalar::Like {
                operand,
                pattern,
                any_case: _,
                negated: _,
            } => vec![operand, pattern],
            Scalar::Cast { operand, to: _ } | Scalar::Extract { field: _, operand } => {
                vec![operand]
            }
            Scalar::Case {
                operand,
                branches,
                otherwise,
            } => {
                let branches = branches
                    .iter()
                    .flat_map(|(condition, result)| [condition, result]);
                operand
                    .as_deref()
                    .into_iter()
                    .chain(branches)
                    .chain(otherwise.as_deref())
                    .collect()
            }
            Scalar::Aggregate(aggregate) => aggregate
                .argument
                .iter()
                .chain(&aggregate.more_arguments)
                .chain(aggregate.order_by.iter().map(|item| &item.value))
                .chain(&aggregate.filter)
                .collect(),
            Scalar::Window(window) => {
                let order = window.order_by.iter().map(|item| &item.value);
                let arguments = window.arguments.iter().chain(&window.filter);
                arguments.chain(&window.partition_by).chain(order).collect()
            }
            Scalar::Grouping(keys) => keys.iter().collect(),
            Scalar::SubQuery(sub_query) => {
                let operand = match &sub_query.kind {
                    SubQueryKind::In {
                        operand,
                        negated: _,
                    } => Some(operand),
                    SubQueryKind::Value | SubQueryKind::Exists => None,
                };
                operand.into_iter().chain(&sub_query.outer).collect()
            }
        }
    }

    /// The same node over other operands; `change` is asked for each operand in order, and its first refusal ends it.
    pub fn try_map_children<E>(
        &self,
        change: &mut dyn FnMut(&Scalar) -> Result<Scalar, E>,
    ) -> Result<Scalar, E> {
        let mut boxed = |scalar: &Scalar| change(scalar).map(Box::new);
        Ok(match self {
            Scalar::Column(_) | Scalar::Literal(_) | Scalar::Parameter(_) | Scalar::Outer(_) => {
                self.clone()
            }
            Scalar::Call { name, arguments } => Scalar::Call {
                name,
                arguments: arguments.iter().map(change).collect::<Result<_, E>>()?,
            },
            Scalar::Binary { op, left, right } => Scalar::Binary {
                op: *op,
                left: boxed(left)?,
                right: boxed(right)?,
            },
            Scalar::Negate(operand) => Scalar::Negate(boxed(operand)?),
            Scalar::Not(operand) => Scalar::Not(boxed(operand)?),
            Scalar::And(parts) => Scalar::And(parts.iter().map(change).collect::<Result<_, E>>()?),
            Scalar::Or(parts) => Scalar::Or(parts.iter().map(change).collect::<Result<_, E>>()?),
            Scalar::IsNull { operand, negated } => Scalar::IsNull {
                operand: boxed(operand)?,
                negated: *negated,
            },
            Scalar::IsTruth {
                operand,
                truth,
                negated,
            } => Scalar::IsTruth {
                operand: boxed(operand)?,
                truth: *truth,
                negated: *negated,
            },
            Scalar::IsDistinct {
                left,
                right,
                negated,
            } => Scalar::IsDistinct {
                left: boxed(left)?,
                right: boxed(right)?,
                negated: *negated,
            },
            Scalar::In {
                operand,
                list,
                negated,
            } => Scalar::In {
                operand: boxed(operand)?,
                list: list.iter().map(change).collect::<Result<_, E>>()?,
                negated: *negated,
            },
            Scalar::Regex {
                operand,
                pattern,
                any_case,
                negated,
            } => Scalar::Regex {
                operand: boxed(operand)?,
                pattern: boxed(pattern)?,
                any_case: *any_case,
                negated: *negated,
            },
            Scalar::Quantified {
                operand,
                op,
                all,
                array,
            } => Scalar::Quantified {
                operand: boxed(operand)?,
                op: *op,
                all: *all,
                array: boxed(array)?,
            },
            Scalar::Array(elements) => {
                Scalar::Array(elements.iter().map(change).collect::<Result<_, E>>()?)
            }
            Scalar::Like {
                operand,
                pattern,
                any_case,
                negated,
            } => Scalar::Like {
                operand: boxed(operand)?,
                pattern: boxed(pattern)?,
                any_case: *any_case,
                negated: *negated,
            },
            Scalar::Cast { operand, to } => Scalar::Cast {
                operand: boxed(operand)?,
                to: to.clone(),
            },
            Scalar::Case {
                operand,
                branches,
                otherwise,
            } => Scalar::Case {
                operand: operand.as_deref().map(&mut boxed).transpose()?,
                branches: branches
                    .iter()
                    .map(|(condition, result)| Ok((*boxed(condition)?, *boxed(result)?)))
                    .collect::<Result<_, E>>()?,
                otherwise: otherwise.as_deref().map(&mut boxed).transpose()?,
            },
            Scalar::Extract { field, operand } => Scalar::Extract {
                field: field.clone(),
                operand: boxed(operand)?,
            },
            Scalar::Aggregate(aggregate) => Scalar::Aggregate(Box::new(aggregate.try_map(change)?)),
            Scalar::Window(window) => Scalar::Window(Box::new(window.try_map(change)?)),
            Scalar::Grouping(keys) => {
                Scalar::Grouping(keys.iter().map(change).collect::<Result<_, E>>()?)
            }
            Scalar::SubQuery(sub_query) => Scalar::SubQuery(Box::new(SubQuery {
                kind: match &sub_query.kind {
                    SubQueryKind::In { operand, negated } => SubQueryKind::In {
                        operand: change(operand)?,
                        negated: *negated,
                    },
                    other => other.clone(),
                },
                outer: sub_query
                    .outer
                    .iter()
                    .map(change)
                    .collect::<Result<_, E>>()?,
                ..(**sub_query).clone()
            })),
        })
    }

    /// The same node over other operands.
    pub fn map_children(&self, change: &mut dyn FnMut(&Scalar) -> Scalar) -> Scalar {
        let changed = self.try_map_children(&mut |child| Ok::<_, Infallible>(change(child)));
        match changed {
            Ok(scalar) => scalar,
        }
    }

    /// The same expression with every column replaced.
    pub fn map_columns(&self, replace: &dyn Fn(ColumnRef) -> ColumnRef) -> Scalar {
        match self {
            Scalar::Column(column) => Scalar::Column(replace(*column)),
            other => other.map_children(&mut |child| child.map_columns(replace)),
        }
    }

    /// Calls `visit` on this node and everything below it, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Scalar)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// Whether any node satisfies `test`.
    pub fn any(&self, test: &dyn Fn(&Scalar) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// Every column in it, repeated as often as it occurs.
    pub fn columns(&self) -> Vec<ColumnRef> {
        let mut columns = Vec::new();
        self.walk(&mut |scalar| {
            if let Scalar::Column(column) = scalar {
                columns.push(*column);
            }
        });
        columns
    }

    /// Whether it contains an aggregate.
    pub fn has_aggregate(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::Aggregate(_)))
    }

    /// Whether it contains a window function.
    pub fn has_window(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::Window(_)))
    }

    /// Whether it reads something of the queries around its own.
    pub fn has_outer(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::Outer(_)))
    }

    /// Whether it contains a query.
    pub fn has_sub_query(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::SubQuery(_)))
    }

    /// Whether it is known without looking at any row.
    pub fn is_constant(&self) -> bool {
        !self.any(&|scalar| {
            matches!(
                scalar,
                Scalar::Column(_)
                    | Scalar::Aggregate(_)
                    | Scalar::Window(_)
                    | Scalar::SubQuery(_)
                    | Scalar::Outer(_)
            )
        })
    }
}

impl Aggregate {
    /// The same over other operands, in the order of [`Scalar::children`].
    fn try_map<E>(
        &self,
        change: &mut dyn FnMut(&Scalar) -> Result<Scalar, E>,
    ) -> Result<Aggregate, E> {
        let argument = self.argument.as_ref().map(&mut *change).transpose()?;
        let more = self.more_arguments.iter().map(&mut *change);
        let more_arguments = more.collect::<Result<_, E>>()?;
        let mut item = |item: &OrderItem| {
            Ok(OrderItem {
                value: change(&item.value)?,
                ..*item
            })
        };
        let order_by = self
            .order_by
            .iter()
            .map(&mut item)
            .collect::<Result<_, E>>()?;
        Ok(Aggregate {
            function: self.function,
            argument,
            more_arguments,
            distinct: self.distinct,
            order_by,
            filter: self.filter.as_ref().map(change).transpose()?,
        })
    }
}

impl Window {
    fn try_map<E>(
        &self,
        change: &mut dyn FnMut(&Scalar) -> Result<Scalar, E>,
    ) -> Result<Window, E> {
        let arguments = self.arguments.iter().map(&mut *change);
        let arguments = arguments.collect::<Result<_, E>>()?;
        let filter = self.filter.as_ref().map(&mut *change).transpose()?;
        let partition_by = self.partition_by.iter().map(&mut *change);
        let partition_by = partition_by.collect::<Result<_, E>>()?;
        let order_item = |item: &OrderItem| {
            Ok(OrderItem {
                value: change(&item.value)?,
                ..item.clone()
            })
        };
        let order_by = self.order_by.iter().map(order_item);
        Ok(Window {
            function: self.function,
            arguments,
            filter,
            partition_by,
            order_by: order_by.collect::<Result<_, E>>()?,
            frame: self.frame.clone(),
        })
    }
}
