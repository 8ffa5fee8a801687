//! The Star Schema Benchmark through pgstar: every answer from a rollup or the cache is, frame by frame,
//! what PostgreSQL itself answers, in every protocol; and pgstar says what it did and why.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use e2e_support::{
    ANY, Database, EXAMPLE, Lab, PATIENCE, Served, answers, batch, decision, error, explain,
    frames, ok, rows, server, sqlstate, table, tags,
};
use pgstar::config::Config;
use pgstar_loadtest::ssb::QUERIES;
use std::path::Path;
use std::time::Instant;
use tokio::sync::OnceCell;

const YEARS: &str = "SELECT d_year, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY d_year";

/// pgstar as `pgstar demo` starts it, but on a database that other tests share.
async fn lab() -> Lab {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let database = Database::ssb().await;
    let config = config(database);
    BUILT
        .get_or_init(|| async { drop(Lab::with_config(database, &config).await) })
        .await;
    Lab::with_config(database, &config).await
}

fn config(database: &Database) -> Config {
    let mut config = Config::from_text(Path::new("pgstar.toml"), EXAMPLE).unwrap();
    let own = database.config(ANY, &[]);
    (
        config.upstream,
        config.listen,
        config.admin,
        config.freshness,
    ) = (own.upstream, own.listen, own.admin, own.freshness);
    config
}

