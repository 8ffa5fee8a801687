//! Keeps lines of changed rows, in memory up to a bound and in files beyond it.
//!
//! A [`Log`] is a sequence of runs, each tagged with the transaction or sub-transaction that its lines
//! belong to, so that those of a part that was rolled back can be skipped when it is read. Full pieces of
//! a log are sealed; a sealed piece goes to a file when too much is in memory already. The files have no
//! names, and end with the last piece that is in them.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::pgoutput::Xid32;

/// A log is sealed in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;

/// Sealed pieces beyond this go to files.
pub(super) const MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A file that has this much is followed by another, so that disk space comes back.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The tag and the length of a run.
const HEADER_BYTES: usize = 8;

/// Where sealed pieces go. One for all logs of an epoch.
pub(super) struct Spool {
    memory_bytes_max: u64,
    /// Sealed pieces in memory.
    in_memory: Arc<AtomicU64>,
    /// All sealed pieces.
    sealed: Arc<AtomicU64>,
    file: Option<Arc<File>>,
    written: u64,
}

impl Spool {
    pub(super) fn new(memory_bytes_max: u64) -> Self {
        Spool {
            memory_bytes_max,
            in_memory: Arc::default(),
            sealed: Arc::default(),
            file: None,
            written: 0,
        }
    }

    /// How much is kept, wherever.
    pub(super) fn bytes(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// How much of it is in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed)
    }

    fn seal(&mut self, bytes: Bytes) -> io::Result<Piece> {
        let length = bytes.len();
        let is_full = self.memory_bytes() + length as u64 > self.memory_bytes_max;
        let place = match is_full {
            false => Place::Memory(bytes, Counted::new(&self.in_memory, length)),
            true => self.write(&bytes)?,
        };
        let counted = Counted::new(&self.sealed, length);
        Ok(Piece(Arc::new((place, counted))))
    }

    /// Into the system's cache, as a rule, which writes it when it likes.
    fn write(&mut self, bytes: &Bytes) -> io::Result<Place> {
        let file = match &self.file {
            Some(file) if self.written < FILE_BYTES => Arc::clone(file),
            Some(_) | None => {
                self.written = 0;
                Arc::clone(self.file.insert(Arc::new(tempfile::tempfile()?)))
            }
        };
        let at = self.written;
        file.write_all_at(bytes, at)?;
        self.written += bytes.len() as u64;
        let length = bytes.len();
        Ok(Place::File { file, at, length })
    }
}

