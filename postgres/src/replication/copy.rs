//! The CopyBoth phase: changes and keepalives come, our position goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};

use super::authenticate::unexpected;
use super::cursor::Cursor;
use super::error::ServerMessage;
use super::frame::{Frame, FrameReader};
use super::socket::Socket;
use super::{Lsn, ReplicationError};

/// How long either side stays silent.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// How often the server hears of our position without asking.
    status: Duration,
    /// After this much silence the server is asked for a sign of life.
    ping: Duration,
    /// After this much silence the connection is given up.
    silence_max: Duration,
}

const PATIENCE: Patience = Patience {
    status: Duration::from_secs(1),
    ping: Duration::from_secs(5),
    silence_max: Duration::from_secs(20),
};

/// How long writing a status update of a few bytes may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// PostgreSQL counts microseconds from 2000-01-01.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One message of the output plugin.
    Data {
        /// The message, or its beginning.
        message: Bytes,
        /// How many bytes at its end were not kept because it is too large.
        omitted: usize,
    },
    /// Everything that was logged before `end` has been sent.
    Keepalive {
        /// How far the server has decoded.
        end: Lsn,
    },
}

/// Up to where the server need not keep its log for us. Shared by who reads the stream and who deals
/// with what was read.
#[derive(Debug, Clone)]
pub struct Acknowledged(Arc<AtomicU64>);

impl Acknowledged {
    /// From now on tells the server that everything before `position` is dealt with. Positions are
    /// those of commits' ends, and of keepalives between transactions.
    pub fn advance(&self, position: Lsn) {
        self.0.fetch_max(position.0, Ordering::Relaxed);
    }

    fn get(&self) -> Lsn {
        Lsn(self.0.load(Ordering::Relaxed))
    }
}

/// A connection that streams. Feedback flows while [`next`](Self::next) is being awaited.
pub struct ReplicationStream {
    frames: FrameReader<Socket>,
    acknowledged: Acknowledged,
    /// The server waits for our position.
    owes_status: bool,
    next_status: Instant,
    heard: Instant,
    patience: Patience,
}

impl ReplicationStream {
    pub(super) fn new(frames: FrameReader<Socket>, from: Lsn) -> Self {
        let now = Instant::now();
        ReplicationStream {
            frames,
            acknowledged: Acknowledged(Arc::new(AtomicU64::new(from.0))),
            owes_status: false,
            next_status: now + PATIENCE.status,
            heard: now,
            patience: PATIENCE,
        }
    }

    /// What the server is told that it need not keep.
    pub fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.clone()
    }

    /// The next thing that the server sends. An end of the stream is an error, because a slot has none.
    pub async fn next(&mut self) -> Result<Event, ReplicationError> {
        loop {
            if self.owes_status || Instant::now() >= self.next_status {
                self.send_status().await?;
            }
            let next_status = self.next_status;
            let frame = tokio::select! {
                biased;
                frame = self.frames.next() => frame?,
                () = sleep_until(next_status) => {
                    self.check_silence()?;
                    continue;
                }
            };
            self.heard = Instant::now();
            if let Some(event) = self.read(frame)? {
                return Ok(event);
            }
        }
    }

    fn read(&mut self, frame: Frame) -> Result<Option<Event>, ReplicationError> {
        match frame.tag {
            b'd' => self.read_copy_data(frame).map(Some),
            b'E' => Err(ReplicationError::Server(ServerMessage::read(frame.body))),
            b'c' | b'C' => Err(ReplicationError::Closed),
            b'S' | b'N' => Ok(None),
            other => Err(unexpected(other, "while streaming")),
        }
    }

    fn read_copy_data(&mut self, frame: Frame) -> Result<Event, ReplicationError> {
        let mut body = Cursor::new(frame.body);
        match body.u8()? {
            b'w' => {
                // The start, the end and the time are the walsender's, not the transaction's.
                body.bytes(24)?;
                Ok(Event::Data {
                    message: body.rest(),
                    omitted: frame.omitted,
                })
            }
            b'k' => {
                let end = Lsn(body.u64()?);
                body.i64()?;
                self.owes_status |= body.u8()? != 0;
                Ok(Event::Keepalive { end })
            }
            other => Err(unexpected(other, "in CopyData")),
        }
    }

    fn check_silence(&self) -> Result<(), ReplicationError> {
        match self.heard.elapsed() {
            silence if silence > self.patience.silence_max => {
                Err(ReplicationError::Silent(silence))
            }
            _ => Ok(()),
        }
    }

    async fn send_status(&mut self) -> Result<(), ReplicationError> {
        let asks_for_reply = self.heard.elapsed() > self.patience.ping;
        let update = status_update(self.acknowledged.get(), asks_for_reply);
        let socket = self.frames.socket();
        let written = async {
            socket.write_all(&update).await?;
            socket.flush().await
        };
        let in_time = timeout(WRITE_TIMEOUT, written).await;
        in_time.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
        self.owes_status = false;
        self.next_status = Instant::now() + self.patience.status;
        Ok(())
    }
}

