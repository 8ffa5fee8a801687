//! Random sessions, directly and through a proxy that serves what it can: every byte must be the same.
//!
//! What the proxy serves here has the answers that PostgreSQL gives, by a rewritten text, by a stored answer, or
//! by falling back from a text that fails; so whatever differs is a trace of pgstar.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use pgstar::route::ColumnOrigin;
use tokio::io::AsyncReadExt;
use wire_support::*;

const SESSIONS: u32 = 100;
const STEPS: u32 = 60;

const REWRITTEN: &str = "SELECT 'rewritten'";
const ROWS: &str = "SELECT g::text FROM generate_series(1, 3) g";
const BROKEN: &str = "SELECT 'broken'";
const CACHED: &str = "SELECT 'cached'";
const PASSED: &str = "SELECT 'passed'";

const NAMES: [&str; 3] = ["", "a", "b"];
const TEXTS: [&str; 9] = [
    REWRITTEN,
    ROWS,
    BROKEN,
    CACHED,
    PASSED,
    "SELECT 1/0",
    "SELEC",
    "BEGIN",
    "",
];
const QUERIES: [&str; 21] = [
    REWRITTEN,
    ROWS,
    BROKEN,
    CACHED,
    PASSED,
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT mine",
    "ROLLBACK TO mine",
    "SELECT 1/0",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "PREPARE a AS SELECT 'by SQL'",
    "SET TimeZone = 'Asia/Tokyo'; SELECT 1; SELECT 2",
    "DO $$BEGIN EXECUTE 'DEALLOCATE b'; EXECUTE 'PREPARE b AS SELECT ''swapped'''; END$$",
    "SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name",
    "SELECT name, statement FROM pg_cursors ORDER BY name",
    "COPY (SELECT 1 UNION ALL SELECT 2) TO STDOUT",
];

/// The body of a FunctionCall: `abs(int4)` (OID 1397) of -7, all in text.
const CALL_OF_ABS: &[u8] = b"\0\0\x05\x75\0\0\0\x01\0\0\0\x02-7\0\0";

/// A source of random sessions.
struct Random {
    state: u32,
    /// A Bind has succeeded since the last Query, and no transaction has failed since. PostgreSQL 15 crashes on
    /// the Execute of an unnamed portal that a failed Query has left; and a failed transaction refuses a portal
    /// that is there by another error than one that is not, where pgstar cannot put back the one it withheld.
    has_portal: bool,
}

impl Random {
    fn below(&mut self, count: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state % count
    }

