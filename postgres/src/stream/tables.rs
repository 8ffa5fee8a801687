//! Which tables can be followed, and what else counts as them: their partitions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pgstar_rewriter::catalog::Oid;
use tokio_postgres::{Client, Row};

use crate::connect::Error;

/// A table that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The table.
    pub relation: Oid,
    /// Why.
    pub reason: RefusalReason,
}

/// Why a table is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalReason {
    /// It is gone.
    #[error("there is no such table")]
    Missing,
    /// PostgreSQL publishes tables only.
    #[error("{table} is not a table that PostgreSQL can publish")]
    NotPublishable {
        /// Its name.
        table: String,
    },
    /// Its changes are not logged.
    #[error("{table} is unlogged or temporary, so its changes are in no log")]
    NotLogged {
        /// Its name, or that of a partition.
        table: String,
    },
    /// Only its owner may publish it.
    #[error(
        "{table} belongs to role \"{owner}\"; only its owner may publish it: GRANT {owner} to pgstar's role"
    )]
    NotOwned {
        /// Its name.
        table: String,
        /// Its owner.
        owner: String,
    },
    /// Publishing it would make its owner's UPDATE and DELETE fail.
    #[error(
        "{table} has neither a primary key nor another replica identity, and publishing it would make every \
         UPDATE and DELETE of it fail; add a primary key, or run: ALTER TABLE {table} REPLICA IDENTITY FULL"
    )]
    NoReplicaIdentity {
        /// Its name, or that of a partition.
        table: String,
    },
    /// The next partition would have no replica identity.
    #[error(
        "{table} is partitioned and has no primary key: a new partition would have no replica identity, and its \
         UPDATE and DELETE would fail; add a primary key to {table}"
    )]
    NoPrimaryKey {
        /// Its name.
        table: String,
    },
    /// What the stream says of its old rows would be taken for something else.
    #[error(
        "{table} is identified by other columns than the partitioned table that it belongs to; \
         run: ALTER TABLE {table} REPLICA IDENTITY FULL"
    )]
    OwnIdentity {
        /// Its name.
        table: String,
    },
    /// What it is identified by cannot be published, and then its owner's UPDATE and DELETE would fail.
    #[error(
        "{table} has virtual columns and is identified by whole rows: publishing it would make every UPDATE and DELETE \
         of it fail; give it a primary key and run: ALTER TABLE {table} REPLICA IDENTITY DEFAULT"
    )]
    VirtualColumns {
        /// Its name, or that of a partition.
        table: String,
    },
    /// Its children are other tables to PostgreSQL.
    #[error("{table} has child tables that are not partitions")]
    HasChildren {
        /// Its name.
        table: String,
    },
}

/// The tables that are followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Followed {
    /// Qualified and quoted names of what is published.
    pub(super) published: BTreeMap<Oid, String>,
    /// Every published table and every partition below, with the table as which the stream reports it.
    pub(super) reported_as: HashMap<Oid, Oid>,
    /// Those of them that have partitions.
    pub(super) parents: BTreeSet<Oid>,
}

/// Tables and all their partitions; `depth` 0 is the table itself.
const QUESTION: &str = "
  SELECT t.root, c.oid, c.oid = t.root, format('%I.%I', n.nspname, c.relname),
         c.relkind::text, c.relpersistence::text,
         c.oid < 16384 OR n.nspname = 'pg_toast',
         pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text,
         CASE c.relreplident WHEN 'f' THEN true WHEN 'n' THEN false
              ELSE EXISTS (SELECT 1 FROM pg_index i
                            WHERE i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
                              AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END) END,
         EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
         EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid),
         c.relkind = 'r' AND c.oid <> t.root AND CASE c.relreplident
              WHEN 'd' THEN o.relreplident = 'i'
              WHEN 'i' THEN o.relreplident = 'd' OR o.relreplident = 'i' AND NOT EXISTS (
                   SELECT FROM pg_index own CROSS JOIN pg_partition_ancestors(own.indexrelid) AS above
                     JOIN pg_index i ON i.indexrelid = above.relid
                    WHERE own.indrelid = c.oid AND own.indisreplident AND i.indrelid = t.root AND i.indisreplident)
              ELSE false END,
         c.relreplident = 'f' AND EXISTS (
              SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)
    FROM (SELECT r.root, r.root AS member FROM unnest($1::oid[]) AS r(root)
           UNION SELECT r.root, p.relid FROM unnest($1::oid[]) AS r(root), pg_partition_tree(r.root) p) t
    JOIN pg_class c ON c.oid = t.member JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class o ON o.oid = t.root";

