//! Who may read a rollup: exactly those who may read all of its base tables.
//!
//! Privileges on single columns do not count: a rollup's columns come from several of them.
//!
//! A grant to a role would keep the role from being dropped. So everybody is granted the table, and a policy of
//! it ends the statement of whoever may not read the base tables; PostgreSQL evaluates it before it reads a row,
//! and knows privileges as they are at that moment. Roles that no policy holds for (BYPASSRLS) and that may not
//! read the base tables are the exception: where such a role can be used, readers are granted the table by name.

use std::collections::{BTreeSet, HashMap, HashSet};

use pgstar_rewriter::catalog::Oid;
use tokio_postgres::Transaction;

use super::{BuildPlan, RollupError, SCHEMA, lock};
use crate::identifier::{quote, quote_qualified};

/// Who may read all base tables of a rollup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readers {
    /// Everybody may.
    pub public: bool,
    /// The roles that may, superusers and owners included, `pg_…` roles left out.
    pub roles: HashSet<String>,
}

/// Reconciles the tables of all plans and the schema's USAGE, in one transaction.
pub(super) async fn sync(
    client: &mut tokio_postgres::Client,
    plans: &[BuildPlan],
) -> Result<HashMap<String, Readers>, RollupError> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&lock::schema_lock_statement())
        .await?;
    let mut readers = HashMap::with_capacity(plans.len());
    let mut schema_users = BTreeSet::new();
    for plan in plans {
        let may_read = readers_of(&transaction, &plan.base_relations).await?;
        if let Some(table) = Table::of_rollup(&transaction, &plan.name).await? {
            let wanted = may_read.grantees(&table.owner);
            reconcile(&transaction, &table, &plan.base_relations, &wanted).await?;
            schema_users.extend(wanted);
        }
        readers.insert(plan.name.clone(), may_read.readers);
    }
    reconcile_schema(&transaction, schema_users).await?;
    transaction.commit().await?;
    Ok(readers)
}

/// Gives a table that nobody sees yet its readers, so that a rebuild never locks them out.
pub(super) async fn grant_on_new_table(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
) -> Result<(), RollupError> {
    let may_read = readers_of(transaction, &plan.base_relations).await?;
    let Some(table) = Table::named(transaction, table).await? else {
        return Ok(());
    };
    let wanted = may_read.grantees(&table.owner);
    reconcile(transaction, &table, &plan.base_relations, &wanted).await
}

/// Whom a privilege is granted to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Grantee {
    Public,
    Role(String),
}

impl Grantee {
    fn of_acl(role: Option<String>) -> Self {
        role.map_or(Grantee::Public, Grantee::Role)
    }

    fn sql(&self) -> String {
        match self {
            Grantee::Public => "PUBLIC".to_owned(),
            Grantee::Role(name) => quote(name),
        }
    }
}

#[derive(Default)]
struct MayRead {
    readers: Readers,
    /// Readers that need no grant.
    superusers: HashSet<String>,
    /// Roles that may not read, can be used, and that no policy holds for.
    unstoppable: HashSet<String>,
}

impl MayRead {
    /// Who has to be named in the table's privileges: superusers and the owner need no grant, and
    /// one to PUBLIC is one for all.
    fn grantees(&self, owner: &str) -> BTreeSet<Grantee> {
        let policy_holds = self.unstoppable.iter().all(|role| role == owner);
        if self.readers.public || policy_holds {
            return BTreeSet::from([Grantee::Public]);
        }
        let needs_grant = |role: &&String| *role != owner && !self.superusers.contains(*role);
        self.readers
            .roles
            .iter()
            .filter(needs_grant)
            .cloned()
            .map(Grantee::Role)
            .collect()
    }
}

/// Without USAGE on a base table's schema nobody reads it by its name. A base table that is gone
/// has no readers. `$role` is the role's column or the word 'public'.
const MAY_NOT_READ: &str = "EXISTS (
  SELECT FROM unnest($1::oid[]) AS base(oid) LEFT JOIN pg_class c ON c.oid = base.oid
   WHERE c.oid IS NULL
      OR has_table_privilege($role, c.oid, 'SELECT') IS NOT TRUE
      OR has_schema_privilege($role, c.relnamespace, 'USAGE') IS NOT TRUE)";

