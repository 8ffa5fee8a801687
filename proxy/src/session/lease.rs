//! What must be known of a session whose backend may serve another one after it: what it may have left there.
//!
//! A session without a lease pays one comparison for each frame of its client. It must not know how a backend is reset.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Session;
use super::held::Held;
use super::pledge::Pledge;
use super::preamble::{holds_nothing, leaves_settings};
use crate::pool::{Functions, Greeting, Learnt, Pool, Registration, Stamp, is_harmless};
use crate::wire::{HEADER_BYTES, Header, client_tag, header, read, server_tag};

/// A setting that PostgreSQL reports is a name and a value; a longer frame is not looked at.
const SETTING_FRAME_BYTES_MAX: usize = 4 * 1024;

/// A backend on loan.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) pool: Arc<Pool>,
    /// The start-up packet, for which the backend was opened.
    pub(super) packet: Bytes,
    pub(super) user: Box<str>,
    pub(super) stamp: Stamp,
    pub(super) greeting: Arc<Greeting>,
    pub(super) born: Instant,
    pub(super) registration: Registration,
    /// What statements may call without leaving anything.
    pub(super) functions: Arc<Functions>,
    /// Something ran that a reset need not undo, or may have.
    pub(super) is_tainted: bool,
    /// Anything of the client ran.
    pub(super) is_touched: bool,
    /// When PostgreSQL was asked what the session begins with.
    pub(super) begun: Instant,
    /// Nothing ran that can have changed a setting.
    pub(super) has_first_settings_only: bool,
    /// Nothing ran in the open transaction that holds a lock, or anything else that others notice the end of.
    pub(super) holds_nothing: bool,
    /// Replies that PostgreSQL owes and the client has.
    pub(super) pledges: VecDeque<Pledge>,
    /// What the client was answered and PostgreSQL was not sent yet.
    pub(super) held: Vec<Held>,
    /// What was learnt on this backend.
    pub(super) learnt: Learnt,
    /// Some of it does not hold any more.
    pub(super) is_learnt_outdated: bool,
    /// The reported settings that changed, with their last values.
    pub(super) settings: BTreeMap<Bytes, Bytes>,
}

impl Lease {
    /// A frame of the client goes to the backend.
    pub(super) fn note(&mut self, header: Header, body: Option<&[u8]>) {
        use client_tag::*;
        self.is_touched = true;
        match header.tag {
            QUERY | PARSE => self.note_text(body.and_then(|body| text(header.tag, body))),
            // They run what was parsed before.
            BIND | CLOSE | DESCRIBE | EXECUTE | FLUSH | SYNC => {}
            _ => self.note_text(None),
        }
    }

    /// A text that the backend will run; `None` for one that cannot be read, or may do anything.
    fn note_text(&mut self, sql: Option<&str>) {
        let is_harmless = |sql| is_harmless(sql, &self.functions);
        self.is_tainted = self.is_tainted || !sql.is_some_and(is_harmless);
        self.has_first_settings_only =
            self.has_first_settings_only && sql.is_some_and(leaves_settings);
        self.holds_nothing = self.holds_nothing && sql.is_some_and(holds_nothing);
    }

    /// Whether PostgreSQL tells the client of a changed search path, as it does from version 18 on.
    pub(super) fn reports_search_path(&self) -> bool {
        settings(&self.greeting.before_key).contains_key(&b"search_path"[..])
    }

    fn note_setting(&mut self, frame: &[u8]) {
        match setting(frame) {
            Some((name, value)) => {
                let owned = Bytes::copy_from_slice;
                self.settings.insert(owned(name), owned(value));
            }
            None => self.is_tainted = true,
        }
    }

    /// Whether every reported setting has the value that it had when the backend was opened.
    pub(super) fn has_first_settings(&self) -> bool {
        let first = settings(&self.greeting.before_key);
        self.settings
            .iter()
            .all(|(name, value)| first.get(&name[..]) == Some(&&value[..]))
    }

    /// A frame of the server came while no client listened.
    pub(super) fn note_server_frame(&mut self, frame: &[u8]) {
        match frame.first() {
            Some(&server_tag::PARAMETER_STATUS) => self.note_setting(frame),
            _ => self.is_tainted = true,
        }
    }
}

/// The text in a Query or a Parse.
fn text(tag: u8, body: &[u8]) -> Option<&str> {
    let sql = match tag {
        client_tag::QUERY => read::query(body),
        _ => read::parse(body).map(|parse| parse.sql),
    };
    std::str::from_utf8(sql.ok()?).ok()
}

/// The name and the value in a ParameterStatus frame.
fn setting(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = frame.get(HEADER_BYTES..)?.split(|byte| *byte == 0);
    Some((fields.next()?, fields.next()?))
}

/// All settings among whole frames.
fn settings(mut frames: &[u8]) -> BTreeMap<&[u8], &[u8]> {
    let mut settings = BTreeMap::new();
    while let Ok(Some(header)) = header(frames) {
        let Some((frame, rest)) = frames.split_at_checked(header.total) else {
            break;
        };
        if header.tag == server_tag::PARAMETER_STATUS {
            settings.extend(setting(frame));
        }
        frames = rest;
    }
    settings
}

impl<R> Session<R> {
    /// Notes what the client's next frame may leave in a leased backend.
    #[inline]
    pub(super) fn note_traces(&mut self, header: Header) {
        let Some(lease) = &mut self.lease else {
            return;
        };
        let frame = self.client.inbound.filled()[self.client.released..].get(..header.total);
        lease.note(header, frame.map(|frame| &frame[HEADER_BYTES..]));
    }

    /// pgstar ran a statement of its own for the client: it leaves nothing, but it is not nothing.
    pub(super) fn note_own_statement(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.is_touched = true;
            lease.holds_nothing = false;
        }
    }

    /// Notes a setting that the server reports; `false` when its frame must be whole for that and is not.
    pub(super) fn note_setting(&mut self, header: Header) -> bool {
        let Some(lease) = &mut self.lease else {
            return true;
        };
        if header.total > SETTING_FRAME_BYTES_MAX {
            lease.is_tainted = true;
            return true;
        }
        match self.server.unreleased().get(..header.total) {
            Some(frame) => lease.note_setting(frame),
            None => return false,
        }
        true
    }

    /// The same for a frame that was taken out of the stream.
    pub(super) fn note_setting_frame(&mut self, frame: &[u8]) {
        if let Some(lease) = &mut self.lease {
            lease.note_setting(frame);
        }
    }

    /// Whether this frame says that the client leaves a leased backend on which nothing is under way: PostgreSQL
    /// does not hear of it. Amid something the backend ends as it would have.
    pub(super) fn leaves_backend(&mut self, header: Header) -> bool {
        if header.tag != client_tag::TERMINATE || self.lease.is_none() {
            return false;
        }
        (self.model.is_quiet() || self.owes_only_pledges()) && self.client.released == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_among_other_frames() {
        let frames = b"S\0\0\0\x08a\0b\0N\0\0\0\x05\0S\0\0\0\x08c\0d\0Z";
        let found = settings(frames);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&b"c"[..]], b"d");
    }
}
