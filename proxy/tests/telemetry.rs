//! Every metric, counted once and rendered; in a process of its own, because metrics are one per process.

use std::time::{Duration, SystemTime};

use pgstar::telemetry::*;

#[test]
fn everything_counted_is_rendered_with_a_help_text() {
    install();
    statement_served(Decision::Rollup);
    statement_served(Decision::Local);
    passed_through("dimension-missing");
    fell_back();
    decided_in(Duration::from_micros(3));
    cache_hit();
    cache_miss();
    cache_holds(1024, 2, 1);
    let first = session_opened();
    drop(session_opened());
    session_became_relay_only();
    upstream_connect_failed();
    pool_holds(3);
    pool_logged_in(LoginBackend::Warm);
    asked_about(Question::Cost);
    proved(Proof::Reused);
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    rollup_holds("revenue_by_month", 84, 16384, an_hour_ago);
    rollup_rebuilt("revenue_by_month", "truncated", 2);
    upkeep(5, 3, 7, 9);
    rollup_lags("revenue_by_month", Duration::from_millis(1500), 40, 1000);
    rollup_folded("revenue_by_month", 3, 4, 5);
    stream_is_at(1000, 900);
    audited(Audited::Equal);
    audited(Audited::Different);

    let text = render();
    for line in [
        "pgstar_statements_total{decision=\"rollup\"} 1",
        "pgstar_statements_total{decision=\"cache\"} 0",
        "pgstar_statements_total{decision=\"passthrough\"} 0",
        "pgstar_statements_total{decision=\"local\"} 1",
        "pgstar_passthrough_total{code=\"dimension-missing\"} 1",
        "pgstar_fallbacks_total 1",
        "pgstar_decision_seconds_bucket{le=\"0.000002\"} 0",
        "pgstar_decision_seconds_bucket{le=\"0.000005\"} 1",
        "pgstar_cache_hits_total 1",
        "pgstar_cache_misses_total 1",
        "pgstar_cache_bytes 1024",
        "pgstar_cache_entries 2",
        "pgstar_sessions 1",
        "pgstar_sessions_total 2",
        "pgstar_relay_only_sessions_total 1",
        "pgstar_upstream_connect_failures_total 1",
        "pgstar_pool_waiting_backends 3",
        "pgstar_pool_logins_total{backend=\"warm\"} 1",
        "pgstar_pool_logins_total{backend=\"fresh\"} 0",
        "pgstar_proofs_total{proof=\"new\"} 0",
        "pgstar_proofs_total{proof=\"reused\"} 1",
        "pgstar_questions_total{about=\"columns\"} 0",
        "pgstar_questions_total{about=\"cost\"} 1",
        "pgstar_rollup_rebuilds_total{rollup=\"revenue_by_month\",code=\"truncated\"} 2",
        "pgstar_rollup_lag_seconds{rollup=\"revenue_by_month\"} 1.5",
        "pgstar_rollup_lag_bytes{rollup=\"revenue_by_month\"} 40",
        "pgstar_rollup_position_bytes{rollup=\"revenue_by_month\"} 1000",
        "pgstar_folded_rows_total 5",
        "pgstar_folded_batches_total 3",
        "pgstar_waiting_change_bytes 7",
        "pgstar_retained_log_bytes 9",
        "pgstar_rollup_rows{rollup=\"revenue_by_month\"} 84",
        "pgstar_rollup_bytes{rollup=\"revenue_by_month\"} 16384",
    ] {
        assert!(
            text.lines().any(|rendered| rendered == line),
            "{line} is not in:\n{text}"
        );
    }
    assert!(
        text.contains("pgstar_rollup_age_seconds{rollup=\"revenue_by_month\"} 3600"),
        "{text}"
    );
    let metrics = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .count();
    let helps = text
        .lines()
        .filter(|line| line.starts_with("# HELP "))
        .count();
    assert_eq!((metrics, helps), (35, 35), "{text}");
    drop(first);
    assert!(render().contains("pgstar_sessions 0"));
}