    fn of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len() as u32) as usize]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One message of the extended protocol.
    fn message(&mut self) -> Vec<u8> {
        let (name, portal) = (self.of(&NAMES), self.of(&["", "", "p"]));
        match self.below(8) {
            0 => parse(name, self.of(&TEXTS)),
            1 | 2 => bind(portal, name),
            3 => describe('S', name),
            4 => describe('P', portal),
            5 => execute(portal, self.below(3) as i32),
            6 => close(if self.chance(50) { 'S' } else { 'P' }, name),
            _ => execute(portal, 0),
        }
    }

    fn run(&mut self, name: &str) -> Vec<u8> {
        let description = if self.chance(60) {
            describe('P', "")
        } else {
            Vec::new()
        };
        [bind("", name), description, execute("", 0), sync()].concat()
    }

    /// A COPY with its rows, one of which may be wrong. Where the COPY itself fails they are ignored.
    fn copy_in(&mut self) -> Vec<u8> {
        let rows = frame('d', if self.chance(80) { b"1\n2\n" } else { b"x\n" });
        let end = match self.chance(80) {
            true => frame('c', b""),
            false => frame('f', b"enough\0"),
        };
        const TABLE: &str = "CREATE TEMP TABLE IF NOT EXISTS copied (x int)";
        let begin = match self.chance(50) {
            true => query(&format!("{TABLE}; COPY copied FROM STDIN")),
            false => {
                // Under a name that no other step runs: the server would wait for rows that do not come.
                let copy = [
                    close('S', "copy"),
                    parse("copy", "COPY copied FROM STDIN"),
                    bind("copy", "copy"),
                    execute("copy", 0),
                ];
                return [copy.concat(), rows, end, sync()].concat();
            }
        };
        [begin, rows, end].concat()
    }

    /// What a client says before it waits for ReadyForQuery: in two parts if it waits in between.
    fn step(&mut self) -> (Option<Vec<u8>>, Vec<u8>) {
        let name = self.of(&NAMES);
        let prepare = [parse(name, self.of(&TEXTS[..5]))].concat();
        let kind = self.below(14);
        self.has_portal &= (3..12).contains(&kind);
        match kind {
            0..=2 => (None, query(self.of(&QUERIES))),
            3 | 4 => (None, [prepare, sync()].concat()),
            5 | 6 => (None, self.run(name)),
            7 => (None, [prepare, self.run(name)].concat()),
            8 => {
                let flushed = [prepare, describe('S', name), frame('H', b"")].concat();
                (Some(flushed), self.run(name))
            }
            9 if self.has_portal => (None, [execute("", 0), sync()].concat()),
            10 if self.has_portal => (None, [describe('P', ""), execute("", 1), sync()].concat()),
            12 => (None, self.copy_in()),
            13 => (None, frame('F', CALL_OF_ABS)),
            _ => {
                let count = 1 + self.below(6);
                let messages: Vec<u8> = (0..count).flat_map(|_| self.message()).collect();
                (None, [bind("", name), messages, sync()].concat())
            }
        }
    }
}

/// What comes back for one step.
async fn answer(client: &mut Client, step: &(Option<Vec<u8>>, Vec<u8>)) -> Vec<Frame> {
    let mut frames = Vec::new();
    if let Some(flushed) = &step.0 {
        client.send(flushed).await;
        while !frames
            .last()
            .is_some_and(|frame: &Frame| "TnE".contains(frame.tag()))
        {
            frames.push(client.frame().await.unwrap());
        }
    }
    frames.extend(client.exchange(&step.1).await);
    frames
}

fn rewrite(sql: &str) -> Play {
    Play::Rewrite {
        sql: sql.to_owned(),
        origins: vec![ColumnOrigin {
            table: 0,
            attnum: 0,
        }],
        keep_bytes_max: Some(10_000),
    }
}

async fn script(direct: &mut Client) -> Script {
    let replies = direct.query(CACHED).await;
    let mut cached = answer_of(&[]);
    cached.row_description = replies[0].0.clone().into();
    cached.rows = [&replies[1].0[..], &replies[2].0].concat().into();
    Script::new([
        (REWRITTEN, rewrite("SELECT 'rewritten' /* so */")),
        (
            ROWS,
            rewrite("/* so */ SELECT g::text FROM generate_series(1, 3) g"),
        ),
        (BROKEN, rewrite("SELECT * FROM nowhere")),
        (CACHED, Play::Cached(cached)),
        (PASSED, Play::Passthrough { clean: true }),
    ])
}

#[tokio::test]
async fn random_sessions_get_the_same_bytes() {
    let server = server().await;
    let script = script(&mut Client::connect(server.port()).await).await;
    let proxy = Proxy::start(&server, script).await;
    for seed in 1..=SESSIONS {
        let mut random = Random {
            state: seed.wrapping_mul(0x9e37_79b9),
            has_portal: false,
        };
        let mut direct = Client::connect(server.port()).await;
        let mut through = Client::connect(proxy.port).await;
        let mut said = Vec::new();
        for at in 0..STEPS {
            let step = random.step();
            let expected = answer(&mut direct, &step).await;
            let got = answer(&mut through, &step).await;
            let has_failed = expected.last().is_none_or(|frame| frame.body() == b"E");
            let is_bound = expected.iter().any(|frame| frame.tag() == '2');
            random.has_portal = (random.has_portal || is_bound) && !has_failed;
            said.push(step);
            let last: Vec<_> = said.iter().rev().take(8).rev().map(shown).collect();
            assert_eq!(got, expected, "session {seed}, step {at}, after {last:#?}");
            let is_whole = got.last().is_some_and(|frame| frame.tag() == 'Z');
            assert!(is_whole, "session {seed}, step {at}, after {last:#?}");
        }
    }
    let counters = &proxy.shared.counters;
    assert_eq!(counters.surprises.get(), 0);
    // Otherwise this shows nothing.
    for count in [&counters.answered, &counters.rewritten, &counters.fallbacks] {
        assert!(count.get() > 20, "{counters:?}");
    }
}