/// A superuser can make use of every role, and needs none.
const ROLES: &str = "
  SELECT r.rolname::text, r.rolsuper, $may_not_read,
         r.rolbypassrls AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid))
    FROM pg_roles r WHERE r.rolname !~ '^pg_'";

async fn readers_of(transaction: &Transaction<'_>, bases: &[Oid]) -> Result<MayRead, RollupError> {
    let mut may_read = MayRead::default();
    // Nothing is known of a rollup without base tables, so nobody may read it.
    if bases.is_empty() {
        return Ok(may_read);
    }
    let bases: Vec<u32> = bases.iter().map(|oid| oid.0).collect();
    let public = format!("SELECT NOT {}", MAY_NOT_READ.replace("$role", "'public'"));
    may_read.readers.public = transaction
        .query_one(&public, &[&bases])
        .await?
        .try_get(0)?;
    let roles = ROLES.replace("$may_not_read", &MAY_NOT_READ.replace("$role", "r.oid"));
    for row in transaction.query(&roles, &[&bases]).await? {
        let role: String = row.try_get(0)?;
        let (is_superuser, may_not_read, passes_policies) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if is_superuser {
            may_read.superusers.insert(role.clone());
        }
        if may_not_read && passes_policies {
            may_read.unstoppable.insert(role);
        } else if !may_not_read {
            may_read.readers.roles.insert(role);
        }
    }
    Ok(may_read)
}

/// A rollup's table, with its owner.
struct Table {
    oid: u32,
    name: String,
    owner: String,
}

impl Table {
    async fn of_rollup(
        transaction: &Transaction<'_>,
        rollup: &str,
    ) -> Result<Option<Self>, RollupError> {
        let sql = "SELECT s.table_name FROM pgstar.rollup_state s WHERE s.name = $1";
        match transaction.query_opt(sql, &[&rollup]).await? {
            Some(row) => Table::named(transaction, row.try_get(0)?).await,
            None => Ok(None),
        }
    }

    async fn named(transaction: &Transaction<'_>, name: &str) -> Result<Option<Self>, RollupError> {
        let sql = "SELECT c.oid, pg_get_userbyid(c.relowner)::text FROM pg_class c
                     JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r'";
        let Some(row) = transaction.query_opt(sql, &[&SCHEMA, &name]).await? else {
            return Ok(None);
        };
        Ok(Some(Table {
            oid: row.try_get(0)?,
            name: name.to_owned(),
            owner: row.try_get(1)?,
        }))
    }
}

/// Everything that others than the owner may do with the table, grants by default privileges too.
const TABLE_PRIVILEGES: &str = "
  SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END, a.privilege_type
    FROM pg_class c
   CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
   WHERE c.oid = $1 AND a.grantee <> c.relowner";

/// The policy that a rollup over these tables has: its name, which is another one whenever the policy is, and
/// its condition.
///
/// Only numbers of relations are in it, which no DROP waits for. Whoever does not meet it gets an error, never a
/// table without rows: an answer from too few rows would be a wrong one. (In PostgreSQL's terms the condition
/// is a one-time filter, and its last part fails as soon as it is evaluated.)
const POLICY: &str = "
  WITH policy(condition) AS (
         SELECT concat(coalesce(string_agg(format(
                  'has_table_privilege(%1$s::oid, ''SELECT'') AND has_schema_privilege(%2$s::oid, ''USAGE'')'
                  ' AND NOT row_security_active(%1$s::oid)', base.oid, coalesce(c.relnamespace, 0)),
                  ' AND ' ORDER BY base.oid), 'false'),
                ' OR CAST(current_user || '' may not read all tables behind this rollup'' AS boolean)')
           FROM unnest($1::oid[]) AS base(oid) LEFT JOIN pg_class c ON c.oid = base.oid)
  SELECT 'readers_' || md5(condition), condition FROM policy";

/// The table's policies, and whether they hold.
const TABLE_POLICIES: &str = "
  SELECT c.relrowsecurity, ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid)
    FROM pg_class c WHERE c.oid = $1";

