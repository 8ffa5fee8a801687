//! Random sessions: aggregations of every shape over the Star Schema Benchmark, with random settings,
//! transactions and protocols, told to PostgreSQL and to pgstar alike. Every frame must be the same.
//!
//! `PGSTAR_RANDOM_SECONDS` makes it last longer, `PGSTAR_RANDOM_SEED` repeats or varies a run.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::time::{Duration, Instant};

use e2e_support::{ANY, Database, EXAMPLE, Lab, Pair, batch, frames, ok, table};

/// Rollups beside the example's: many keys, several measures, a filter, a fact without dimensions.
const ROLLUPS: [(&str, &str); 4] = [
    (
        "wide",
        "SELECT d_year, d_month, d_dayofweek, c_region, c_mktsegment, s_region, p_mfgr, p_color, count(*), sum(lo_revenue),
                sum(lo_quantity), min(lo_quantity), max(lo_quantity), min(lo_extendedprice), max(lo_revenue), sum(lo_extendedprice * lo_discount)
         FROM lineorder JOIN date ON lo_orderdate = d_datekey JOIN customer ON lo_custkey = c_custkey
              JOIN supplier ON lo_suppkey = s_suppkey JOIN part ON lo_partkey = p_partkey
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
    ),
    (
        "days",
        "SELECT d_datekey, d_date, d_year, d_yearmonthnum, d_weeknuminyear, d_sellingseason, lo_discount, count(*), sum(lo_revenue), sum(lo_quantity),
                min(lo_revenue), max(lo_supplycost)
         FROM lineorder JOIN date ON lo_orderdate = d_datekey GROUP BY d_datekey, d_date, d_year, d_yearmonthnum, d_weeknuminyear, d_sellingseason, lo_discount",
    ),
    (
        "asia",
        "SELECT d_year, c_nation, c_city, count(*), sum(lo_revenue), sum(lo_quantity) FROM lineorder, date, customer
         WHERE lo_orderdate = d_datekey AND lo_custkey = c_custkey AND c_region = 'ASIA' GROUP BY 1, 2, 3",
    ),
    (
        "priorities",
        "SELECT lo_orderpriority, lo_shipmode, lo_discount, lo_tax, count(*), sum(lo_revenue), sum(lo_quantity), min(lo_quantity), max(lo_quantity)
         FROM lineorder GROUP BY 1, 2, 3, 4",
    ),
];

/// A deterministic source of choices (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn some<'a>(&mut self, of: &[&'a str], most: usize) -> Vec<&'a str> {
        let count = self.below(most + 1);
        (0..count).map(|_| *self.one(of)).collect()
    }
}

struct Dimension {
    table: &'static str,
    condition: &'static str,
    keys: &'static [&'static str],
    filters: &'static [&'static str],
}

const DIMENSIONS: [Dimension; 4] = [
    Dimension {
        table: "date",
        condition: "lo_orderdate = d_datekey",
        keys: &[
            "d_year",
            "d_month",
            "d_yearmonthnum",
            "d_weeknuminyear",
            "d_yearmonth",
            "d_dayofweek",
            "d_sellingseason",
            "d_datekey",
            "d_year + 1",
            "d_year - 1990",
            "d_year % 2",
            "d_yearmonthnum / 100",
            "lower(d_month)",
            "d_year::text",
            "CASE WHEN d_year < 1995 THEN 'old' ELSE 'new' END",
            "coalesce(d_month, 'none')",
            "substring(d_month, 1, 3)",
        ],
        filters: &[
            "d_year = 1993",
            "d_year BETWEEN 1992 AND 1995",
            "d_year IN (1994, 1996)",
            "d_year <> 1997",
            "d_year > 1998",
            "d_yearmonthnum = 199401",
            "d_weeknuminyear = 6",
            "d_yearmonth = 'Dec1997'",
            "d_month LIKE 'J%'",
            "NOT d_year = 1992",
            "d_year = 1993 OR d_year = 1996",
            "(d_year, d_weeknuminyear) = (1993, 5)",
            "d_year IS NOT NULL",
            "d_month IS NULL",
            "d_datekey < 19930101",
            "d_datekey >= 19930101 AND d_datekey < 19940101",
            "d_year = 1993.0",
            "d_year = '1993'",
            "1993 <= d_year",
            "d_year::float8 > 1996",
            "d_sellingseason = 'Christmas'",
            "d_holidayfl = '1'",
        ],
    },
    Dimension {
        table: "customer",
        condition: "lo_custkey = c_custkey",
        keys: &[
            "c_region",
            "c_nation",
            "c_city",
            "c_mktsegment",
            "upper(c_region)",
            "c_region || '/' || c_nation",
            "left(c_city, 4)",
            "trim(c_region)",
            "length(c_nation)",
        ],
        filters: &[
            "c_region = 'ASIA'",
            "c_region IN ('ASIA', 'EUROPE')",
            "c_nation = 'UNITED STATES'",
            "c_city = 'UNITED KI1' OR c_city = 'UNITED KI5'",
            "c_region LIKE 'A%'",
            "c_region = 'ASIA '",
            "c_mktsegment <> 'BUILDING'",
            "c_region ILIKE 'asia'",
            "c_region > 'B'",
            "c_nation BETWEEN 'C' AND 'G'",
            "c_custkey = 17",
            "c_region = 'ASIA' AND c_nation <> 'CHINA'",
        ],
    },
    Dimension {
        table: "supplier",
        condition: "lo_suppkey = s_suppkey",
        keys: &["s_region", "s_nation", "s_city"],
        filters: &[
            "s_region = 'AMERICA'",
            "s_region = 'ASIA'",
            "s_nation = 'UNITED STATES'",
            "s_city IN ('UNITED KI1', 'UNITED KI5')",
            "s_region IS DISTINCT FROM 'ASIA'",
        ],
    },
    Dimension {
        table: "part",
        condition: "lo_partkey = p_partkey",
        keys: &["p_mfgr", "p_category", "p_brand1", "p_color"],
        filters: &[
            "p_category = 'MFGR#12'",
            "p_mfgr = 'MFGR#1' OR p_mfgr = 'MFGR#2'",
            "p_brand1 BETWEEN 'MFGR#2221' AND 'MFGR#2228'",
            "p_color = 'red'",
            "p_mfgr = ANY ('{MFGR#1,MFGR#3}')",
        ],
    },
];