/// A row of the answer.
struct Member {
    root: Oid,
    oid: Oid,
    is_root: bool,
    name: String,
    kind: String,
    persistence: String,
    is_system: bool,
    is_owned: bool,
    owner: String,
    has_identity: bool,
    has_primary_key: bool,
    has_children: bool,
    /// Its old rows are reported with columns that are not those of its root's identity. (Under a root that is identified
    /// by whole rows they lack columns, which is seen when rows are changed.)
    has_own_identity: bool,
    /// It is identified by columns that have no values of their own.
    has_virtual_identity: bool,
}

/// Reads what is asked for, and says which tables cannot be followed.
pub(super) async fn inspect(
    client: &Client,
    tables: &[Oid],
) -> Result<(Followed, Vec<Refusal>), Error> {
    let mut asked: Vec<u32> = tables.iter().map(|table| table.0).collect();
    asked.sort_unstable();
    asked.dedup();
    let rows = client.query(QUESTION, &[&asked]).await?;
    let mut trees: BTreeMap<Oid, Vec<Member>> = BTreeMap::new();
    for member in rows.iter().map(member) {
        let member = member?;
        trees.entry(member.root).or_default().push(member);
    }
    let mut refusals = vec![];
    for table in asked.into_iter().map(Oid) {
        let tree = trees.get(&table).map(Vec::as_slice).unwrap_or_default();
        if let Err(reason) = check(tree) {
            refusals.push(Refusal {
                relation: table,
                reason,
            });
            trees.remove(&table);
        }
    }
    Ok((followed(&trees), refusals))
}

fn member(row: &Row) -> Result<Member, tokio_postgres::Error> {
    Ok(Member {
        root: Oid(row.try_get(0)?),
        oid: Oid(row.try_get(1)?),
        is_root: row.try_get(2)?,
        name: row.try_get(3)?,
        kind: row.try_get(4)?,
        persistence: row.try_get(5)?,
        is_system: row.try_get(6)?,
        is_owned: row.try_get(7)?,
        owner: row.try_get(8)?,
        has_identity: row.try_get(9)?,
        has_primary_key: row.try_get(10)?,
        has_children: row.try_get(11)?,
        has_own_identity: row.try_get(12)?,
        has_virtual_identity: row.try_get(13)?,
    })
}

fn check(tree: &[Member]) -> Result<(), RefusalReason> {
    let root = tree
        .iter()
        .find(|member| member.is_root)
        .ok_or(RefusalReason::Missing)?;
    let table = || root.name.clone();
    if root.is_system || !matches!(root.kind.as_str(), "r" | "p") {
        return Err(RefusalReason::NotPublishable { table: table() });
    }
    if !root.is_owned {
        return Err(RefusalReason::NotOwned {
            table: table(),
            owner: root.owner.clone(),
        });
    }
    let is_partitioned = root.kind == "p";
    if root.has_children && !is_partitioned {
        return Err(RefusalReason::HasChildren { table: table() });
    }
    if is_partitioned && !root.has_primary_key {
        return Err(RefusalReason::NoPrimaryKey { table: table() });
    }
    tree.iter().try_for_each(check_member)
}

/// Partitioned tables have no rows of their own.
fn check_member(member: &Member) -> Result<(), RefusalReason> {
    let table = || member.name.clone();
    match member.kind.as_str() {
        "p" => Ok(()),
        "r" if member.persistence != "p" => Err(RefusalReason::NotLogged { table: table() }),
        "r" if !member.has_identity => Err(RefusalReason::NoReplicaIdentity { table: table() }),
        "r" if member.has_virtual_identity => Err(RefusalReason::VirtualColumns { table: table() }),
        "r" if member.has_own_identity => Err(RefusalReason::OwnIdentity { table: table() }),
        "r" => Ok(()),
        _ => Err(RefusalReason::NotPublishable { table: table() }),
    }
}

/// With `publish_via_partition_root`, a change is reported as one of the topmost published ancestor.
fn followed(trees: &BTreeMap<Oid, Vec<Member>>) -> Followed {
    let mut above: HashMap<Oid, HashSet<Oid>> = HashMap::new();
    for member in trees.values().flatten() {
        above.entry(member.oid).or_default().insert(member.root);
    }
    let is_topmost = |root: &Oid| above.get(root).is_some_and(|roots| roots.len() == 1);
    let topmost = |roots: &HashSet<Oid>| roots.iter().copied().find(|root| is_topmost(root));
    let reported_as = above
        .iter()
        .filter_map(|(member, roots)| Some((*member, topmost(roots)?)))
        .collect();
    let members = || trees.values().flatten();
    let roots = members().filter(|member| member.is_root);
    let published = roots.map(|root| (root.oid, root.name.clone())).collect();
    let parents = members().filter(|member| member.kind == "p");
    Followed {
        published,
        reported_as,
        parents: parents.map(|parent| parent.oid).collect(),
    }
}
