//! Several processes of the real binary on one database, with clients that ask all the time: one is killed, or stopped and
//! let go on later, or all clocks jump; no answer lacks a commit, and another goes on with the rollups.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e_support::process::{ConfigFile, Serving};
use e2e_support::{Client, Database, Frame, explain, frames, ok, rows, start_server};
use pgstar_postgres::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const SCHEMA: &str = "
    CREATE TABLE sale (id bigint PRIMARY KEY, town text NOT NULL, day date NOT NULL, amount int NOT NULL);
    ALTER TABLE sale REPLICA IDENTITY FULL;
    INSERT INTO sale SELECT n, 'town ' || n % 5, date '2024-01-01' + (n % 30)::int, 1 FROM generate_series(1, 3000) n;";
const ROLLUP: &str =
    "SELECT town, day, count(*), sum(amount), max(id) FROM sale GROUP BY town, day";
/// One answer says of which state it is: how many rows, and the newest of them.
const QUERY: &str = "SELECT max(id), max(id) - count(*) FROM sale";
/// Of days to which nothing is added.
const KEPT: &str = "SELECT count(*), sum(amount) FROM sale WHERE day < '2024-01-10'";
const LEADS: &str = "Bringing rollups up to date";

/// How long another may take to go on where one was killed. The takeover itself is looked for each second.
const TAKE_OVER: Duration = Duration::from_secs(30);
/// The same where one only stopped: the server has to take it for gone first.
const FENCED: Duration = Duration::from_secs(90);