const FACT_KEYS: &[&str] = &[
    "lo_discount",
    "lo_tax",
    "lo_shipmode",
    "lo_orderpriority",
    "lo_discount * 2",
    "lo_quantity",
    "NULL",
    "1",
    "lo_discount > 5",
];
const FACT_FILTERS: &[&str] = &[
    "lo_discount BETWEEN 1 AND 3",
    "lo_quantity < 25",
    "lo_quantity BETWEEN 26 AND 35",
    "lo_shipmode = 'AIR'",
    "lo_tax = 3",
    "TRUE",
    "FALSE",
    "1 = 2",
    "NULL",
    "lo_discount <> 4",
    "lo_discount + lo_tax > 9",
];
/// So many of the measures are stored in some rollup.
const PLAIN_MEASURES: usize = 12;
const MEASURES: &[&str] = &[
    "count(*)",
    "count(lo_revenue)",
    "sum(lo_revenue)",
    "sum(lo_quantity)",
    "min(lo_quantity)",
    "max(lo_quantity)",
    "avg(lo_revenue)",
    "avg(lo_quantity)",
    "sum(lo_extendedprice * lo_discount)",
    "sum(lo_revenue - lo_supplycost)",
    "sum(lo_revenue) / count(*)",
    "sum(lo_revenue)::float8 / sum(lo_quantity)",
    "max(lo_revenue)",
    "min(lo_extendedprice)",
    "count(DISTINCT lo_discount)",
    "sum(lo_revenue) FILTER (WHERE lo_discount > 3)",
    "sum(lo_revenue) * 100 / 3",
    "round(avg(lo_revenue), 2)",
    "coalesce(sum(lo_revenue), 0)",
    "count(*) > 100",
    "stddev(lo_revenue)",
    "max(lo_supplycost)",
    "min(lo_revenue)",
    "sum(1)",
    "sum(lo_discount)",
    "bool_and(lo_discount > 0)",
    "count(1)",
    "sum(CASE WHEN lo_discount > 5 THEN lo_revenue ELSE 0 END)",
    "string_agg(DISTINCT lo_shipmode, ',' ORDER BY lo_shipmode)",
    "max(d_year)",
    "min(c_nation)",
    "sum(lo_revenue) / nullif(count(*) - count(*), 0)",
    "count(*)::text",
    "sum(lo_revenue)::numeric(20,2)",
    "-sum(lo_revenue)",
];

