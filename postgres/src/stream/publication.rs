//! The publication: created, and altered to match what is followed.

use tokio_postgres::Client;

use super::PUBLICATION;
use super::tables::Followed;
use crate::connect::Error;

/// ALTER PUBLICATION waits for VACUUM and ALTER TABLE of the tables, never for writers; nobody who
/// waits behind it should wait for long.
const LOCK_TIMEOUT: &str = "5s";

/// Everything that decides what the stream has. TRUNCATE of a partition alone is not in it.
const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

const FOUND: &str = "
  SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot
         AND NOT EXISTS (SELECT 1 FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)
         AND NOT EXISTS (SELECT 1 FROM pg_publication_rel r
                          WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)),
         ARRAY(SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid ORDER BY 1)
    FROM pg_publication p WHERE p.pubname = $1";

/// Makes the publication what it has to be. Has to be done before the slot is created: a slot decodes
/// with the catalog of its own time.
pub(super) async fn ensure(client: &mut Client, followed: &Followed) -> Result<(), Error> {
    let found = client.query_opt(FOUND, &[&PUBLICATION]).await?;
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
    let statements = statements(followed, present).join("; ");
    transaction
        .batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        .await?;
    transaction.batch_execute(&statements).await?;
    Ok(transaction.commit().await?)
}

/// `present` says of the publication that is there whether its options are the right ones: whoever sets
/// them again makes it look as if something else had been published until then.
fn statements(followed: &Followed, present: Option<bool>) -> Vec<String> {
    let names: Vec<String> = followed
        .published
        .values()
        .map(|name| format!("TABLE {name}"))
        .collect();
    let list = names.join(", ");
    match (present, names.is_empty()) {
        (Some(true), false) => vec![format!("ALTER PUBLICATION {PUBLICATION} SET {list}")],
        (Some(false), false) => vec![
            format!("ALTER PUBLICATION {PUBLICATION} SET ({OPTIONS})"),
            format!("ALTER PUBLICATION {PUBLICATION} SET {list}"),
        ],
        // SET needs at least one table.
        (Some(_), true) => vec![
            format!("DROP PUBLICATION {PUBLICATION}"),
            format!("CREATE PUBLICATION {PUBLICATION} WITH ({OPTIONS})"),
        ],
        (None, false) => {
            vec![format!(
                "CREATE PUBLICATION {PUBLICATION} FOR {list} WITH ({OPTIONS})"
            )]
        }
        (None, true) => vec![format!("CREATE PUBLICATION {PUBLICATION} WITH ({OPTIONS})")],
    }
}
