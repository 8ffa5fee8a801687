//! States of a database that a rollup cannot tell apart: changes to the base tables that leave its rows as they were.
//!
//! A statement over the rollup answers the same in all of them, so the original that it stands for has to as well: an
//! unsound rewrite that one state hides shows in another.

use pgstar_postgres::connect::Connection;
use pgstar_rewriter::Rollup;

use super::data::Random;
use super::generate::{Shape, Star};

/// How many changes are tried for a state.
const ATTEMPTS: usize = 14;

/// Changes the base tables within the open transaction, and says how many changes the rollup did not notice.
pub async fn wander(
    client: &Connection,
    star: &Star,
    shape: &Shape,
    rollup: &Rollup,
    random: &mut Random,
) -> usize {
    let mut kept = 0;
    for _ in 0..ATTEMPTS {
        let change = star.change(shape, random);
        client.batch_execute("SAVEPOINT change").await.unwrap();
        // Keys and NOT NULL forbid some.
        let is_done = client.batch_execute(&change).await.is_ok();
        if is_done && is_unchanged(client, rollup).await {
            client.batch_execute("RELEASE change").await.unwrap();
            kept += 1;
        } else {
            client
                .batch_execute("ROLLBACK TO change; RELEASE change")
                .await
                .unwrap();
        }
    }
    kept
}

/// Whether the rollup would be built with the very rows that it has, as text: equal is not enough.
async fn is_unchanged(client: &Connection, rollup: &Rollup) -> bool {
    let table = pgstar_rewriter::quote_qualified(&rollup.schema, &rollup.table);
    let (stored, now) = (
        format!("SELECT kept::text FROM {table} AS kept"),
        format!(
            "SELECT anew::text FROM ({}) AS anew",
            rollup.definition.build_select
        ),
    );
    let sql = format!(
        "SELECT NOT EXISTS (({stored} EXCEPT ALL {now}) UNION ALL ({now} EXCEPT ALL {stored}))"
    );
    // A change may also make the build fail, by an overflow for instance.
    client
        .query_one(&sql, &[])
        .await
        .is_ok_and(|row| row.get(0))
}