fn seconds(default: u64) -> Duration {
    let seconds = std::env::var("PGSTAR_TORTURE_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}

/// What is going on beside the processes.
struct Traffic {
    database: Database,
    acknowledged: AtomicI64,
    is_over: AtomicBool,
    answers: AtomicU64,
    /// Where each process listens.
    ports: Mutex<Vec<u16>>,
}

impl Traffic {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    async fn write(self: Arc<Self>) {
        let mut session = self.database.direct().await;
        while !self.is_over() {
            let id = self.acknowledged.load(Ordering::SeqCst) + 1;
            let sql = format!(
                "INSERT INTO sale VALUES ({id}, 'town {}', date '2024-01-10' + {}, 1)",
                id % 5,
                id % 20
            );
            ok(&mut session, &sql).await;
            self.acknowledged.store(id, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks one process for as long as it is there, and then its successor.
    async fn ask(self: Arc<Self>, number: usize) {
        while !self.is_over() {
            let port = self.ports.lock().unwrap()[number];
            if let Some(mut client) = connect(port, &self.database.name).await {
                while !self.is_over() && self.ask_once(&mut client).await {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether there was an answer; it has to be right.
    async fn ask_once(&self, client: &mut Client) -> bool {
        let least = self.acknowledged.load(Ordering::SeqCst);
        let Some(answer) = ask(client, QUERY).await else {
            return false;
        };
        let most = self.acknowledged.load(Ordering::SeqCst) + 1;
        let (newest, missing) = answer[0].split_once('|').unwrap();
        let newest: i64 = newest.parse().unwrap();
        assert!((least..=most).contains(&newest), "{least} {newest} {most}");
        assert_eq!(missing, "0");
        let kept = ask(client, KEPT).await;
        if let Some(kept) = &kept {
            assert_eq!(kept, &["900|900"]);
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        kept.is_some()
    }
}

/// Frames up to the next ReadyForQuery, however long a process that was stopped takes; none when the connection ends.
async fn until_ready(client: &mut Client) -> Option<Vec<Frame>> {
    let mut frames = vec![];
    loop {
        let mut frame = vec![0; 5];
        client.socket.read_exact(&mut frame).await.ok()?;
        let length = u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize;
        frame.resize(1 + length, 0);
        client.socket.read_exact(&mut frame[5..]).await.ok()?;
        frames.push(Frame(frame));
        if frames.last().map(Frame::tag) == Some('Z') {
            return Some(frames);
        }
    }
}

/// The rows, or none when the connection ends or the server is not there.
async fn ask(client: &mut Client, sql: &str) -> Option<Vec<String>> {
    client.socket.write_all(&frames::query(sql)).await.ok()?;
    let frames = until_ready(client).await?;
    let is_answer = frames::tags(&frames).ends_with("CZ");
    is_answer.then(|| rows(&frames))
}

async fn connect(port: u16, database: &str) -> Option<Client> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut client = Client {
        socket,
        greeting: vec![],
    };
    let startup = frames::startup_packet(&[("user", "postgres"), ("database", database)]);
    client.socket.write_all(&startup).await.ok()?;
    client.greeting = until_ready(&mut client).await?;
    frames::tags(&client.greeting)
        .ends_with('Z')
        .then_some(client)
}

/// The processes and their traffic.
struct Ensemble {
    server: Server,
    config: ConfigFile,
    instances: Vec<Serving>,
    traffic: Arc<Traffic>,
    tasks: Vec<JoinHandle<()>>,
}

impl Ensemble {
    async fn start(count: usize) -> Ensemble {
        let server = start_server().await;
        let database = Database::create_on(&server, "template0").await;
        database.run(SCHEMA).await;
        let text = database.toml("[admin]\naddress = \"off\"\n", &[("by_town", ROLLUP)]);
        let config = ConfigFile::with(&text);
        let mut instances = vec![];
        for _ in 0..count {
            instances.push(Serving::start(&config.path()).await);
        }
        let ports = instances.iter().map(Serving::port).collect();
        let traffic = Arc::new(Traffic {
            database,
            acknowledged: AtomicI64::new(3000),
            is_over: AtomicBool::default(),
            answers: AtomicU64::default(),
            ports: Mutex::new(ports),
        });
        let mut tasks = vec![tokio::spawn(Arc::clone(&traffic).write())];
        for number in 0..count {
            tasks.push(tokio::spawn(Arc::clone(&traffic).ask(number)));
        }
        let mut ensemble = Ensemble {
            server,
            config,
            instances,
            traffic,
            tasks,
        };
        for number in 0..count {
            ensemble.until_rollup(number, TAKE_OVER).await;
        }
        ensemble
    }

    /// The server's time of day, in days.
    async fn days(&self) -> f64 {
        let sql = "SELECT extract(epoch FROM clock_timestamp()) / 86400";
        let mut direct = self.traffic.database.direct().await;
        rows(&ok(&mut direct, sql).await)[0].parse().unwrap()
    }

    fn led(&self, number: usize) -> usize {
        self.instances[number].log().matches(LEADS).count()
    }

    /// How often each has begun to lead.
    fn all_led(&self) -> Vec<usize> {
        (0..self.instances.len()).map(|n| self.led(n)).collect()
    }

    /// Whoever began to lead since then.
    async fn leader_since(&self, before: &[usize], within: Duration) -> usize {
        let began = Instant::now();
        loop {
            let mut now = self.all_led().into_iter().zip(before).enumerate();
            if let Some((number, _)) = now.find(|(_, (now, before))| now > before) {
                return number;
            }
            assert!(began.elapsed() < within, "nobody goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a rollup answers this one's clients.
    async fn until_rollup(&mut self, number: usize, within: Duration) {
        let began = Instant::now();
        loop {
            let port = self.instances[number].port();
            let mut why = String::new();
            if let Some(mut client) = connect(port, &self.traffic.database.name).await {
                let explained = explain(&mut client, QUERY).await;
                if explained["decision"] == "rollup" {
                    return;
                }
                why = explained.to_string();
            }
            let log = self.instances[number].log();
            assert!(began.elapsed() < within, "no rollup answers: {why}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn restart(&mut self, number: usize) {
        let serving = Serving::start(&self.config.path()).await;
        self.traffic.ports.lock().unwrap()[number] = serving.port();
        self.instances[number] = serving;
    }

    /// All that was answered was right, and the rollup is what its definition says.
    async fn end(mut self) {
        self.until_rollup(0, TAKE_OVER).await;
        self.traffic.is_over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        println!(
            "{} answers, all right",
            self.traffic.answers.load(Ordering::Relaxed)
        );
        let all = format!("{ROLLUP} ORDER BY town, day");
        let right = rows(&ok(&mut self.traffic.database.direct().await, &all).await);
        for instance in &self.instances {
            let client = connect(instance.port(), &self.traffic.database.name).await;
            let mut client = client.unwrap();
            let began = Instant::now();
            while explain(&mut client, &all).await["decision"] != "rollup" {
                assert!(began.elapsed() < TAKE_OVER, "no rollup answers");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(ask(&mut client, &all).await.unwrap(), right);
        }
        drop(self.instances);
        self.server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_another_goes_on_and_no_answer_is_wrong() {
    let mut ensemble = Ensemble::start(3).await;
    let mut leader = ensemble.leader_since(&[0, 0, 0], TAKE_OVER).await;
    let began = Instant::now();
    let mut random: usize = 7;
    let mut killed = 0;
    while killed < 3 || began.elapsed() < seconds(10) {
        // Mostly whoever leads, at no moment in particular.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let victim = match random >> 60 {
            0..4 => (leader + 1) % 3,
            _ => leader,
        };
        tokio::time::sleep(Duration::from_millis((random >> 33) as u64 % 1500)).await;
        let before = ensemble.all_led();
        ensemble.instances[victim].signal("KILL");
        let died = Instant::now();
        ensemble.instances[victim].wait().await;
        if victim == leader {
            leader = ensemble.leader_since(&before, TAKE_OVER).await;
            ensemble.until_rollup(leader, TAKE_OVER).await;
            println!("another answers from the rollup after {:?}", died.elapsed());
        }
        ensemble.restart(victim).await;
        ensemble.until_rollup(victim, TAKE_OVER).await;
        killed += 1;
    }
    ensemble.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_stopped_and_goes_on_neither_writes_nor_answers_what_is_past() {
    let mut ensemble = Ensemble::start(2).await;
    let leader = ensemble.leader_since(&[0, 0], TAKE_OVER).await;
    let other = 1 - leader;
    let before = ensemble.all_led();
    ensemble.instances[leader].signal("STOP");
    let stopped = Instant::now();
    assert_eq!(ensemble.leader_since(&before, FENCED).await, other);
    ensemble.until_rollup(other, TAKE_OVER).await;
    println!(
        "another answers from the rollup after {:?}",
        stopped.elapsed()
    );
    // A question that was asked while it slept, and those of its other clients from before.
    ensemble.instances[leader].signal("CONT");
    ensemble.until_rollup(leader, FENCED).await;
    assert_eq!(ensemble.led(other), before[other] + 1, "the other leads on");
    ensemble.end().await;
}

const CLOCK: &str = "FAKETIME_TIMESTAMP_FILE";

/// The library that shows its process another time of day.
fn libfaketime() -> Option<PathBuf> {
    let directories = ["/usr/lib", "/usr/lib64"]
        .into_iter()
        .flat_map(|directory| {
            let below = std::fs::read_dir(directory).into_iter().flatten();
            let below = below.filter_map(|entry| Some(entry.ok()?.path()));
            below.chain([PathBuf::from(directory)])
        });
    let mut libraries = directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}

#[test]
fn clocks_that_jump_change_no_answer() {
    let Some(library) = libfaketime() else {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "no libfaketime: run scripts/test-setup.sh");
        // Not by eprintln, which the test harness keeps to itself when a test passes.
        let notice = "\n##### SKIPPED: no libfaketime; run scripts/test-setup.sh, or the tests by `make test` #####\n\n";
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
        return;
    };
    let clock = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&clock, "+0").unwrap();
    // For the account that the server runs as.
    std::fs::set_permissions(&clock, Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "among_processes_whose_clock_jumps"])
        .arg("--nocapture")
        .env("LD_PRELOAD", library)
        .env(CLOCK, clock.path())
        .env("FAKETIME_CACHE_DURATION", "1")
        .env("FAKETIME_DISABLE_SHM", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
    assert!(command.status().unwrap().success());
}

/// The server, pgstar and this test have one clock, which is set to another day and back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "another test runs it in a process of its own"]
async fn among_processes_whose_clock_jumps() {
    let clock = std::env::var(CLOCK).unwrap();
    let mut ensemble = Ensemble::start(2).await;
    let began = Instant::now();
    let first = ensemble.days().await;
    for days in [1, -1, 400, -400, 0] {
        std::fs::write(&clock, format!("{days:+}d")).unwrap();
        while (ensemble.days().await - first - f64::from(days)).abs() > 0.5 {
            assert!(began.elapsed() < FENCED, "the clock is not set");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = ensemble.traffic.answers.load(Ordering::Relaxed);
        for number in 0..2 {
            ensemble.until_rollup(number, TAKE_OVER).await;
        }
        let answers = || ensemble.traffic.answers.load(Ordering::Relaxed) - before;
        while answers() < 100 {
            assert!(began.elapsed() < FENCED * 2, "{} answers", answers());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ensemble.end().await;
}
