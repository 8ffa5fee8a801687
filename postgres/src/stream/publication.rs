//! The publication: created, and altered to match what is followed.

use tokio_postgres::Client;

use super::PASSING_PUBLICATION;
use super::epoch::unique;
use super::tables::Followed;
use crate::connect::Error;
use crate::identifier::quote;

/// ALTER PUBLICATION waits for VACUUM and ALTER TABLE of the tables, never for writers; nobody who
/// waits behind it should wait for long.
const LOCK_TIMEOUT: &str = "5s";

/// Everything that decides what the stream has. TRUNCATE of a partition alone is not in it.
const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// Since PostgreSQL 18. Where a table is identified by whole rows, UPDATE and DELETE fail while a stored column is not published.
const OPTION_FROM_18: &str = ", publish_generated_columns = stored";

const HAS_OPTION_FROM_18: &str = " AND p.pubgencols = 's'";

/// From PostgreSQL 15 on a publication may have more than tables and operations.
const HAS_NO_MORE_FROM_15: &str = "
         AND NOT EXISTS (SELECT 1 FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)
         AND NOT EXISTS (SELECT 1 FROM pg_publication_rel r
                          WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL))";

/// What a server of this version can be told, and asked.
fn options(version: i32) -> String {
    let more = if version >= 180_000 {
        OPTION_FROM_18
    } else {
        ""
    };
    format!("{OPTIONS}{more}")
}

/// Whether the publication is as we make it but for its tables, and which these are.
fn found(version: i32) -> String {
    let from_15 = if version >= 150_000 {
        HAS_NO_MORE_FROM_15
    } else {
        ""
    };
    let from_18 = if version >= 180_000 {
        HAS_OPTION_FROM_18
    } else {
        ""
    };
    format!(
        "SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot {from_15} {from_18},
                ARRAY(SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid ORDER BY 1)
           FROM pg_publication p WHERE p.pubname = $1"
    )
}

/// Makes every stream find out again which tables are published, and as which, where it would not notice: before PostgreSQL 15 a
/// partition that was attached or detached is taken for what it was when a change of it was first sent. What is committed
/// after this is sent as it should be, if no partition comes or goes afterwards. Nothing of it is left in the catalog.
pub(crate) async fn refresh(client: &Client, publication: &str) -> Result<(), Error> {
    let sql = "SELECT FROM pg_publication
                WHERE pubname = $1 AND current_setting('server_version_num')::int < 150000";
    if client.query_opt(sql, &[&publication]).await?.is_none() {
        return Ok(());
    }
    let (schema, publication) = (format!("pgstar_passing_{:x}", unique()), quote(publication));
    // One transaction.
    let sql = format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (); ALTER PUBLICATION {publication} ADD TABLE {schema}.t; \
         DROP TABLE {schema}.t; DROP SCHEMA {schema}"
    );
    Ok(client.batch_execute(&sql).await?)
}

/// Makes the publication what it has to be. Has to be done before the slot is created: a slot decodes
/// with the catalog of its own time.
pub(super) async fn ensure(
    client: &mut Client,
    publication: &str,
    followed: &Followed,
) -> Result<(), Error> {
    let version = "SELECT current_setting('server_version_num')::int";
    let version: i32 = client.query_one(version, &[]).await?.try_get(0)?;
    let found = client.query_opt(&found(version), &[&publication]).await?;
    let wanted: Vec<u32> = followed.published.keys().map(|table| table.0).collect();
    let mut present = None;
    if let Some(found) = found {
        let (is_plain, tables): (bool, Vec<u32>) = (found.try_get(0)?, found.try_get(1)?);
        present = Some(is_plain);
        if is_plain && tables == wanted {
            return Ok(());
        }
    }
    let transaction = client.transaction().await?;
    let options = options(version);
    let statements = statements(&quote(publication), followed, present, &options).join("; ");
    transaction
        .batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        .await?;
    transaction.batch_execute(&statements).await?;
    Ok(transaction.commit().await?)
}

/// A number that stands for the publication among advisory locks.
const LOCK: &str = "hashtextextended('publication ' || $1::text, 0)";

/// While this session lasts, [`sweep`] lets the publication be.
pub(super) async fn hold(client: &Client, publication: &str) -> Result<(), Error> {
    let sql = format!("SELECT pg_advisory_lock_shared({LOCK})");
    client.execute(&sql, &[&publication]).await?;
    Ok(())
}

/// Drops the publications of processes that are gone, as far as this role may.
pub(super) async fn sweep(client: &Client) -> Result<(), Error> {
    let sql = "SELECT pubname::text FROM pg_publication
                WHERE starts_with(pubname, $1) AND pg_has_role(pubowner, 'USAGE')";
    for row in client.query(sql, &[&PASSING_PUBLICATION]).await? {
        let publication: String = row.try_get(0)?;
        let sql = format!("SELECT pg_try_advisory_lock({LOCK})");
        let is_free: bool = client.query_one(&sql, &[&publication]).await?.try_get(0)?;
        if !is_free {
            continue;
        }
        let drop = format!("DROP PUBLICATION IF EXISTS {}", quote(&publication));
        let dropped = client.batch_execute(&drop).await;
        let sql = format!("SELECT pg_advisory_unlock({LOCK})");
        client.execute(&sql, &[&publication]).await?;
        dropped?;
    }
    Ok(())
}

/// `present` says of the publication that is there whether its options are the right ones: whoever sets
/// them again makes it look as if something else had been published until then.
fn statements(
    publication: &str,
    followed: &Followed,
    present: Option<bool>,
    options: &str,
) -> Vec<String> {
    let names: Vec<&str> = followed.published.values().map(String::as_str).collect();
    let list = format!("TABLE {}", names.join(", "));
    match (present, names.is_empty()) {
        (Some(true), false) => vec![format!("ALTER PUBLICATION {publication} SET {list}")],
        (Some(false), false) => vec![
            format!("ALTER PUBLICATION {publication} SET ({options})"),
            format!("ALTER PUBLICATION {publication} SET {list}"),
        ],
        // SET needs at least one table.
        (Some(_), true) => vec![
            format!("DROP PUBLICATION {publication}"),
            format!("CREATE PUBLICATION {publication} WITH ({options})"),
        ],
        (None, false) => {
            vec![format!(
                "CREATE PUBLICATION {publication} FOR {list} WITH ({options})"
            )]
        }
        (None, true) => vec![format!("CREATE PUBLICATION {publication} WITH ({options})")],
    }
}
