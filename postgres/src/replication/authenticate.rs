//! Start-up and authentication: from an open socket to a server that is ready for commands.
//!
//! Passwords are read from the connection string and appear in no error.

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use tokio_postgres::Config;

use super::ReplicationError;
use super::cursor::Cursor;
use super::error::ServerMessage;
use super::frame::FrameReader;
use super::socket::Socket;
use crate::connect::APPLICATION_NAME;

/// Says who we are, proves it, and waits until the server is ready; returns its process number.
pub(super) async fn start_up(
    frames: &mut FrameReader<Socket>,
    config: &Config,
) -> Result<i32, ReplicationError> {
    let user = user(config)?;
    send(frames, |buffer| startup_message(config, &user, buffer)).await?;
    let mut scram = None;
    let mut process = 0;
    loop {
        let frame = frames.next().await?;
        match frame.tag {
            b'R' => answer(frames, config, &user, &mut scram, frame.body).await?,
            b'K' => process = Cursor::new(frame.body).i32()?,
            b'E' => return Err(ReplicationError::Server(ServerMessage::read(frame.body))),
            b'Z' => return Ok(process),
            b'S' | b'N' => (),
            b'v' => {
                let what = "the server does not speak protocol 3.0".to_owned();
                return Err(ReplicationError::Protocol(what));
            }
            other => return Err(unexpected(other, "while connecting")),
        }
    }
}

pub(super) fn unexpected(tag: u8, when: &str) -> ReplicationError {
    ReplicationError::Protocol(format!("type \"{}\" {when}", tag.escape_ascii()))
}

/// As libpq does, the account's name stands in for a user who is not named.
fn user(config: &Config) -> Result<String, ReplicationError> {
    let named = config.get_user().map(str::to_owned);
    let user = named.or_else(|| std::env::var("USER").ok());
    user.ok_or_else(|| {
        ReplicationError::Authentication("the connection string names no user".to_owned())
    })
}

fn startup_message(config: &Config, user: &str, buffer: &mut BytesMut) -> std::io::Result<()> {
    let mut parameters = vec![
        ("user", user),
        ("database", config.get_dbname().unwrap_or(user)),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        // Values are sent as text, and read again in sessions with settings of their own.
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("TimeZone", "UTC"),
        (
            "application_name",
            config.get_application_name().unwrap_or(APPLICATION_NAME),
        ),
    ];
    parameters.extend(config.get_options().map(|options| ("options", options)));
    frontend::startup_message(parameters, buffer)
}

async fn answer(
    frames: &mut FrameReader<Socket>,
    config: &Config,
    user: &str,
    scram: &mut Option<ScramSha256>,
    request: Bytes,
) -> Result<(), ReplicationError> {
    let mut request = Cursor::new(request);
    match request.i32()? {
        // SCRAM ends with the server's own proof; without it this may be anybody.
        0 if scram.is_some() => Err(ReplicationError::Authentication(
            "the server did not prove that it knows the password".to_owned(),
        )),
        0 => Ok(()),
        3 => {
            let password = password(config)?;
            send(frames, |buffer| {
                frontend::password_message(password, buffer)
            })
            .await
        }
        5 => {
            let salt = request.u32()?.to_be_bytes();
            let hash = md5_hash(user.as_bytes(), password(config)?, salt);
            send(frames, |buffer| {
                frontend::password_message(hash.as_bytes(), buffer)
            })
            .await
        }
        10 => {
            let begun = scram.insert(begin_scram(config, request)?);
            let first = begun.message();
            send(frames, |buffer| {
                frontend::sasl_initial_response(SCRAM_SHA_256, first, buffer)
            })
            .await
        }
        11 => {
            let begun = begun(scram)?;
            begun.update(&request.rest()).map_err(refused)?;
            let proof = begun.message();
            send(frames, |buffer| frontend::sasl_response(proof, buffer)).await
        }
        12 => {
            begun(scram)?.finish(&request.rest()).map_err(refused)?;
            *scram = None;
            Ok(())
        }
        other => Err(ReplicationError::Authentication(format!(
            "the server asks for method {other}, which is not supported; trust, password, md5 and scram-sha-256 are"
        ))),
    }
}

fn password(config: &Config) -> Result<&[u8], ReplicationError> {
    config.get_password().ok_or_else(|| {
        ReplicationError::Authentication(
            "the server asks for a password, and none is given".to_owned(),
        )
    })
}

fn begin_scram(config: &Config, mut request: Cursor) -> Result<ScramSha256, ReplicationError> {
    let mut offers_scram = false;
    while let Ok(mechanism) = request.string() {
        offers_scram |= mechanism == SCRAM_SHA_256;
    }
    if !offers_scram {
        return Err(ReplicationError::Authentication(
            "the server does not offer SCRAM-SHA-256".to_owned(),
        ));
    }
    Ok(ScramSha256::new(
        password(config)?,
        ChannelBinding::unsupported(),
    ))
}

fn begun(scram: &mut Option<ScramSha256>) -> Result<&mut ScramSha256, ReplicationError> {
    scram
        .as_mut()
        .ok_or_else(|| ReplicationError::Protocol("SCRAM goes on that has not begun".to_owned()))
}

/// The server could not show that it knows the password either, or broke the protocol.
fn refused(error: std::io::Error) -> ReplicationError {
    ReplicationError::Authentication(error.to_string())
}

/// Writes one message that `build` makes.
pub(super) async fn send(
    frames: &mut FrameReader<Socket>,
    build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), ReplicationError> {
    let mut buffer = BytesMut::new();
    build(&mut buffer)?;
    frames.socket().write_all(&buffer).await?;
    Ok(frames.socket().flush().await?)
}
