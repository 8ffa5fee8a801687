//! A table's rows in order, made by several threads a bounded distance ahead of the reader.
//!
//! Thread i of n makes chunks i, i+n, i+2n, … and the reader takes from the threads in turn, so the
//! bytes are the same for every n. Must not know where the bytes go.

use std::{sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    copy_text::CopyText,
    generator::{Generator, Table},
};

/// Units (rows, or orders) in a chunk; a chunk of lineorder is about 800 KiB.
const CHUNK_UNITS: u64 = 2048;
const CHUNK_BYTES_TYPICAL: usize = 1 << 20;
/// Finished chunks that may wait for the reader, for each thread.
const CHUNKS_AHEAD_MAX: usize = 2;

/// Consecutive rows of a table as COPY text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How many rows.
    pub rows: u64,
    /// The rows.
    pub bytes: Bytes,
}

/// A generating thread ended before its last chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a generating thread ended early")]
pub struct GeneratorStopped;

/// The chunks of one table, first to last.
#[derive(Debug)]
pub struct ChunkStream {
    lanes: Vec<mpsc::Receiver<Chunk>>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
    count: u64,
}

impl ChunkStream {
    /// Starts this many threads (at least one) on the table.
    pub fn start(generator: &Arc<Generator>, table: Table, threads: usize) -> Self {
        let mut stream = ChunkStream {
            lanes: Vec::new(),
            threads: Vec::new(),
            next: 0,
            count: generator.units(table).div_ceil(CHUNK_UNITS),
        };
        let lanes = threads.max(1);
        for lane in 0..lanes {
            let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
            let generator = Arc::clone(generator);
            let chunks = (lane as u64..stream.count).step_by(lanes);
            let run = move || make_chunks(&generator, table, chunks, &sender);
            stream.threads.push(std::thread::spawn(run));
            stream.lanes.push(receiver);
        }
        stream
    }

    /// The next chunk; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Chunk>, GeneratorStopped> {
        let Some(lane) = self.advance() else {
            return Ok(None);
        };
        lane.recv().await.ok_or(GeneratorStopped).map(Some)
    }

    /// The next chunk, for callers outside a runtime.
    pub fn next_blocking(&mut self) -> Result<Option<Chunk>, GeneratorStopped> {
        let Some(lane) = self.advance() else {
            return Ok(None);
        };
        lane.blocking_recv().ok_or(GeneratorStopped).map(Some)
    }

    fn advance(&mut self) -> Option<&mut mpsc::Receiver<Chunk>> {
        if self.next == self.count {
            return None;
        }
        let lane = self.next % self.lanes.len() as u64;
        self.next += 1;
        self.lanes.get_mut(lane as usize)
    }
}

impl Drop for ChunkStream {
    /// Threads notice that nobody reads within one chunk, so waiting for them is short.
    fn drop(&mut self) {
        self.lanes.clear();
        for thread in self.threads.drain(..) {
            // A thread that panicked has already made the reader see GeneratorStopped.
            let _ = thread.join();
        }
    }
}

fn make_chunks(
    generator: &Generator,
    table: Table,
    chunks: impl Iterator<Item = u64>,
    sender: &mpsc::Sender<Chunk>,
) {
    for chunk in chunks {
        let first = chunk * CHUNK_UNITS;
        let end = (first + CHUNK_UNITS).min(generator.units(table));
        let mut out = CopyText::with_capacity(CHUNK_BYTES_TYPICAL);
        generator.write(table, first..end, &mut out);
        let chunk = Chunk {
            rows: out.rows(),
            bytes: Bytes::from(out.into_bytes()),
        };
        if sender.blocking_send(chunk).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(seed: u64, table: Table, threads: usize) -> Vec<u8> {
        let generator = Arc::new(Generator::new("0.01".parse().unwrap(), seed));
        let mut stream = ChunkStream::start(&generator, table, threads);
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next_blocking().unwrap() {
            bytes.extend_from_slice(&chunk.bytes);
        }
        bytes
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        for table in Table::ALL {
            let alone = bytes_of(1, table, 1);
            assert_eq!(alone, bytes_of(1, table, 3), "{table:?}");
            assert_eq!(alone, bytes_of(1, table, 64), "{table:?}");
        }
    }

    #[test]
    fn bytes_do_not_depend_on_where_chunks_begin() {
        let generator = Generator::new("0.01".parse().unwrap(), 1);
        for table in Table::ALL {
            let mut whole = CopyText::default();
            generator.write(table, 0..generator.units(table), &mut whole);
            assert_eq!(whole.bytes(), bytes_of(1, table, 2), "{table:?}");
        }
    }

    #[test]
    fn the_seed_decides_all_tables_but_the_calendar() {
        for table in Table::ALL {
            let same = bytes_of(1, table, 1) == bytes_of(2, table, 1);
            assert_eq!(same, table == Table::Date, "{table:?}");
        }
    }

    #[test]
    fn a_reader_may_leave_early() {
        let generator = Arc::new(Generator::new("0.1".parse().unwrap(), 1));
        let mut stream = ChunkStream::start(&generator, Table::Lineorder, 2);
        assert!(stream.next_blocking().unwrap().is_some());
        drop(stream);
    }
}
