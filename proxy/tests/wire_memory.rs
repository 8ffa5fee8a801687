//! The proxy's memory does not grow with what passes through it.
//!
//! Alone in its file, because it measures the whole process.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire_support::*;

const VALUE_BYTES: usize = 64 * 1024 * 1024;
const GROWTH_MAX_KIB: u64 = 8 * 1024;

/// The most memory this process has used so far.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Reads and forgets bytes until this many have come.
async fn discard(client: &mut Client, mut left: usize) {
    let mut bytes = vec![0; 64 * 1024];
    while left > 0 {
        let count = client.socket.read(&mut bytes).await.unwrap();
        assert!(count > 0);
        left = left.saturating_sub(count);
    }
}

#[tokio::test]
async fn a_value_of_64_mib_passes_in_either_direction() {
    if !std::path::Path::new("/proc/self/status").exists() {
        return;
    }
    let server = server().await;
    let large = format!("SELECT repeat('x', {VALUE_BYTES})");
    let plays = [("SELECT 'asked'", rewrite_to(&large))];
    let proxy = Proxy::start(&server, Script::new(plays)).await;
    let mut client = Client::connect(proxy.port).await;
    client.query("SELECT 1").await;
    let before = peak_kib();
    for bytes in [query(&large), query("SELECT 'asked'")] {
        client.send(&bytes).await;
        // RowDescription, the row's header and the end of the statement come around the value.
        discard(&mut client, VALUE_BYTES).await;
        client.socket.write_all(&sync()).await.unwrap();
        discard(&mut client, 1).await;
        drain_to_silence(&mut client).await;
    }
    send_large_parameter(&mut client).await;
    let growth = peak_kib() - before;
    assert!(growth < GROWTH_MAX_KIB, "{growth} KiB");
}

async fn drain_to_silence(client: &mut Client) {
    let mut bytes = vec![0; 64 * 1024];
    let pause = std::time::Duration::from_millis(300);
    while let Ok(count) = tokio::time::timeout(pause, client.socket.read(&mut bytes)).await {
        assert!(count.unwrap() > 0);
    }
}

/// A batch whose parameter is as large as the value.
async fn send_large_parameter(client: &mut Client) {
    client.send(&parse("", "SELECT length($1)::text")).await;
    let names_and_formats = b"\0\0\0\0\0\x01";
    let length = 4 + names_and_formats.len() + 4 + VALUE_BYTES + 2;
    client
        .send(
            &[
                b"B",
                &(length as i32).to_be_bytes()[..],
                names_and_formats,
                &(VALUE_BYTES as i32).to_be_bytes(),
            ]
            .concat(),
        )
        .await;
    let piece = vec![b'y'; 64 * 1024];
    for _ in 0..VALUE_BYTES / piece.len() {
        client.send(&piece).await;
    }
    let replies = client
        .exchange(&[b"\0\0".to_vec(), execute("", 0), sync()].concat())
        .await;
    assert_eq!(values(&replies), [VALUE_BYTES.to_string()]);
}