/// A standby status update in its frame: written, flushed and applied up to `position`.
fn status_update(position: Lsn, asks_for_reply: bool) -> BytesMut {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = since_epoch.saturating_sub(POSTGRES_EPOCH).as_micros();
    let mut frame = BytesMut::with_capacity(39);
    frame.put_u8(b'd');
    frame.put_i32(4 + 34);
    frame.put_u8(b'r');
    for _ in ["written", "flushed", "applied"] {
        frame.put_u64(position.0);
    }
    frame.put_u64(u64::try_from(now).unwrap_or_default());
    frame.put_u8(u8::from(asks_for_reply));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(sent: Vec<u8>) -> (ReplicationStream, tokio::io::DuplexStream) {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            far.write_all(&sent).await.unwrap();
            std::future::pending::<()>().await
        });
        let (ours, theirs) = tokio::io::duplex(4096);
        let both = tokio::io::join(near, ours);
        (
            ReplicationStream::new(FrameReader::new(Box::new(both)), Lsn(1)),
            theirs,
        )
    }

    fn copy_data(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'd'];
        frame.extend((body.len() as u32 + 4).to_be_bytes());
        frame.extend(body);
        frame
    }

    #[tokio::test]
    async fn data_and_keepalives_are_told_apart_and_requests_are_answered() {
        let data = [b"w".as_slice(), &[0; 24], b"payload"].concat();
        let keepalive = [b"k".as_slice(), &7u64.to_be_bytes(), &[0; 8], &[1]].concat();
        let sent = [copy_data(&keepalive), copy_data(&data), copy_data(b"?")].concat();
        let (mut stream, mut theirs) = stream(sent);
        stream.acknowledged().advance(Lsn(5));
        assert_eq!(
            stream.next().await.unwrap(),
            Event::Keepalive { end: Lsn(7) }
        );
        let message = Bytes::from_static(b"payload");
        assert_eq!(
            stream.next().await.unwrap(),
            Event::Data {
                message,
                omitted: 0
            }
        );
        let mut reply = [0; 39];
        tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut reply)
            .await
            .unwrap();
        assert_eq!(&reply[..14], b"d\0\0\0\x26r\0\0\0\0\0\0\0\x05");
        assert!(matches!(
            stream.next().await,
            Err(ReplicationError::Protocol(_))
        ));
    }

    #[tokio::test]
    async fn feedback_keeps_flowing_and_a_silent_server_is_given_up() {
        let (mut stream, theirs) = stream(vec![]);
        let milliseconds = Duration::from_millis;
        stream.patience = Patience {
            status: milliseconds(10),
            ping: milliseconds(100),
            silence_max: milliseconds(300),
        };
        stream.next_status = Instant::now();
        let outcome = stream.next().await;
        assert!(
            matches!(outcome, Err(ReplicationError::Silent(_))),
            "{outcome:?}"
        );
        drop(stream);
        let mut sent = vec![];
        let mut theirs = theirs;
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut sent)
            .await
            .unwrap();
        let updates: Vec<&[u8]> = sent.chunks(39).collect();
        assert!(updates.len() >= 5, "{}", updates.len());
        assert_eq!(updates[0].last(), Some(&0));
        assert_eq!(
            updates[updates.len() - 1].last(),
            Some(&1),
            "asks for a sign of life"
        );
    }
}