/// One random aggregation, most of them valid.
fn statement(dice: &mut Dice) -> String {
    let dimensions: Vec<&Dimension> = DIMENSIONS.iter().filter(|_| dice.percent(45)).collect();
    let (mut keys, mut filters) = (dice.some(FACT_KEYS, 1), dice.some(FACT_FILTERS, 1));
    if dice.percent(75) {
        (keys, filters) = (vec![], vec![]);
    }
    for dimension in &dimensions {
        keys.extend(dice.some(dimension.keys, 2));
        filters.extend(dice.some(dimension.filters, 2));
    }
    let plain = &MEASURES[..PLAIN_MEASURES];
    let mut measures = if dice.percent(70) {
        dice.some(plain, 3)
    } else {
        dice.some(MEASURES, 3)
    };
    if keys.is_empty() && measures.is_empty() {
        measures.push("count(*)");
    }
    let (from, joined) = from_clause(dice, &dimensions);
    let filters: Vec<String> = joined
        .into_iter()
        .chain(filters.iter().map(|filter| format!("({filter})")))
        .collect();
    let filter = if filters.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", filters.join(" AND "))
    };
    let outputs: Vec<String> = keys
        .iter()
        .chain(&measures)
        .enumerate()
        .map(|(position, output)| named(dice, position, output))
        .collect();
    let group = group_clause(dice, &keys, !measures.is_empty());
    let having = if dice.percent(15) {
        format!(
            " HAVING {}",
            dice.one(&[
                "count(*) > 10",
                "sum(lo_revenue) > 1000000",
                "max(lo_quantity) = 50",
                "count(*) < 0"
            ])
        )
    } else {
        String::new()
    };
    let distinct = if dice.percent(7) { "DISTINCT " } else { "" };
    let core = format!(
        "SELECT {distinct}{} FROM {from}{filter}{group}{having}",
        outputs.join(", ")
    );
    finished(dice, core, outputs.len())
}

fn named(dice: &mut Dice, position: usize, output: &str) -> String {
    match dice.below(5) {
        0 => format!("{output} AS \"Column {position}\""),
        1 => format!("{output} c{position}"),
        _ => output.to_owned(),
    }
}

/// The tables, and the conditions that WHERE has to have for them.
fn from_clause(dice: &mut Dice, dimensions: &[&Dimension]) -> (String, Vec<String>) {
    if dice.percent(50) {
        let tables: Vec<&str> = std::iter::once("lineorder")
            .chain(dimensions.iter().map(|dimension| dimension.table))
            .collect();
        return (
            tables.join(", "),
            dimensions
                .iter()
                .map(|dimension| dimension.condition.to_owned())
                .collect(),
        );
    }
    let mut from = "lineorder".to_owned();
    for dimension in dimensions {
        let join = dice.one(&["JOIN", "INNER JOIN", "JOIN", "LEFT JOIN"]);
        from.push_str(&format!(
            " {join} {} ON {}",
            dimension.table, dimension.condition
        ));
    }
    (from, vec![])
}

fn group_clause(dice: &mut Dice, keys: &[&str], has_measures: bool) -> String {
    if keys.is_empty() || (!has_measures && dice.percent(20)) {
        return String::new();
    }
    let by_ordinal = dice.percent(50);
    let key = |(position, key): (usize, &&str)| match *key {
        constant @ ("NULL" | "1") if !by_ordinal => format!("({constant}::int + 0)"),
        _ if by_ordinal => (position + 1).to_string(),
        key => key.to_owned(),
    };
    let keys: Vec<String> = keys.iter().enumerate().map(key).collect();
    match dice.below(25) {
        0 => format!(" GROUP BY ROLLUP ({})", keys.join(", ")),
        _ => format!(" GROUP BY {}", keys.join(", ")),
    }
}

/// With an order, a limit, a wrapper or a comment. A limit comes with an order over all outputs.
fn finished(dice: &mut Dice, core: String, outputs: usize) -> String {
    let order: Vec<String> = (1..=outputs)
        .map(|output| {
            format!(
                "{output}{}",
                dice.one(&["", " DESC", " NULLS FIRST", " ASC NULLS LAST"])
            )
        })
        .collect();
    let order = order.join(", ");
    match dice.below(12) {
        0..3 => format!("/* total order */ {core} ORDER BY {order}"),
        3 => format!(
            "/* total order */ {core} ORDER BY {order} LIMIT {} OFFSET {}",
            dice.below(20),
            dice.below(3)
        ),
        4 => format!("SELECT * FROM ({core}) AS wrapped"),
        5 => format!("WITH wrapped AS ({core}) SELECT count(*) FROM wrapped"),
        6 => format!("{core} -- lineorder;"),
        7 => format!("{core};"),
        8 => core
            .replace("SELECT ", "select\n\t")
            .replace(" FROM ", "\nfrom /* here */ "),
        _ => core,
    }
}

