//! The built binary against a real server: exit codes, messages with their place in the file, signals, and
//! rollups that are operated by hand while a proxy serves.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e_support::process::{ConfigFile, Ran, Serving, run_pgstar};
use e2e_support::{ANY, Client, Database, PATIENCE, decision, explain, ok, rollup_toml, rows};

const SCHEMA: &str = "
    CREATE TABLE shop (id int PRIMARY KEY, town text NOT NULL);
    CREATE TABLE sale (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, kind text NOT NULL, amount int NOT NULL);
    INSERT INTO shop VALUES (1, 'Bath'), (2, 'York');
    INSERT INTO sale SELECT n, 1 + n % 2, chr(97 + n % 3), n FROM generate_series(1, 100) n;";
const BY_TOWN: (&str, &str) = (
    "by_town",
    "SELECT town, count(*), sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY town",
);
const BY_KIND: (&str, &str) = ("by_kind", "SELECT kind, count(*) FROM sale GROUP BY kind");
const QUERY: &str =
    "SELECT town, count(*) FROM sale, shop WHERE shop_id = shop.id GROUP BY town ORDER BY town";
const KINDS: &str = "SELECT kind, count(*) FROM sale GROUP BY kind ORDER BY kind";
const OFF: &str = "[admin]\naddress = \"off\"\n[freshness]\ndefault = \"any\"\n[limits]\ndrain_timeout = \"3s\"\n";

async fn database() -> Database {
    Database::with(SCHEMA).await
}

async fn session(database: &Database, port: u16) -> Client {
    Client::connect_with(port, &[("user", "postgres"), ("database", &database.name)]).await
}