fn queries() -> impl Iterator<Item = &'static str> {
    QUERIES.iter().map(|query| query.sql.trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thirteen_queries_come_from_rollups_and_then_from_the_cache() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for sql in queries() {
        assert_eq!(pair.served(sql).await, Served::Rollup, "{sql}");
        assert_eq!(pair.served(sql).await, Served::Cache, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thirteen_queries_in_the_extended_protocol() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for sql in queries() {
        let before = answers(&mut pair.through).await;
        for (format, describes) in [(0, "P"), (1, "P"), (0, "SP"), (1, "S"), (1, "")] {
            let bytes = batch(sql, &[], &[], format, describes);
            let what = format!("format {format}, describes {describes:?}: {sql}");
            for _ in 0..2 {
                let frames = pair.same_bytes(&bytes, &what).await;
                assert!(tags(&frames).ends_with("CZ"), "{what}: {frames:?}");
            }
        }
        // All but the statement described before it is bound to binary results, whose formats only the portal knows.
        assert_eq!(answers(&mut pair.through).await - before, 8, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_every_kind() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    let (int4, int8, varchar, text) = (23, 20, 1043, 25);
    let by_year = "SELECT d_year, c_nation, sum(lo_revenue) AS revenue FROM customer, lineorder, supplier, date
        WHERE lo_custkey = c_custkey AND lo_suppkey = s_suppkey AND lo_orderdate = d_datekey
          AND c_region = $1 AND s_region = $2 AND d_year BETWEEN $3 AND $4 GROUP BY d_year, c_nation";
    let served_before = answers(&mut pair.through).await;
    for types in [
        &[][..],
        &[varchar, varchar, int4, int4],
        &[text, text, int4, int4],
        &[text, varchar, int8, int4],
    ] {
        for (values, format) in [
            (["ASIA", "ASIA", "1992", "1997"], 0),
            (["EUROPE", "ASIA", "1995", "1995"], 1),
            (["NOWHERE", "ASIA", "1992", "1997"], 0),
        ] {
            let values = values.map(Some);
            let bytes = batch(by_year, types, &values, format, "P");
            let answer = pair
                .same_bytes(&bytes, &format!("{types:?} {values:?}"))
                .await;
            assert!(error(&answer).is_none(), "{answer:?}");
        }
    }
    // A NULL, a value that is no number, and too few values.
    for values in [
        &[Some("ASIA"), Some("ASIA"), None, Some("1997")][..],
        &[Some("ASIA"), Some("ASIA"), Some("x"), Some("1997")],
        &[Some("ASIA")],
    ] {
        pair.same_bytes(&batch(by_year, &[], values, 0, "P"), &format!("{values:?}"))
            .await;
    }
    assert!(
        answers(&mut pair.through).await > served_before,
        "no statement with parameters was served"
    );
    pair.same("SELECT 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thirteen_queries_within_a_transaction() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for end in ["ROLLBACK", "COMMIT"] {
        pair.same("BEGIN").await;
        for sql in queries() {
            pair.same(sql).await;
            pair.same_bytes(&batch(sql, &[], &[], 1, "P"), sql).await;
        }
        // The stream begins anew, and what was kept is forgotten, when the lab of another test ends that led.
        let first = queries().next().unwrap();
        let began = Instant::now();
        while decision(&mut pair.through, first).await != "cache" {
            assert!(began.elapsed() < PATIENCE, "{first} is not kept");
            pair.same(first).await;
        }
        pair.same(end).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn total_orders_and_limits_are_kept() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for sql in [
        "/* total order */ SELECT d_year, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY 1 ORDER BY 1 DESC",
        "/* total order */ SELECT d_year, sum(lo_revenue) r FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY 1 ORDER BY r LIMIT 3",
        "/* total order */ SELECT p_brand1, sum(lo_revenue) FROM lineorder, date, part, supplier WHERE lo_orderdate = d_datekey AND lo_partkey = p_partkey
           AND lo_suppkey = s_suppkey AND s_region = 'ASIA' GROUP BY p_brand1 ORDER BY sum(lo_revenue) DESC, p_brand1 LIMIT 10 OFFSET 5",
        "/* total order */ SELECT d_year y, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY y HAVING sum(lo_revenue) > 0 ORDER BY y FETCH FIRST 2 ROWS ONLY",
    ] {
        let served = pair.served(sql).await;
        assert_eq!(served, Served::Rollup, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_answers_are_postgresqls() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for sql in [
        // No rows, one row of NULL, the same name twice, a name that must be quoted, no name at all.
        "SELECT d_year, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey AND d_year = 2050 GROUP BY d_year",
        "SELECT sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey AND d_year = 2050",
        "SELECT d_year, d_year, sum(lo_revenue), sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY d_year",
        "SELECT d_year AS \"The \"\"Year\"\"\", sum(lo_revenue) AS \"ΣUM\" FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY d_year",
        "SELECT d_year + 1, -sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY d_year",
        "SELECT DISTINCT d_year FROM lineorder, date WHERE lo_orderdate = d_datekey",
    ] {
        let decided = decision(&mut pair.through, sql).await;
        pair.same(sql).await;
        pair.same_bytes(&batch(sql, &[], &[], 0, "SP"), sql).await;
        assert_eq!(decided, "rollup", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_the_decision_as_text_and_as_json() {
    let lab = lab().await;
    let mut session = lab.session().await;
    let text = rows(&ok(&mut session, &format!("EXPLAIN (PGSTAR) {YEARS}")).await);
    assert!(
        text[0].starts_with("Answered from rollup ssb_"),
        "{text:#?}"
    );
    assert!(
        text.iter()
            .any(|line| line.contains("SQL: SELECT") && line.contains("pgstar.")),
        "{text:#?}"
    );
    assert!(
        text.iter()
            .any(|line| line.contains("Freshness: asked for any")),
        "{text:#?}"
    );

    let described = ok(&mut session, &format!("EXPLAIN (PGSTAR) {YEARS}")).await;
    assert!(described[0].contains("QUERY PLAN"), "{described:?}");
    assert_eq!(tags(&described).chars().next(), Some('T'));

    let json = explain(&mut session, YEARS).await;
    assert_eq!(json["decision"], "rollup");
    assert!(
        json["rollup"].as_str().unwrap().starts_with("ssb_"),
        "{json}"
    );
    assert!(
        json["sql"].as_str().unwrap().contains("FROM pgstar."),
        "{json}"
    );
    assert!(
        json["reasons"].is_array() && json["freshness"]["requested"] == "any",
        "{json}"
    );

    ok(&mut session, YEARS).await;
    assert_eq!(explain(&mut session, YEARS).await["decision"], "cache");

    let refused = explain(
        &mut session,
        "SELECT lo_tax, sum(lo_revenue) FROM lineorder GROUP BY 1",
    )
    .await;
    assert_eq!(refused["decision"], "passthrough");
    assert!(
        refused["rollup"].is_null() && refused["sql"].is_null(),
        "{refused}"
    );
    let reasons = refused["reasons"].as_array().unwrap();
    assert!(reasons.len() >= 7, "one for each rollup: {refused}");
    for reason in reasons {
        assert!(
            reason["rollup"].is_string()
                && reason["code"].is_string()
                && reason["detail"].is_string(),
            "{reason}"
        );
    }
    // An object of the contract has all of its keys, whatever the decision.
    for key in ["decision", "rollup", "sql", "reasons", "freshness"] {
        assert!(
            refused.as_object().unwrap().contains_key(key),
            "{key} is missing in {refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_in_the_extended_protocol_and_of_what_is_no_query() {
    let lab = lab().await;
    let mut session = lab.session().await;
    let sql = format!("EXPLAIN (PGSTAR) {YEARS}");
    let frames = session.exchange(&batch(&sql, &[], &[], 0, "P")).await;
    assert_eq!(tags(&frames).replace('D', ""), "12TCZ", "{frames:?}");
    assert!(
        rows(&frames)[0].starts_with("Answered from rollup"),
        "{frames:?}"
    );
    for (sql, code) in [
        ("SELECT (", "not-parsed"),
        ("INSERT INTO date DEFAULT VALUES", "not-a-select"),
        ("SELECT 1 FROM date FOR UPDATE", "locking"),
    ] {
        assert_eq!(decision(&mut session, sql).await, code, "{sql}");
    }
    // Options that are not pgstar's are PostgreSQL's to judge.
    let mut pair = lab.pair().await;
    for sql in [
        "EXPLAIN (COSTS OFF) SELECT 1",
        "EXPLAIN (PGSTAR, ANALYZE) SELECT 1",
        "EXPLAIN (NONSENSE) SELECT 1",
    ] {
        pair.same(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_what_pgstar_knows() {
    let lab = lab().await;
    let mut session = lab.session().await;
    ok(&mut session, YEARS).await;
    ok(&mut session, YEARS).await;
    ok(
        &mut session,
        "SELECT lo_tax, sum(lo_revenue) FROM lineorder GROUP BY 1",
    )
    .await;

    let rollups = table(&ok(&mut session, "SHOW pgstar.rollups").await);
    assert_eq!(rollups.len(), 7, "{rollups:?}");
    assert!(
        rollups.iter().all(|row| row[1].as_deref() == Some("ready")),
        "{rollups:?}"
    );

    let queries = table(&ok(&mut session, "SHOW pgstar.queries").await);
    let years = queries
        .iter()
        .find(|row| row[0].as_deref() == Some(YEARS))
        .unwrap();
    assert_eq!(
        years[1..4],
        ["1", "1", "0"].map(|n| Some(n.to_owned())),
        "{queries:?}"
    );
    assert!(
        queries
            .iter()
            .any(|row| row[0].as_deref().unwrap().contains("lo_tax") && row[5].is_some()),
        "{queries:?}"
    );

    let cache = rows(&ok(&mut session, "SHOW pgstar.cache").await);
    // Answers of base tables are kept as well.
    for line in ["entries|2", "hits|1"] {
        assert!(cache.contains(&line.to_owned()), "{cache:?}");
    }
    let stats = rows(&ok(&mut session, "show PGSTAR.Stats;").await);
    assert!(
        stats.iter().any(|row| row.starts_with("pgstar_")),
        "{stats:?}"
    );
    assert_eq!(
        rows(&ok(&mut session, "SHOW pgstar.freshness").await),
        ["any"]
    );
    assert_eq!(rows(&ok(&mut session, "SHOW pgstar.rewrite").await), ["on"]);

    let extended = session
        .exchange(&batch("SHOW pgstar.rollups", &[], &[], 0, "SP"))
        .await;
    assert_eq!(tags(&extended).replace('D', ""), "1tT2TCZ", "{extended:?}");
    assert_eq!(table(&extended).len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_show_is_an_error_and_fails_a_transaction_like_any() {
    let lab = lab().await;
    let mut session = lab.session().await;
    let frames = session.query("SHOW pgstar.nonsense").await;
    assert_eq!(sqlstate(&frames).as_deref(), Some("42704"), "{frames:?}");
    assert!(
        error(&frames).unwrap()[&'H'].contains("pgstar.rollups"),
        "{frames:?}"
    );
    assert_eq!(tags(&frames), "EZ");
    let extended = session
        .exchange(&batch("SHOW pgstar.nonsense", &[], &[], 0, "P"))
        .await;
    assert_eq!(
        sqlstate(&extended).as_deref(),
        Some("42704"),
        "{extended:?}"
    );
    assert_eq!(rows(&ok(&mut session, "SELECT 1").await), ["1"]);
    for sql in ["SHOW pgstar.nonsense", "SELECT 1/0"] {
        ok(&mut session, "BEGIN").await;
        session.query(sql).await;
        for refused in [
            "SELECT 1",
            "SHOW pgstar.rollups",
            "EXPLAIN (PGSTAR) SELECT 1",
            YEARS,
        ] {
            let frames = session.query(refused).await;
            assert_eq!(
                sqlstate(&frames).as_deref(),
                Some("25P02"),
                "{sql}, then {refused}"
            );
        }
        ok(&mut session, "ROLLBACK").await;
    }
    assert_eq!(
        table(&ok(&mut session, "/* who */ SHOW pgstar.rollups").await).len(),
        7
    );
    // A setting's own value is told as PostgreSQL tells it.
    let mut pair = lab.pair().await;
    for sql in [
        "SHOW work_mem",
        "SHOW nonsense.x",
        "SHOW pgstar",
        "SHOW pgstar.rollups; SELECT 1",
        "SHOW nonsense",
    ] {
        pair.same(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rewriting_and_the_cache_can_be_switched_off() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    assert_eq!(pair.served(YEARS).await, Served::Rollup);
    pair.both("SET pgstar.cache = off").await;
    assert_eq!(pair.served(YEARS).await, Served::Rollup);
    assert_eq!(
        rows(&ok(&mut pair.through, "SHOW pgstar.rewrite").await),
        ["on"]
    );
    pair.both("SET pgstar.rewrite = off").await;
    assert_eq!(decision(&mut pair.through, YEARS).await, "rewrite-off");
    assert_eq!(pair.served(YEARS).await, Served::Passthrough);
    assert_eq!(
        rows(&ok(&mut pair.through, "SHOW pgstar.rewrite").await),
        ["off"]
    );
    pair.both("RESET pgstar.rewrite").await;
    pair.both("SET pgstar.cache TO 'on'").await;
    assert_eq!(pair.served(YEARS).await, Served::Cache);

    // Within a transaction a SET lasts as long as PostgreSQL says.
    pair.both("BEGIN").await;
    pair.both("SET LOCAL pgstar.rewrite = off").await;
    assert_eq!(pair.served(YEARS).await, Served::Passthrough);
    pair.both("ROLLBACK").await;
    assert_eq!(pair.served(YEARS).await, Served::Cache);

    let mut off = lab.pair_with(&[("options", "-c pgstar.rewrite=off")]).await;
    assert_eq!(off.served(YEARS).await, Served::Passthrough);
    let mut off = lab.pair_with(&[("options", "-c pgstar.cache=off")]).await;
    assert_eq!(off.served(YEARS).await, Served::Rollup);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_beside_others_is_left_alone() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(&format!("{YEARS}; SELECT 1")).await;
    pair.same(&format!("BEGIN; {YEARS}; COMMIT")).await;
    pair.same("").await;
    pair.same(";").await;
    pair.same("-- nothing").await;
    // Two statements sent at once, and two batches sent at once.
    let two = [frames::query(YEARS), frames::query("SELECT 2")].concat();
    for session in [&mut pair.direct, &mut pair.through] {
        session.send(&two).await;
        assert_eq!(rows(&session.until_ready().await).len(), 7);
        assert_eq!(rows(&session.until_ready().await), ["2"]);
        session
            .send(
                &[
                    batch(YEARS, &[], &[], 0, "P"),
                    batch("SELECT 3", &[], &[], 0, "P"),
                ]
                .concat(),
            )
            .await;
        assert_eq!(rows(&session.until_ready().await).len(), 7);
        assert_eq!(rows(&session.until_ready().await), ["3"]);
    }
    assert!(server().await.version() >= 14);
}
