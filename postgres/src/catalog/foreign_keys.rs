//! Foreign keys that PostgreSQL enforces now, for every row of the referencing relation.
//!
//! "Now" is all the catalog can tell: after triggers were disabled, rows changed and triggers
//! enabled again, it calls the key valid, and so does this module.

use std::collections::{HashMap, HashSet};

use pgstar_rewriter::catalog::{AttNum, ForeignKey, Oid, Relation, UserNames};
use tokio_postgres::{Client, Row};

use super::ServerVersion;
use crate::connect::Error;

/// `enforced` says what the constraint itself says; `switched_off` that one of its triggers does not
/// fire in ordinary sessions (ALTER TABLE … DISABLE TRIGGER).
const FOREIGN_KEYS: &str = "
  SELECT k.oid, k.conparentid, k.conrelid, k.confrelid, k.conkey, k.confkey,
         k.convalidated AND NOT k.condeferrable AND k.confmatchtype IN ('s', 'f') AND $enforced
         AND NOT EXISTS (
               SELECT FROM unnest(k.conpfeqop) AS used(operator)
                 JOIN pg_operator o ON o.oid = used.operator
                WHERE o.oprname <> '=' OR o.oprnamespace <> 'pg_catalog'::regnamespace) AS enforced,
         EXISTS (SELECT FROM pg_trigger t
                  WHERE t.tgconstraint = k.oid AND t.tgenabled NOT IN ('O', 'A')) AS switched_off
    FROM pg_constraint k
   WHERE k.contype = 'f'
   ORDER BY k.conrelid, k.oid";

/// PostgreSQL 18 can declare a key it does not enforce, and one over periods of time, whose
/// referencing row matches several rows together instead of one.
const ENFORCED_FROM_18: &str = "k.conenforced AND NOT k.conperiod";

struct Constraint {
    oid: Oid,
    /// The constraint that this one repeats for a partition; `Oid(0)` for none.
    parent: Oid,
    relation: Oid,
    enforced: bool,
    switched_off: bool,
    key: ForeignKey,
}

/// Adds each relation's foreign keys.
pub(super) async fn add(
    client: &Client,
    version: ServerVersion,
    relations: &mut HashMap<Oid, Relation>,
    names: &UserNames,
) -> Result<(), Error> {
    let enforced = if version >= ServerVersion::V18 {
        ENFORCED_FROM_18
    } else {
        "true"
    };
    let sql = FOREIGN_KEYS.replace("$enforced", enforced);
    let rows = client.query(&sql, &[]).await?;
    let constraints: Vec<Constraint> = rows.iter().map(constraint_of).collect::<Result<_, _>>()?;
    for constraint in enforced_for_all_rows(constraints) {
        let compares_alike = equality_is_the_columns_own(&constraint, relations, names);
        if let Some(relation) = relations
            .get_mut(&constraint.relation)
            .filter(|_| compares_alike)
        {
            relation.foreign_keys.push(constraint.key);
        }
    }
    drop_where_rows_are_uncovered(client, relations).await
}

fn constraint_of(row: &Row) -> Result<Constraint, Error> {
    let attnums = |column: usize| -> Result<Vec<AttNum>, Error> {
        let numbers: Vec<i16> = row.try_get(column)?;
        Ok(numbers.into_iter().map(AttNum).collect())
    };
    let key = ForeignKey {
        columns: attnums(4)?,
        references: Oid(row.try_get(3)?),
        referenced_columns: attnums(5)?,
    };
    Ok(Constraint {
        oid: Oid(row.try_get(0)?),
        parent: Oid(row.try_get(1)?),
        relation: Oid(row.try_get(2)?),
        enforced: row.try_get(6)?,
        switched_off: row.try_get(7)?,
        key,
    })
}

