//! Commands of the replication protocol, before streaming begins.

use bytes::Bytes;
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tokio_postgres::Config;

use super::authenticate::{self, send, unexpected};
use super::copy::ReplicationStream;
use super::cursor::Cursor;
use super::error::ServerMessage;
use super::frame::FrameReader;
use super::socket::{self, Socket};
use super::{Lsn, ReplicationError};
use crate::connect::CONNECT_TIMEOUT;
use crate::identifier::{quote, quote_literal};
use crate::tls::{self, ClientTls, SslMode};

/// A connection with `replication=database`, ready for a command.
pub struct ReplicationConnection {
    frames: FrameReader<Socket>,
    process: i32,
}

/// What IDENTIFY_SYSTEM answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Given to the cluster by initdb; its physical standbys share it.
    pub system: String,
    /// The timeline.
    pub timeline: String,
    /// How far the write-ahead log is flushed.
    pub flushed: Lsn,
}

/// How long a slot lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLifetime {
    /// Until this connection ends; nothing is retained for it afterwards.
    Temporary,
    /// Until somebody drops it; the server keeps its write-ahead log.
    Permanent,
}

/// Whether creating a slot also exports the snapshot that fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotSnapshot {
    /// No snapshot.
    None,
    /// Exported until the next command on this connection.
    Export,
}

/// A slot that was just created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Every transaction whose commit record begins here or later is streamed, and no earlier one.
    pub consistent_point: Lsn,
    /// The exported snapshot, for SET TRANSACTION SNAPSHOT.
    pub snapshot: Option<String>,
}

impl ReplicationConnection {
    /// Connects, authenticates and waits until the server is ready.
    pub async fn connect(config: &Config) -> Result<Self, ReplicationError> {
        let tls = tls::of(config)?;
        let connected = Self::connect_with(config, tls.as_ref()).await;
        match (connected, tls) {
            (Err(ReplicationError::Server(_)), Some(tls)) if tls.mode() == SslMode::Allow => {
                Self::connect_with(config, Some(&tls.required())).await
            }
            (connected, _) => connected,
        }
    }

    async fn connect_with(
        config: &Config,
        tls: Option<&ClientTls>,
    ) -> Result<Self, ReplicationError> {
        let within = config
            .get_connect_timeout()
            .copied()
            .unwrap_or(CONNECT_TIMEOUT);
        let mut frames = FrameReader::new(socket::open(config, tls).await?);
        let process = timeout(within, authenticate::start_up(&mut frames, config))
            .await
            .unwrap_or(Err(ReplicationError::Silent(within)))?;
        Ok(ReplicationConnection { frames, process })
    }

    /// The number of the server process, as in `pg_stat_activity.pid`.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// Who the server is.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, ReplicationError> {
        let row = self.one_row("IDENTIFY_SYSTEM").await?;
        let [system, timeline, flushed, ..] = row.as_slice() else {
            return Err(missing("IDENTIFY_SYSTEM"));
        };
        Ok(SystemIdentity {
            system: text(system),
            timeline: text(timeline),
            flushed: position(flushed)?,
        })
    }

    /// Creates a slot that decodes with pgoutput.
    ///
    /// The server answers only when every transaction that was writing has ended.
    pub async fn create_slot(
        &mut self,
        name: &str,
        lifetime: SlotLifetime,
        snapshot: SlotSnapshot,
    ) -> Result<Slot, ReplicationError> {
        let temporary = match lifetime {
            SlotLifetime::Temporary => " TEMPORARY",
            SlotLifetime::Permanent => "",
        };
        let snapshot = match snapshot {
            SlotSnapshot::None => "NOEXPORT_SNAPSHOT",
            SlotSnapshot::Export => "EXPORT_SNAPSHOT",
        };
        let name = quote(name);
        let command =
            format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {snapshot}");
        let row = self.one_row(&command).await?;
        let [name, consistent_point, snapshot, ..] = row.as_slice() else {
            return Err(missing("CREATE_REPLICATION_SLOT"));
        };
        Ok(Slot {
            name: text(name),
            consistent_point: position(consistent_point)?,
            snapshot: snapshot.as_ref().map(|_| text(snapshot)),
        })
    }

    /// Drops a slot that nobody uses.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), ReplicationError> {
        let command = format!("DROP_REPLICATION_SLOT {}", quote(name));
        self.rows(&command).await.map(drop)
    }

    /// Streams what the publications say from `from` on, or from where the slot is if that is later:
    /// the server moves forward without a word.
    pub async fn start(
        mut self,
        slot: &str,
        from: Lsn,
        publications: &[&str],
    ) -> Result<ReplicationStream, ReplicationError> {
        let names: Vec<String> = publications.iter().map(|name| quote(name)).collect();
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} \
             (proto_version '2', streaming 'on', publication_names {}, messages 'true')",
            quote(slot),
            quote_literal(&names.join(","))
        );
        send(&mut self.frames, |buffer| frontend::query(&command, buffer)).await?;
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'W' => return Ok(ReplicationStream::new(self.frames, from)),
                b'E' => return Err(ReplicationError::Server(ServerMessage::read(frame.body))),
                b'S' | b'N' => (),
                other => return Err(unexpected(other, "instead of CopyBothResponse")),
            }
        }
    }

    async fn one_row(&mut self, command: &str) -> Result<Vec<Option<Bytes>>, ReplicationError> {
        let rows = self.rows(command).await?;
        let what = || ReplicationError::Protocol("a command answered without a row".to_owned());
        rows.into_iter().next().ok_or_else(what)
    }

    /// Runs a command, or SQL with the simple protocol, to its end. An error leaves the connection usable.
    pub async fn rows(
        &mut self,
        command: &str,
    ) -> Result<Vec<Vec<Option<Bytes>>>, ReplicationError> {
        send(&mut self.frames, |buffer| frontend::query(command, buffer)).await?;
        let (mut rows, mut refused) = (vec![], None);
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'D' => rows.push(columns(frame.body)?),
                b'E' => refused = Some(ServerMessage::read(frame.body)),
                b'Z' => break,
                b'T' | b'C' | b'I' | b'S' | b'N' => (),
                other => return Err(unexpected(other, "in answer to a command")),
            }
        }
        refused.map_or(Ok(rows), |refused| Err(ReplicationError::Server(refused)))
    }
}

fn columns(row: Bytes) -> Result<Vec<Option<Bytes>>, ReplicationError> {
    let mut row = Cursor::new(row);
    let count = row.i16()?;
    let mut columns = vec![];
    for _ in 0..count {
        let length = row.i32()?;
        columns.push(match usize::try_from(length) {
            Ok(length) => Some(row.bytes(length)?),
            Err(_) => None,
        });
    }
    Ok(columns)
}

fn text(column: &Option<Bytes>) -> String {
    let bytes = column.as_deref().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn position(column: &Option<Bytes>) -> Result<Lsn, ReplicationError> {
    let parsed = text(column).parse();
    parsed.map_err(|error: super::NotAnLsn| ReplicationError::Protocol(error.to_string()))
}

fn missing(command: &str) -> ReplicationError {
    ReplicationError::Protocol(format!("{command} answered with too few columns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_nulls_and_refused_when_cut() {
        let row = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        let read = columns(Bytes::from_static(row)).unwrap();
        assert_eq!(read, [Some(Bytes::from_static(b"a")), None]);
        assert!(columns(Bytes::from_static(&row[..8])).is_err());
    }
}
