//! Builds a rollup in parts: one after the other, and then all of them in one.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Client;
use tracing::{info, warn};

use super::build::Build;
use super::parts::{self, InParts, Parts, Recorded};
use super::{BuildPlan, BuildProgress, BuiltRollup, OnProgress, RollupError, lock};

/// After a part the server has a rest of a quarter of the time that it took, and until the part was brought forward: many that
/// were not, each from its own snapshot, would be much work at once. At most this long.
const REST_SHARE: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(30);

/// So often each part may have to be built, because somebody alters the tables all the time.
const ROUNDS_MAX: u32 = 3;

/// How often it is looked whether all parts contain the same.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long nobody may bring the parts up to date, and how long it may take.
const LEADERLESS_MAX: Duration = Duration::from_secs(60);
const IN_STEP_WAIT_MAX: Duration = Duration::from_secs(600);

/// Builds the rollup in parts if that is worth it and possible. The caller holds the rollup's lock.
pub(super) async fn build(
    client: &mut Client,
    plan: &BuildPlan,
    keeps_parts: bool,
    progress: OnProgress<'_>,
) -> Result<Option<BuiltRollup>, RollupError> {
    let Some(in_parts) = parts::plan(client, plan, keeps_parts).await? else {
        return Ok(None);
    };
    let started = Instant::now();
    let rounds = match until_led(client).await? {
        true => ROUNDS_MAX,
        false => 0,
    };
    for _ in 0..rounds {
        if !build_missing(client, plan, &in_parts, progress).await? {
            continue;
        }
        match until_in_step(client, plan).await? {
            Some(true) => {
                // Between the two questions one may have been forgotten.
                if let Some(built) = combine(client, plan, &in_parts, started, progress).await? {
                    return Ok(Some(built));
                }
            }
            Some(false) => {}
            None => break,
        }
    }
    warn!(
        rollup = plan.name,
        "Its parts could not be brought to one snapshot; it is built at once."
    );
    Ok(None)
}

/// Waits until somebody brings rollups up to date, if that does not take long: whoever was killed did it too.
async fn until_led(client: &Client) -> Result<bool, RollupError> {
    let begun = Instant::now();
    while lock::leader(client).await?.is_none() {
        if begun.elapsed() >= LEADERLESS_MAX {
            return Ok(false);
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(true)
}

/// Builds the parts that are not there. Those that are were built before, by whomever. False if there are no parts at all.
async fn build_missing(
    client: &mut Client,
    plan: &BuildPlan,
    in_parts: &InParts,
    progress: OnProgress<'_>,
) -> Result<bool, RollupError> {
    let recorded = parts::read(client, plan).await?;
    let all = recorded.count();
    let missing = recorded.missing();
    let begun = Instant::now();
    for (built, part) in missing.iter().enumerate() {
        let rest = estimate(begun.elapsed(), built, missing.len() - built);
        let done = all - missing.len() + built;
        progress(BuildProgress::Part { done, all, rest });
        info!(
            rollup = plan.name,
            done,
            all,
            seconds_left = rest.map(|rest| rest.as_secs()),
            "Building a part of a rollup."
        );
        let this = Instant::now();
        lock::holding_changes(client, async |client| {
            build_part(client, plan, in_parts, part, progress).await
        })
        .await?;
        have_a_rest(client, plan, this.elapsed() / REST_SHARE).await?;
    }
    progress(BuildProgress::Part {
        done: all,
        all,
        rest: None,
    });
    Ok(all > 0)
}

async fn have_a_rest(
    client: &Client,
    plan: &BuildPlan,
    share: Duration,
) -> Result<(), RollupError> {
    let begun = Instant::now();
    sleep(share.min(REST_MAX)).await;
    while begun.elapsed() < REST_MAX && parts::read(client, plan).await?.has_newcomer() {
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// How long so many more take, if so many took that long.
fn estimate(took: Duration, built: usize, missing: usize) -> Option<Duration> {
    let each = took.checked_div(u32::try_from(built).ok()?)?;
    Some(each * u32::try_from(missing).ok()?)
}

async fn build_part(
    client: &mut Client,
    plan: &BuildPlan,
    in_parts: &InParts,
    part: &Recorded,
    progress: OnProgress<'_>,
) -> Result<(), RollupError> {
    let Some(select) = in_parts.select(part) else {
        return Ok(());
    };
    let build = Build::begin(client, plan).await?;
    let table = build.materialize(&select, None, progress).await?;
    build.finish_part(&table, part).await
}

/// Waits until all parts contain the same; false if one of them has to be built again, none if that lasts too long.
async fn until_in_step(client: &Client, plan: &BuildPlan) -> Result<Option<bool>, RollupError> {
    let begun = Instant::now();
    let mut led_at = begun;
    while begun.elapsed() < IN_STEP_WAIT_MAX && led_at.elapsed() < LEADERLESS_MAX {
        let parts: Parts = parts::read(client, plan).await?;
        if !parts.missing().is_empty() {
            return Ok(Some(false));
        }
        if parts.are_in_step() {
            return Ok(Some(true));
        }
        if lock::leader(client).await?.is_some() {
            led_at = Instant::now();
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(None)
}

/// The rollup's table, from those of its parts; none if they do not contain the same any more.
async fn combine(
    client: &mut Client,
    plan: &BuildPlan,
    in_parts: &InParts,
    started: Instant,
    progress: OnProgress<'_>,
) -> Result<Option<BuiltRollup>, RollupError> {
    lock::holding_changes(client, async |client| {
        let mut build = Build::begin(client, plan).await?;
        build.started = started;
        // What is recorded and what the tables have is seen by one snapshot.
        let parts = parts::read(&build.transaction, plan).await?;
        let Some((contents, built_at)) = parts.in_step() else {
            return Ok(None);
        };
        (build.contents, build.built_at) = (contents.clone(), built_at);
        let combine = |table: &str| in_parts.combine(&parts, table);
        let table = build.insert(combine, progress).await?;
        Ok(Some(build.finish(table, progress).await?))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done() {
        let seconds = Duration::from_secs;
        assert_eq!(estimate(seconds(6), 3, 5), Some(seconds(10)));
        assert_eq!(estimate(seconds(0), 0, 5), None);
    }
}