/// Keeps the constraints that say of every referencing row that it has a match.
///
/// A foreign key to a partitioned table is repeated in the catalog for each referenced partition,
/// with the same referencing relation. Those repetitions are PostgreSQL's bookkeeping for deletes:
/// a row matches in one partition, not in each. They are told apart by their referenced relation,
/// which is not the one that the first of the family names.
fn enforced_for_all_rows(constraints: Vec<Constraint>) -> Vec<Constraint> {
    let families = Families::of(&constraints);
    let holds = |constraint: &Constraint| {
        let repeats_for_referenced_partition =
            families.root_references(constraint) != constraint.key.references;
        let switched_off = families.switched_off.contains(&constraint.oid);
        constraint.enforced && !switched_off && !repeats_for_referenced_partition
    };
    let kept: HashSet<Oid> = constraints
        .iter()
        .filter(|c| holds(c))
        .map(|c| c.oid)
        .collect();
    constraints
        .into_iter()
        .filter(|constraint| kept.contains(&constraint.oid))
        .collect()
}

/// How constraints on partitions hang together with those on their partitioned tables.
struct Families {
    parents: HashMap<Oid, Oid>,
    references: HashMap<Oid, Oid>,
    /// Constraints with a trigger that does not fire, and all that stand above them: a partition
    /// that is not checked leaves its parent's key unproved.
    switched_off: HashSet<Oid>,
}

impl Families {
    fn of(constraints: &[Constraint]) -> Self {
        let parents = constraints.iter().map(|c| (c.oid, c.parent)).collect();
        let references = constraints
            .iter()
            .map(|c| (c.oid, c.key.references))
            .collect();
        let mut families = Families {
            parents,
            references,
            switched_off: HashSet::new(),
        };
        for constraint in constraints
            .iter()
            .filter(|constraint| constraint.switched_off)
        {
            let line = families.line_of(constraint.oid);
            families.switched_off.extend(line);
        }
        families
    }

    /// The constraint, its parent, its parent's parent and so on.
    fn line_of(&self, oid: Oid) -> Vec<Oid> {
        let parent = |oid: &Oid| {
            self.parents
                .get(oid)
                .copied()
                .filter(|parent| *parent != Oid(0))
        };
        std::iter::successors(Some(oid), parent).collect()
    }

    fn root_references(&self, constraint: &Constraint) -> Oid {
        let root = self.line_of(constraint.oid).pop();
        let references = root.and_then(|root| self.references.get(&root).copied());
        references.unwrap_or(constraint.key.references)
    }
}

/// A nondeterministic collation on one side only makes the key's equality another one than the
/// equality of a join, so such a key proves nothing.
fn equality_is_the_columns_own(
    constraint: &Constraint,
    relations: &HashMap<Oid, Relation>,
    names: &UserNames,
) -> bool {
    let collation = |relation: Oid, attnum: AttNum| {
        Some(relations.get(&relation)?.column_at(attnum)?.ty.collation)
    };
    let key = &constraint.key;
    key.columns
        .iter()
        .zip(&key.referenced_columns)
        .all(|(referencing, referenced)| {
            let referencing = collation(constraint.relation, *referencing);
            let referenced = collation(key.references, *referenced);
            let (Some(referencing), Some(referenced)) = (referencing, referenced) else {
                return false;
            };
            let byte_wise = |collation| !names.nondeterministic_collations.contains(&collation);
            referencing == referenced || (byte_wise(referencing) && byte_wise(referenced))
        })
}

/// A scan of these also returns rows of children or of foreign partitions, which no foreign key of
/// the relation itself has checked.
async fn drop_where_rows_are_uncovered(
    client: &Client,
    relations: &mut HashMap<Oid, Relation>,
) -> Result<(), Error> {
    let sql = format!("{} SELECT oid FROM uncovered", super::relations::UNCOVERED);
    for row in client.query(&sql, &[]).await? {
        if let Some(relation) = relations.get_mut(&Oid(row.try_get(0)?)) {
            relation.foreign_keys.clear();
        }
    }
    Ok(())
}