/// Some whole frames that may come at once, whatever the replies: no Execute runs a portal that an earlier Query
/// has left, see [`Random::has_portal`].
fn frames(random: &mut Random) -> Vec<Vec<u8>> {
    if random.chance(40) {
        return (0..3).map(|_| query(random.of(&QUERIES))).collect();
    }
    let mut frames = vec![];
    for _ in 0..3 {
        let (name, text) = (random.of(&NAMES), random.of(&TEXTS[..7]));
        frames.extend([parse(name, text), bind("", name), describe('P', "")]);
        frames.extend([execute("", random.below(3) as i32), sync()]);
    }
    frames
}

/// Changes a byte of a frame: its type, its length by less than 256, or what it says.
fn spoil(random: &mut Random, frame: &mut [u8]) {
    let byte = random.below(256) as u8;
    match random.below(4) {
        // A Query where an Execute follows, see `frames`.
        0 if byte != b'Q' => frame[0] = byte,
        1 => frame[4] = byte,
        _ => {
            let at = random.below(frame.len() as u32) as usize;
            if at > 4 {
                frame[at] = byte;
            }
        }
    }
}

/// All that is said until the connection is closed.
async fn last_words(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(port).await;
    client.send(bytes).await;
    let mut said = vec![];
    let read = client.socket.read_to_end(&mut said);
    // A reset connection is closed, too.
    let _closed = tokio::time::timeout(PATIENCE, read).await.unwrap();
    said
}

#[tokio::test]
async fn spoilt_frames_after_the_login_get_the_same_bytes() {
    let server = server().await;
    let script = script(&mut Client::connect(server.port()).await).await;
    let proxy = Proxy::start(&server, script).await;
    // Whatever length is claimed is there, and in the end somebody takes his leave.
    let rest = [sync().repeat(64), frame('X', b"")].concat();
    let mut refused = 0;
    for seed in 1..=SESSIONS * 3 {
        let mut random = Random {
            state: seed.wrapping_mul(0x85eb_ca6b),
            has_portal: false,
        };
        let mut frames = frames(&mut random);
        for _ in 0..1 + random.below(3) {
            let at = random.below(frames.len() as u32) as usize;
            spoil(&mut random, &mut frames[at]);
        }
        let bytes = [frames.concat(), rest.clone()].concat();
        let expected = last_words(server.port(), &bytes).await;
        let got = last_words(proxy.port, &bytes).await;
        let shown = bytes[..bytes.len() - rest.len()].escape_ascii();
        assert_eq!(
            got.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "session {seed}: {shown}"
        );
        refused += u32::from(expected.windows(5).any(|part| part == b"08P01"));
    }
    assert!(refused > SESSIONS / 2, "{refused} protocol errors");
    let mut neighbour = Client::connect(proxy.port).await;
    assert_eq!(
        values(&neighbour.query("SELECT 'unhurt'").await),
        ["unhurt"]
    );
}

fn shown(step: &(Option<Vec<u8>>, Vec<u8>)) -> String {
    let flushed = step.0.as_deref().unwrap_or_default();
    format!("{}; {}", flushed.escape_ascii(), step.1.escape_ascii())
}