/// What makes the policy the table's only one; nothing when it is.
async fn policy_statements(
    transaction: &Transaction<'_>,
    table: &Table,
    bases: &[Oid],
) -> Result<Vec<String>, RollupError> {
    let bases: Vec<u32> = bases.iter().map(|oid| oid.0).collect();
    let policy = transaction.query_one(POLICY, &[&bases]).await?;
    let (name, condition): (String, String) = (policy.try_get(0)?, policy.try_get(1)?);
    let Some(found) = transaction.query_opt(TABLE_POLICIES, &[&table.oid]).await? else {
        // It has just made way for its next generation.
        return Ok(vec![]);
    };
    let (holds, present): (bool, Vec<String>) = (found.try_get(0)?, found.try_get(1)?);
    let mut statements = Vec::new();
    if holds && present == [name.as_str()] {
        return Ok(statements);
    }
    let (table, name) = (quote_qualified(SCHEMA, &table.name), quote(&name));
    let superfluous = present.iter().map(|policy| quote(policy));
    statements.extend(superfluous.map(|policy| format!("DROP POLICY {policy} ON {table}")));
    statements.push(format!(
        "CREATE POLICY {name} ON {table} FOR SELECT USING ({condition})"
    ));
    statements.push(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
    Ok(statements)
}

/// Grants what is missing and revokes what is too much, writing included.
async fn reconcile(
    transaction: &Transaction<'_>,
    table: &Table,
    bases: &[Oid],
    wanted: &BTreeSet<Grantee>,
) -> Result<(), RollupError> {
    let mut missing = wanted.clone();
    // Before the grants: without the policy everybody would have more than the readers' rights.
    let mut statements = policy_statements(transaction, table, bases).await?;
    let name = quote_qualified(SCHEMA, &table.name);
    for row in transaction.query(TABLE_PRIVILEGES, &[&table.oid]).await? {
        let grantee = Grantee::of_acl(row.try_get(0)?);
        let privilege: String = row.try_get(1)?;
        if privilege == "SELECT" && wanted.contains(&grantee) {
            missing.remove(&grantee);
        } else {
            statements.push(format!(
                "REVOKE {privilege} ON {name} FROM {}",
                grantee.sql()
            ));
        }
    }
    statements.extend(grant("SELECT", &name, &missing));
    Ok(transaction.batch_execute(&statements.join("; ")).await?)
}

fn grant(privilege: &str, object: &str, grantees: &BTreeSet<Grantee>) -> Option<String> {
    let names: Vec<String> = grantees.iter().map(Grantee::sql).collect();
    (!names.is_empty()).then(|| format!("GRANT {privilege} ON {object} TO {}", names.join(", ")))
}

/// Who holds USAGE on the schema, and whether CREATE as well.
const SCHEMA_USERS: &str = "
  SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END,
         bool_or(a.privilege_type = 'CREATE')
    FROM pg_namespace n
   CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
   WHERE n.nspname = $1 AND a.grantee <> n.nspowner
   GROUP BY a.grantee HAVING bool_or(a.privilege_type = 'USAGE')";

async fn reconcile_schema(
    transaction: &Transaction<'_>,
    mut wanted: BTreeSet<Grantee>,
) -> Result<(), RollupError> {
    if wanted.contains(&Grantee::Public) {
        wanted = BTreeSet::from([Grantee::Public]);
    }
    let mut statements = Vec::new();
    let mut missing = wanted;
    let schema = format!("SCHEMA {}", quote(SCHEMA));
    for row in transaction.query(SCHEMA_USERS, &[&SCHEMA]).await? {
        let grantee = Grantee::of_acl(row.try_get(0)?);
        // Who may create tables there is another pgstar's role and not a reader of this one's.
        let may_create: bool = row.try_get(1)?;
        let is_wanted = missing.remove(&grantee);
        if !is_wanted && !may_create {
            statements.push(format!("REVOKE USAGE ON {schema} FROM {}", grantee.sql()));
        }
    }
    statements.extend(grant("USAGE", &schema, &missing));
    if statements.is_empty() {
        return Ok(());
    }
    check_schema_owner(transaction).await?;
    Ok(transaction.batch_execute(&statements.join("; ")).await?)
}

async fn check_schema_owner(transaction: &Transaction<'_>) -> Result<(), RollupError> {
    let sql = "SELECT current_user::text, pg_has_role(n.nspowner, 'USAGE')
                 FROM pg_namespace n WHERE n.nspname = $1";
    let row = transaction.query_one(sql, &[&SCHEMA]).await?;
    if row.try_get(1)? {
        return Ok(());
    }
    let action = "grant its readers USAGE on it";
    Err(RollupError::SchemaNotOwned {
        role: row.try_get(0)?,
        action,
    })
}
