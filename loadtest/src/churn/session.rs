//! One session over a socket, in the simple protocol.
//!
//! It must not know what is measured.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use super::scram::Keys;

/// The largest frame that is read: far more than the statements here are answered with.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// How a client logs in. The keys are derived from the password once for each salt, as RFC 5802 lets clients do: the
/// derivation is the same work for every address, and not theirs.
#[derive(Debug)]
pub struct Login {
    startup: Vec<u8>,
    password: String,
    keys: Option<Keys>,
}

impl Login {
    pub fn new(user: &str, password: &str, database: &str) -> Self {
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        for text in ["user", user, "database", database] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = (body.len() as i32 + 4).to_be_bytes();
        Login {
            startup: [&length[..], &body].concat(),
            password: password.to_owned(),
            keys: None,
        }
    }
}

/// Connects, logs in, runs the statements one after the other, and leaves.
///
/// # Errors
/// The connection, or an error that the server sent.
pub fn play<'s>(
    address: &str,
    login: &mut Login,
    statements: impl Iterator<Item = &'s str>,
) -> io::Result<()> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut session = Session {
        reader: BufReader::new(socket),
    };
    session.send(&login.startup)?;
    session.log_in(login)?;
    for statement in statements {
        session.send(&frame(b'Q', &[statement.as_bytes(), &[0]].concat()))?;
        while session.receive()?.0 != b'Z' {}
    }
    session.send(&frame(b'X', &[]))
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as i32 + 4).to_be_bytes();
    [&[tag], &length[..], body].concat()
}

struct Session {
    reader: BufReader<TcpStream>,
}

impl Session {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.reader.read_exact(&mut header)?;
        let [tag, length @ ..] = header;
        let size = (i32::from_be_bytes(length) as usize).wrapping_sub(4);
        if size > FRAME_BYTES_MAX {
            return Err(io::Error::other("a frame is too long"));
        }
        let mut body = vec![0; size];
        self.reader.read_exact(&mut body)?;
        match tag {
            b'E' => Err(io::Error::other(
                String::from_utf8_lossy(&body).replace('\0', " "),
            )),
            _ => Ok((tag, body)),
        }
    }

    fn log_in(&mut self, login: &mut Login) -> io::Result<()> {
        let mut proving = None;
        loop {
            let (tag, body) = self.receive()?;
            let method = body.get(3).copied();
            match (tag, method) {
                (b'Z', _) => return Ok(()),
                (b'R', Some(10)) => {
                    let nonce = super::scram::nonce();
                    let message = format!("n,,n=,r={nonce}");
                    let length = (message.len() as i32).to_be_bytes();
                    let body = [b"SCRAM-SHA-256\0", &length[..], message.as_bytes()].concat();
                    self.send(&frame(b'p', &body))?;
                    proving = Some(nonce);
                }
                (b'R', Some(11)) => {
                    let server_first = String::from_utf8_lossy(&body[4..]).into_owned();
                    let nonce = proving.take().unwrap_or_default();
                    let keys = Keys::derive(&mut login.keys, &login.password, &server_first);
                    let keys = keys.ok_or_else(|| io::Error::other("not a SCRAM message"))?;
                    let proof = keys.prove(&nonce, &server_first);
                    self.send(&frame(b'p', proof.as_bytes()))?;
                }
                _ => {}
            }
        }
    }
}