/// Waits until the statement is served from a rollup or the cache.
async fn until_answered(session: &mut Client, sql: &str) {
    let began = Instant::now();
    loop {
        // The cache may also have an answer of the base tables'.
        if explain(session, sql).await["rollup"].is_string() {
            return;
        }
        let now = decision(session, sql).await;
        assert!(began.elapsed() < PATIENCE, "{sql}: still {now}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Waits until the statement gives these rows.
async fn until_rows(session: &mut Client, sql: &str, wanted: &[&str], within: Duration) {
    let began = Instant::now();
    loop {
        let now = rows(&ok(session, sql).await);
        if now == wanted {
            return;
        }
        assert!(
            began.elapsed() < within,
            "{sql}: still {now:?} instead of {wanted:?}"
        );
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let all = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, Some(code), "{all}");
    for part in parts {
        assert!(all.contains(part), "no {part:?} in:\n{all}");
    }
    assert!(!all.contains("panicked"), "{all}");
}

// ---- check ----

#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_a_good_file_fits() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    let checked = run_pgstar(&["check", "--config", &file.text()]).await;
    says(&checked, 0, &["valid", &database.name, "by_town"]);
    assert!(checked.err.is_empty(), "{}", checked.err);
    // Nothing has been made by looking.
    let mut direct = database.direct().await;
    assert_eq!(
        rows(
            &ok(
                &mut direct,
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgstar'"
            )
            .await
        ),
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_does_not_fit_is_told_with_its_place_and_a_hint() {
    let database = database().await;
    let unknown_column = rollup_toml(
        "a",
        "SELECT twon, count(*)\nFROM sale JOIN shop ON shop_id = shop.id GROUP BY twon",
    );
    let unknown_table = rollup_toml("b", "SELECT count(*)\nFROM sael");
    let no_rollup = rollup_toml("c", "SELECT kind FROM sale ORDER BY 1 LIMIT 3");
    let of_rollup = rollup_toml("d", "SELECT count(*)\nFROM pgstar.other");
    let text = database.toml(
        &format!("{OFF}{unknown_column}{unknown_table}{no_rollup}{of_rollup}"),
        &[],
    );
    let file = ConfigFile::with(&text);
    let place = |needle: &str| {
        let (line, text) = text
            .lines()
            .enumerate()
            .find(|(_, line)| line.contains(needle))
            .unwrap();
        format!(
            "{}:{}:{}:",
            file.text(),
            line + 1,
            text.find(needle).unwrap() + 1
        )
    };
    let told = [
        &*place("twon"),
        "unknown column \"twon\"",
        "Did you mean \"town\"?",
        &place("sael"),
        "unknown table \"sael\"",
        "Did you mean \"sale\"?",
        "rollup \"c\"",
        &place("pgstar.other"),
        "rollup \"d\" reads rollup \"other\"",
        "Name the tables that it is built from",
    ];
    let checked = run_pgstar(&["check", "--config", &file.text()]).await;
    says(&checked, 1, &told);
    let serving = Serving::start(&file.path()).await;
    for part in told {
        assert!(
            serving.log().contains(part),
            "no {part:?} in:\n{}",
            serving.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_told_before_anything_is_connected_to() {
    let database = database().await;
    let twice =
        ConfigFile::with(&database.toml(OFF, &[BY_TOWN, ("by_town", "SELECT count(*) FROM sale")]));
    let unknown_key = ConfigFile::with(
        "[upstream]\nurl = \"postgresql://nobody@127.0.0.1:1/none\"\n[cache]\nmemroy = \"1GiB\"\nmax_answer = 5\n",
    );
    let not_toml = ConfigFile::with("[upstream\n");
    for command in ["check", "serve"] {
        let ran = run_pgstar(&[command, "--config", &twice.text()]).await;
        says(&ran, 64, &["by_town", &format!("{}:", twice.text())]);
        let ran = run_pgstar(&[command, "--config", &unknown_key.text()]).await;
        says(&ran, 64, &[":4:1:", "memroy", "memory", ":5:"]);
        says(
            &run_pgstar(&[command, "--config", &not_toml.text()]).await,
            64,
            &[":1:"],
        );
        says(
            &run_pgstar(&[command, "--config", "/does/not/exist.toml"]).await,
            64,
            &["/does/not/exist.toml"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_told_without_its_password() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let toml = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[upstream]\nurl = \"postgresql://ann:s3cret@127.0.0.1:{port}/none\"\n{OFF}"
    );
    let file = ConfigFile::with(&toml);
    for arguments in [
        vec!["check"],
        vec!["serve"],
        vec!["explain", "SELECT 1"],
        vec!["rollup", "list"],
    ] {
        let ran = run_pgstar(&[arguments, vec!["--config", &file.text()]].concat()).await;
        says(
            &ran,
            1,
            &["pgstar: could not", &format!("127.0.0.1:{port}")],
        );
        assert!(
            !format!("{}{}", ran.out, ran.err).contains("s3cret"),
            "{ran:?}"
        );
    }
    // A server that is there, but not such a database or role.
    let database = database().await;
    for url in [
        database.url().replace(&database.name, "no_such_db"),
        database.url().replace("postgres@", "no_such_role@"),
    ] {
        let file = ConfigFile::with(&format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[upstream]\nurl = \"{url}\"\n{OFF}"
        ));
        says(
            &run_pgstar(&["check", "--config", &file.text()]).await,
            1,
            &["no_such_", "does not exist"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_and_nothing_is_half_started() {
    let database = database().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listen = database
        .toml(OFF, &[BY_TOWN])
        .replace("127.0.0.1:0", &address.to_string());
    let admin = database
        .toml(OFF, &[BY_TOWN])
        .replace("127.0.0.1:0", &other.to_string())
        .replace("address = \"off\"", &format!("address = \"{address}\""));
    for (text, key) in [(listen, "[listen] address"), (admin, "[admin] address")] {
        let file = ConfigFile::with(&text);
        let ran = run_pgstar(&["serve", "--config", &file.text()]).await;
        says(
            &ran,
            1,
            &[&address.to_string(), key, "already in use", "HINT:"],
        );
        assert!(!ran.err.contains("Accepting connections"), "{}", ran.err);
        assert!(
            std::net::TcpStream::connect(other).is_err(),
            "the other address is still listened on"
        );
        // check binds nothing, so it does not mind.
        says(
            &run_pgstar(&["check", "--config", &file.text()]).await,
            0,
            &["valid"],
        );
    }
    let mut direct = database.direct().await;
    assert_eq!(
        rows(
            &ok(
                &mut direct,
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgstar'"
            )
            .await
        ),
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_the_schema_still_gets_a_proxy() {
    let database = database().await;
    let role = format!("{}_poor", database.name);
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .await;
    let file = ConfigFile::with(
        &database
            .toml(OFF, &[BY_TOWN])
            .replace("postgres@", &format!("{role}@")),
    );
    says(
        &run_pgstar(&["check", "--config", &file.text()]).await,
        0,
        &["by_town"],
    );
    let mut serving = Serving::start(&file.path()).await;
    serving.logged("may not create schema").await;
    assert!(
        serving
            .log()
            .contains(&format!("CREATE SCHEMA pgstar AUTHORIZATION \"{role}\"")),
        "{}",
        serving.log()
    );
    let mut through = session(&database, serving.port()).await;
    assert_eq!(rows(&ok(&mut through, QUERY).await), ["Bath|50", "York|50"]);
    assert_eq!(
        rows(&ok(&mut through, "SHOW pgstar.rollups").await).len(),
        1
    );
    let rebuilt = run_pgstar(&["rollup", "rebuild", "by_town", "--config", &file.text()]).await;
    says(
        &rebuilt,
        1,
        &[
            "may not create schema",
            "CREATE SCHEMA pgstar AUTHORIZATION",
        ],
    );
    // Doing as the message says is enough; nothing has to be restarted.
    database
        .run(&format!("CREATE SCHEMA pgstar AUTHORIZATION \"{role}\""))
        .await;
    until_answered(&mut through, QUERY).await;
    assert_eq!(rows(&ok(&mut through, QUERY).await), ["Bath|50", "York|50"]);
    serving.signal("TERM");
    drop(through);
    assert_eq!(serving.wait().await, Some(0));
}

// ---- explain ----

/// A table that was dropped or altered must not keep the proxy from starting again.
#[tokio::test(flavor = "multi_thread")]
async fn rollups_that_do_not_fit_are_left_out_until_they_do() {
    let database = database().await;
    let later = (
        "by_month",
        "SELECT month, sum(cost) FROM spending GROUP BY month",
    );
    let file = ConfigFile::with(&database.toml(OFF, &[later, BY_TOWN]));
    let serving = Serving::start(&file.path()).await;
    assert!(serving.log().contains("unknown table"), "{}", serving.log());
    let mut client = session(&database, serving.port()).await;
    until_answered(&mut client, QUERY).await;
    let states = rows(&ok(&mut client, "SHOW pgstar.rollups").await).join("\n");
    assert!(states.contains("does not fit the database"), "{states}");
    let mut direct = database.direct().await;
    ok(
        &mut direct,
        "CREATE TABLE spending (id int PRIMARY KEY, month int NOT NULL, cost int NOT NULL)",
    )
    .await;
    until_answered(
        &mut client,
        "SELECT month, sum(cost) FROM spending GROUP BY 1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_a_new_session_would_get() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    let before = run_pgstar(&["explain", "--config", &file.text(), "--json", QUERY]).await;
    says(&before, 0, &[]);
    let before: serde_json::Value = serde_json::from_str(&before.out).unwrap();
    assert_eq!(
        (
            before["decision"].as_str(),
            before["reasons"][0]["code"].as_str()
        ),
        (Some("passthrough"), Some("no-rollups"))
    );

    says(
        &run_pgstar(&["rollup", "rebuild", "by_town", "--config", &file.text()]).await,
        0,
        &["built, 2 rows"],
    );
    let text = run_pgstar(&["explain", "--config", &file.text(), QUERY]).await;
    says(
        &text,
        0,
        &["Answered from rollup by_town", "SQL: SELECT", "Proof:"],
    );
    let json = run_pgstar(&["explain", "--json", "--config", &file.text(), QUERY]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (json["decision"].as_str(), json["rollup"].as_str()),
        (Some("rollup"), Some("by_town"))
    );

    for (sql, code) in [
        ("SELECT FROM (", "not-parsed"),
        ("DELETE FROM sale", "not-a-select"),
        (
            "SELECT id, count(*) FROM sale GROUP BY 1",
            "dimension-missing",
        ),
    ] {
        let json = run_pgstar(&["explain", "--json", "--config", &file.text(), sql]).await;
        says(&json, 0, &[]);
        let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(json["reasons"][0]["code"], code, "{sql}: {json}");
    }
    let mut direct = database.direct().await;
    assert_eq!(
        rows(&ok(&mut direct, "SELECT count(*) FROM sale").await),
        ["100"]
    );
    // The same as through a proxy, except for what only a running one can know.
    let serving = Serving::start(&file.path()).await;
    let mut through = session(&database, serving.port()).await;
    let live = explain(&mut through, QUERY).await;
    assert_eq!(
        (&live["sql"], &live["rollup"], &live["proof"]),
        (&json["sql"], &json["rollup"], &json["proof"])
    );
}

// ---- rollup ----

#[tokio::test(flavor = "multi_thread")]
async fn rollups_are_listed_rebuilt_and_dropped_by_hand() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN, BY_KIND]));
    let list = || async { run_pgstar(&["rollup", "list", "--config", &file.text()]).await };
    says(&list().await, 0, &["by_town", "by_kind", "not been built"]);
    says(
        &run_pgstar(&["rollup", "rebuild", "by_town", "--config", &file.text()]).await,
        0,
        &["by_town: built, 2 rows"],
    );
    let listed = list().await;
    says(
        &listed,
        0,
        &["by_town", "ready", "by_kind", "not been built"],
    );
    says(
        &run_pgstar(&["rollup", "drop", "by_town", "--config", &file.text()]).await,
        0,
        &["Dropped"],
    );
    assert!(!list().await.out.contains("ready"));
    for action in ["rebuild", "drop"] {
        says(
            &run_pgstar(&["rollup", action, "nonsense", "--config", &file.text()]).await,
            1,
            &["nonsense"],
        );
    }
    says(
        &run_pgstar(&["rollup", "drop", "by_town", "--config", &file.text()]).await,
        1,
        &["by_town"],
    );
    says(
        &run_pgstar(&["rollup", "--config", &file.text()]).await,
        64,
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_while_a_proxy_serves_is_taken_up_within_seconds() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    let serving = Serving::start(&file.path()).await;
    let mut through = session(&database, serving.port()).await;
    until_answered(&mut through, QUERY).await;
    assert_eq!(rows(&ok(&mut through, QUERY).await), ["Bath|50", "York|50"]);
    database
        .run("INSERT INTO sale VALUES (101, 1, 'z', 1)")
        .await;
    assert_eq!(
        rows(&ok(&mut through, QUERY).await),
        ["Bath|50", "York|50"],
        "any may be stale"
    );
    says(
        &run_pgstar(&["rollup", "rebuild", "by_town", "--config", &file.text()]).await,
        0,
        &["built"],
    );
    // Right answers all the while, of before or after, and then those of after, from the rollup again.
    until_rows(
        &mut through,
        QUERY,
        &["Bath|51", "York|50"],
        Duration::from_secs(5),
    )
    .await;
    until_answered(&mut through, QUERY).await;
    assert_eq!(rows(&ok(&mut through, QUERY).await), ["Bath|51", "York|50"]);
    let after = explain(&mut through, QUERY).await;
    assert!(
        after["freshness"]["built_seconds_ago"].as_u64().unwrap() < 10,
        "{after}"
    );

    // One that is dropped by hand is not there, and comes back only as something that pgstar built anew.
    database
        .run("INSERT INTO sale VALUES (102, 1, 'z', 1)")
        .await;
    says(
        &run_pgstar(&["rollup", "drop", "by_town", "--config", &file.text()]).await,
        0,
        &["Dropped"],
    );
    until_rows(
        &mut through,
        QUERY,
        &["Bath|52", "York|50"],
        Duration::from_secs(5),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changed_rollups_are_built_again_at_a_restart() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN, BY_KIND]));
    let tables = || async {
        let mut direct = database.direct().await;
        rows(
            &ok(
                &mut direct,
                "SELECT name, table_name FROM pgstar.rollup_state ORDER BY name",
            )
            .await,
        )
    };
    let serve_until = |sql: &'static str| {
        let (database, path) = (database.clone(), file.path());
        async move {
            let mut serving = Serving::start(&path).await;
            let mut through = session(&database, serving.port()).await;
            until_answered(&mut through, sql).await;
            until_answered(&mut through, QUERY).await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            drop(through);
            serving.signal("TERM");
            assert_eq!(serving.wait().await, Some(0), "{}", serving.log());
            serving.log()
        }
    };
    serve_until(KINDS).await;
    let first = tables().await;
    assert_eq!(first.len(), 2, "{first:?}");
    let log = serve_until(KINDS).await;
    assert_eq!(tables().await, first, "{log}");
    assert!(!log.contains("Building"), "{log}");
    // Another spelling of the same definition, and one that stores more.
    let respelled = (
        BY_TOWN.0,
        "select\n town , COUNT(*), sum(sale.amount) from sale inner join shop on (sale.shop_id = shop.id) group by 1",
    );
    let changed = (
        BY_KIND.0,
        "SELECT kind, count(*), max(amount) FROM sale GROUP BY kind",
    );
    file.write(&database.toml(OFF, &[respelled, changed]));
    serve_until("SELECT kind, max(amount) FROM sale GROUP BY kind").await;
    let second = tables().await;
    assert_eq!(second[1], first[1], "only spelled differently");
    assert_ne!(second[0], first[0], "stores more");
    // The old table is gone.
    let mut direct = database.direct().await;
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgstar'::regnamespace AND relkind = 'r' AND relname LIKE 'by_%'";
    assert_eq!(rows(&ok(&mut direct, left).await), ["2"]);
}

// ---- signals ----

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_exits_with_0() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    for signal in ["TERM", "INT"] {
        let mut serving = Serving::start(&file.path()).await;
        let mut busy = session(&database, serving.port()).await;
        let mut idle = session(&database, serving.port()).await;
        ok(&mut busy, "BEGIN").await;
        ok(&mut busy, "SELECT 1").await;
        serving.signal(signal);
        let goodbye = idle.until('Z').await;
        assert!(
            goodbye.iter().any(|frame| frame.contains("57P01")),
            "{goodbye:?}"
        );
        assert!(serving.is_running());
        // A transaction that is open may be finished.
        assert_eq!(rows(&ok(&mut busy, QUERY).await), ["Bath|50", "York|50"]);
        busy.query("COMMIT").await;
        assert_eq!(serving.wait().await, Some(0), "{}", serving.log());
    }
    // One that never ends is ended when the time is up.
    let mut serving = Serving::start(&file.path()).await;
    let mut stuck = session(&database, serving.port()).await;
    ok(&mut stuck, "BEGIN").await;
    let began = Instant::now();
    serving.signal("TERM");
    assert_eq!(serving.wait().await, Some(0), "{}", serving.log());
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(8)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_follows_the_file_and_ignores_a_broken_one() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    let mut serving = Serving::start(&file.path()).await;
    let mut through = session(&database, serving.port()).await;
    until_answered(&mut through, QUERY).await;
    assert_eq!(decision(&mut through, KINDS).await, "dimension-missing");

    // One more, and one changed.
    let changed = (
        BY_TOWN.0,
        "SELECT town, kind, count(*), sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY town, kind",
    );
    file.write(&database.toml(OFF, &[changed, BY_KIND]));
    serving.signal("HUP");
    until_answered(
        &mut through,
        "SELECT town, kind, count(*) FROM sale, shop WHERE shop_id = shop.id GROUP BY 1, 2",
    )
    .await;
    until_answered(&mut through, KINDS).await;
    assert_eq!(
        rows(&ok(&mut through, KINDS).await),
        ["a|33", "b|34", "c|33"]
    );

    // A broken file, an unfit rollup: what ran before runs on.
    file.write("[[rollup]\n");
    serving.signal("HUP");
    serving.logged("not reloaded").await;
    assert!(
        serving.log().contains("pgstar.toml:1:"),
        "{}",
        serving.log()
    );
    until_answered(&mut through, KINDS).await;
    let unfit = ("unfit", "SELECT nonsense, count(*) FROM sale GROUP BY 1");
    file.write(&database.toml(OFF, &[changed, BY_KIND, unfit]));
    serving.signal("HUP");
    serving.logged("nonsense").await;
    until_answered(&mut through, KINDS).await;
    let rollups = rows(&ok(&mut through, "SHOW pgstar.rollups").await);
    assert!(
        rollups
            .iter()
            .any(|row| row.starts_with("unfit|absent") && row.contains("nonsense")),
        "{rollups:?}"
    );

    // A rollup that is declared no longer answers no longer.
    file.write(&database.toml(OFF, &[changed]));
    serving.signal("HUP");
    let began = Instant::now();
    while rows(&ok(&mut through, "SHOW pgstar.rollups").await).len() > 1 {
        assert!(began.elapsed() < PATIENCE, "still there");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(explain(&mut through, KINDS).await["rollup"], "by_town");
    // Sections that only a restart can follow are said to.
    file.write(&database.toml(
        &format!("{OFF}[cache]\nmemory = \"1MiB\"\nmax_answer = \"1MiB\"\n"),
        &[changed],
    ));
    serving.signal("HUP");
    serving.logged("need a restart").await;
    assert!(serving.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_pages_say_how_it_is() {
    let database = database().await;
    let other = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let file = ConfigFile::with(&database.toml(
        &format!("[admin]\naddress = \"{other}\"\n{ANY}"),
        &[BY_TOWN],
    ));
    let serving = Serving::start(&file.path()).await;
    let mut through = session(&database, serving.port()).await;
    until_answered(&mut through, QUERY).await;
    ok(&mut through, QUERY).await;
    for (page, text) in [
        ("/healthz", "200 OK"),
        ("/readyz", "200 OK"),
        ("/metrics", "pgstar_"),
        ("/nonsense", "404"),
    ] {
        let answer = get(other, page).await;
        assert!(answer.contains(text), "{page}: {answer}");
    }
    assert!(!get(other, "/metrics").await.contains("Bath"));
}

async fn get(address: std::net::SocketAddr, page: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket
        .write_all(
            format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_strict_freshness_lacks() {
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    let check = || async { run_pgstar(&["check", "--config", &file.text()]).await };
    database
        .run("CREATE PUBLICATION everything FOR ALL TABLES")
        .await;
    let published = "publication \"everything\" has the tables of the schema pgstar";
    says(
        &check().await,
        0,
        &["strict freshness: available", published],
    );
    database
        .run("ALTER TABLE sale DROP CONSTRAINT sale_pkey")
        .await;
    says(
        &check().await,
        0,
        &["strict freshness: not available", "REPLICA IDENTITY FULL"],
    );
    let unfollowed = Database::unfollowed(SCHEMA).await;
    let file = ConfigFile::with(&unfollowed.toml(OFF, &[BY_TOWN]));
    let checked = run_pgstar(&["check", "--config", &file.text()]).await;
    says(&checked, 0, &["ALTER SYSTEM SET wal_level = logical"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_leaves_nothing_behind() {
    const LEFT: &str = "SELECT count(*) FROM (SELECT oid FROM pg_namespace WHERE nspname = 'pgstar'
        UNION ALL SELECT oid FROM pg_publication
        UNION ALL SELECT 1 FROM pg_replication_slots WHERE database = current_database()) x";
    let database = database().await;
    let file = ConfigFile::with(&database.toml(OFF, &[BY_TOWN]));
    let uninstall = |more: &'static [&'static str]| {
        let text = file.text();
        async move {
            let fixed = ["uninstall", "--config", &text];
            let arguments: Vec<&str> = fixed.iter().chain(more).copied().collect();
            run_pgstar(&arguments).await
        }
    };
    says(&uninstall(&[]).await, 0, &["nothing of pgstar's"]);
    let serving = Serving::start(&file.path()).await;
    let mut through = session(&database, serving.port()).await;
    until_answered(&mut through, QUERY).await;
    let mut direct = database.direct().await;
    let began = Instant::now();
    while rows(&ok(&mut direct, LEFT).await) != ["3"] {
        assert!(began.elapsed() < PATIENCE, "no slot is there");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    says(
        &uninstall(&["--yes"]).await,
        1,
        &["is in use; stop the pgstar that uses it first"],
    );
    drop(through);
    drop(serving);
    // PostgreSQL takes a moment to notice that the slot is free.
    let began = Instant::now();
    while rows(&ok(&mut direct, "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()").await) != ["0"] {
        assert!(began.elapsed() < PATIENCE, "the slot is still in use");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    says(
        &uninstall(&[]).await,
        0,
        &["would be dropped", "schema \"pgstar\"", "replication slot"],
    );
    assert_eq!(rows(&ok(&mut direct, LEFT).await), ["3"], "only said");
    says(&uninstall(&["--yes"]).await, 0, &["Dropped schema"]);
    assert_eq!(rows(&ok(&mut direct, LEFT).await), ["0"]);
    assert_eq!(
        rows(&ok(&mut direct, QUERY).await),
        ["Bath|50", "York|50"],
        "the tables are as they were"
    );
}