/// Bytes that count for as long as they are kept.
struct Counted {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Counted {
    fn new(total: &Arc<AtomicU64>, bytes: usize) -> Self {
        let bytes = bytes as u64;
        total.fetch_add(bytes, Ordering::Relaxed);
        Counted {
            bytes,
            total: Arc::clone(total),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

enum Place {
    Memory(Bytes, #[allow(dead_code)] Counted),
    File {
        file: Arc<File>,
        at: u64,
        length: usize,
    },
}

/// A sealed piece of a log, shared by who keeps it and who reads it.
#[derive(Clone)]
struct Piece(Arc<(Place, Counted)>);

impl Piece {
    fn read(&self) -> io::Result<Bytes> {
        match &self.0.0 {
            Place::Memory(bytes, _) => Ok(bytes.clone()),
            Place::File { file, at, length } => {
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *at)?;
                Ok(bytes.into())
            }
        }
    }

    fn is_in_memory(&self) -> bool {
        matches!(self.0.0, Place::Memory(..))
    }
}

/// Runs of lines.
#[derive(Default)]
pub(super) struct Log {
    sealed: Vec<Piece>,
    open: BytesMut,
    /// The tag of the run at the end of `open`, and where its header is.
    run: Option<(Xid32, usize)>,
    /// How many lines there are, at most.
    pub(super) lines: u64,
    /// How long they are, at most, with what tells them apart.
    pub(super) bytes: u64,
}

impl Log {
    /// Appends a line, or nothing if `write` refuses.
    pub(super) fn append<E>(
        &mut self,
        tag: Xid32,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter(tag);
        let start = self.open.len();
        let outcome = write(&mut self.open);
        match outcome {
            Ok(()) => {
                self.lines += 1;
                self.bytes += (self.open.len() - start) as u64;
            }
            Err(_) => self.open.truncate(start),
        }
        outcome
    }

    /// What is appended from here on belongs to `tag`.
    fn enter(&mut self, tag: Xid32) {
        if self.run.is_some_and(|(current, _)| current == tag) {
            return;
        }
        self.end_run();
        self.run = Some((tag, self.open.len()));
        self.open.put_u32(tag.0);
        self.open.put_u32(0);
    }

    fn end_run(&mut self) {
        if let Some((_, header)) = self.run.take() {
            let length = (self.open.len() - header - HEADER_BYTES) as u32;
            let place = header + 4..header + HEADER_BYTES;
            if let Some(place) = self.open.get_mut(place) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
    }

    pub(super) fn is_small(&self) -> bool {
        self.sealed.is_empty()
    }

    pub(super) fn is_due(&self) -> bool {
        self.open.len() >= PIECE_BYTES
    }

    /// What is open becomes a sealed piece. What could not be written is lost.
    pub(super) fn seal(&mut self, spool: &mut Spool) -> io::Result<()> {
        self.end_run();
        if !self.open.is_empty() {
            self.sealed.push(spool.seal(self.open.split().freeze())?);
        }
        Ok(())
    }

    /// Appends a small log whole, as lines of `tag`.
    pub(super) fn absorb(&mut self, mut other: Log, skip: &HashSet<Xid32>, tag: Xid32) {
        other.end_run();
        let mut runs = Runs(other.open.freeze());
        while let Some((from, lines)) = runs.next() {
            if !skip.contains(&from) {
                self.enter(tag);
                self.open.extend_from_slice(&lines);
            }
        }
        self.lines += other.lines;
        self.bytes += other.bytes;
    }

    /// What is in it now, to be read without it. Sealed first.
    pub(super) fn reading(&self, skip: Arc<HashSet<Xid32>>) -> Reading {
        Reading {
            pieces: self.sealed.clone(),
            skip,
        }
    }
}

/// The lines of a log, but for those of the skipped.
#[derive(Clone)]
pub(super) struct Reading {
    pieces: Vec<Piece>,
    skip: Arc<HashSet<Xid32>>,
}

impl Reading {
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The lines of one piece.
    pub(super) async fn lines(&self, at: usize) -> io::Result<Vec<Bytes>> {
        let Some(piece) = self.pieces.get(at).cloned() else {
            return Ok(vec![]);
        };
        let bytes = match piece.is_in_memory() {
            true => piece.read()?,
            false => tokio::task::spawn_blocking(move || piece.read())
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))?,
        };
        let mut runs = Runs(bytes);
        let mut lines = vec![];
        while let Some((tag, run)) = runs.next() {
            if !self.skip.contains(&tag) && !run.is_empty() {
                lines.push(run);
            }
        }
        Ok(lines)
    }
}

struct Runs(Bytes);

impl Runs {
    fn next(&mut self) -> Option<(Xid32, Bytes)> {
        if self.0.len() < HEADER_BYTES {
            return None;
        }
        let tag = Xid32(self.0.get_u32());
        let length = self.0.get_u32() as usize;
        Some((tag, self.0.split_to(length.min(self.0.len()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &mut Log, spool: &mut Spool, tag: u32, line: &str) {
        let put = |out: &mut BytesMut| {
            out.extend_from_slice(line.as_bytes());
            Ok::<(), ()>(())
        };
        log.append(Xid32(tag), put).unwrap();
        if log.is_due() {
            log.seal(spool).unwrap();
        }
    }

    async fn read(log: &mut Log, spool: &mut Spool, skip: &[u32]) -> String {
        log.seal(spool).unwrap();
        let skip = skip.iter().map(|tag| Xid32(*tag)).collect();
        let reading = log.reading(Arc::new(skip));
        let mut all = vec![];
        for piece in 0..reading.pieces() {
            for lines in reading.lines(piece).await.unwrap() {
                all.extend_from_slice(&lines);
            }
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn lines_of_the_skipped_are_left_out() {
        let (mut log, mut spool) = (Log::default(), Spool::new(u64::MAX));
        for (tag, line) in [(1, "a\n"), (1, "b\n"), (2, "c\n"), (1, "d\n"), (3, "e\n")] {
            write(&mut log, &mut spool, tag, line);
        }
        assert_eq!(log.append(Xid32(1), |_| Err("no line")), Err("no line"));
        assert_eq!(read(&mut log, &mut spool, &[2]).await, "a\nb\nd\ne\n");
        assert_eq!(read(&mut log, &mut spool, &[1, 3]).await, "c\n");
        let mut group = Log::default();
        let mut small = Log::default();
        write(&mut small, &mut spool, 8, "x\n");
        write(&mut small, &mut spool, 9, "y\n");
        group.absorb(small, &HashSet::from([Xid32(8)]), Xid32(7));
        write(&mut group, &mut spool, 7, "z\n");
        assert_eq!(read(&mut group, &mut spool, &[]).await, "y\nz\n");
        assert_eq!(read(&mut group, &mut spool, &[7]).await, "");
    }

    #[tokio::test]
    async fn memory_is_bounded_and_nothing_is_lost() {
        let (mut log, mut spool) = (Log::default(), Spool::new(200_000));
        let mut expected = String::new();
        for at in 0..100_000 {
            let line = format!("line {at}\n");
            write(&mut log, &mut spool, at / 30_000, &line);
            expected += &line;
            assert!(spool.memory_bytes() <= 200_000);
        }
        assert_eq!(read(&mut log, &mut spool, &[]).await, expected);
        assert!(spool.bytes() > 1_000_000, "{}", spool.bytes());
        drop(log);
        assert_eq!((spool.bytes(), spool.memory_bytes()), (0, 0));
    }
}