/// Something that changes what the session's statements mean or how they print.
fn disturbance(dice: &mut Dice) -> String {
    let all = [
        "BEGIN",
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ROLLBACK TO SAVEPOINT s",
        "RELEASE SAVEPOINT s",
        "SELECT 1/0",
        "SELECT txid_current() > 0",
        "SET TimeZone = 'Asia/Tokyo'",
        "SET TimeZone = 'UTC'",
        "SET DateStyle = 'German'",
        "SET extra_float_digits = 0",
        "SET client_encoding = 'LATIN1'",
        "SET client_encoding = 'UTF8'",
        "SET standard_conforming_strings = off",
        "SET standard_conforming_strings = on",
        "SET search_path = public, pg_catalog",
        "SET search_path = nowhere",
        "SET search_path = public",
        "RESET ALL",
        "DISCARD ALL",
        "SET pgstar.cache = off",
        "SET pgstar.rewrite = off",
        "SET pgstar.freshness = strict",
        "SET LOCAL pgstar.freshness = 'any'",
        "SET ROLE pg_read_all_data",
        "SET ROLE pg_monitor",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "CREATE TEMP TABLE note (a int)",
        "DROP TABLE IF EXISTS note",
        "DECLARE c CURSOR FOR SELECT count(*) FROM lineorder",
        "FETCH ALL FROM c",
        "CLOSE c",
        "PREPARE p AS SELECT count(*) FROM lineorder",
        "EXECUTE p",
        "DEALLOCATE ALL",
        "EXPLAIN (COSTS OFF) SELECT lo_orderkey FROM lineorder",
        "SELECT",
        "",
        "SELECT sum(nonsense) FROM lineorder",
        "SELECT count(*) FROM lineorder FOR UPDATE",
        "LISTEN x",
        "SELECT set_config('TimeZone', 'Europe/Berlin', false)",
        "SET statement_timeout = '60s'",
        "SET row_security = off",
        "SET work_mem = '1MB'",
    ];
    (*dice.one(&all)).to_owned()
}

async fn say(dice: &mut Dice, pair: &mut Pair, sql: &str) {
    let parts = match dice.below(6) {
        0 => vec![batch(
            sql,
            &[],
            &[],
            0,
            dice.one::<&str>(&["", "P", "SP", "S"]),
        )],
        1 => vec![batch(
            sql,
            &[],
            &[],
            1,
            dice.one::<&str>(&["P", "P", "SP", ""]),
        )],
        2 => named_twice(dice, sql),
        _ => vec![frames::query(sql)],
    };
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    pair.same_batches(&parts, sql).await;
}

/// Prepared under a name and described, then executed twice, as drivers do.
fn named_twice(dice: &mut Dice, sql: &str) -> Vec<Vec<u8>> {
    let execute = |format: u8| {
        let bind = [b"\0named\0\0\0\0\0\0\x01\0".as_slice(), &[format]].concat();
        let bind = frames::frame('B', &bind);
        [
            bind,
            frames::describe('P', ""),
            frames::execute("", 0),
            frames::sync(),
        ]
        .concat()
    };
    let prepare = [
        frames::frame('C', b"Snamed\0"),
        frames::parse("named", sql),
        frames::describe('S', "named"),
        frames::sync(),
    ];
    let formats = [dice.below(2) as u8, dice.below(2) as u8];
    vec![prepare.concat(), execute(formats[0]), execute(formats[1])]
}

async fn session(dice: &mut Dice, pair: &mut Pair) {
    let mut earlier: Vec<String> = vec![];
    // Most sessions are calm: what is once set or failed keeps rollups from answering for long.
    let disturbances = *dice.one(&[0, 2, 5, 25]);
    for _ in 0..30 {
        if dice.percent(disturbances) {
            let sql = disturbance(dice);
            say(dice, pair, &sql).await;
        } else if dice.percent(25) && !earlier.is_empty() {
            let sql = dice.one(&earlier).clone();
            say(dice, pair, &sql).await;
        } else {
            let sql = statement(dice);
            say(dice, pair, &sql).await;
            earlier.push(sql);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_sessions_get_what_postgresql_gives() {
    let database = Database::ssb().await;
    let more: String = ROLLUPS
        .iter()
        .map(|(name, query)| e2e_support::rollup_toml(name, query))
        .collect();
    let example = &EXAMPLE[EXAMPLE.find("[[rollup]]").unwrap()..];
    let config = database.config(&format!("{ANY}{example}{more}"), &[]);
    let lab = Lab::with_config(database, &config).await;
    let until = Instant::now() + Duration::from_secs(setting("PGSTAR_RANDOM_SECONDS", 8));
    let mut seed = setting("PGSTAR_RANDOM_SEED", 1);
    while Instant::now() < until {
        println!("PGSTAR_RANDOM_SEED={seed}");
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut pair = lab.pair().await;
        session(&mut dice, &mut pair).await;
        seed += 1;
    }
    let mut watcher = lab.session().await;
    let metrics = table(&ok(&mut watcher, "SHOW pgstar.stats").await);
    for row in &metrics {
        println!("{} {}", row[0].as_ref().unwrap(), row[1].as_ref().unwrap());
    }
    let served = |decision: &str| {
        let name = format!("pgstar_statements_total{{decision=\"{decision}\"}}");
        let row = metrics.iter().find(|row| row[0].as_deref() == Some(&name));
        row.map_or(0, |row| row[1].as_ref().unwrap().parse::<u64>().unwrap())
    };
    assert!(
        served("rollup") > 10 && served("cache") > 0,
        "hardly anything was answered"
    );
}
