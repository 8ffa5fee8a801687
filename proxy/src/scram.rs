//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, on both sides and without a password.
//!
//! Towards a client pgstar is the server: it checks the client's proof against the verifier that PostgreSQL
//! keeps. A right proof reveals the client's key, and with that key pgstar is the client towards PostgreSQL.
//! Nothing here knows sockets or frames: messages go in and come out as text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

/// The mechanism's name in the protocol.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The same, bound to the TLS connection that it runs over.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The one kind of channel binding that PostgreSQL knows (RFC 5929).
const END_POINT_BINDING: &str = "p=tls-server-end-point,,";
/// PostgreSQL's own length of a nonce, before it is written in base64.
const NONCE_BYTES: usize = 18;

type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// What PostgreSQL keeps of a password: enough to check it, not enough to log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    salt: String,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// A verifier as `pg_authid.rolpassword` holds it: `SCRAM-SHA-256$iterations:salt$stored:server`.
    /// `None` for anything else, such as an md5 hash.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        BASE64.decode(salt).ok()?;
        Some(Verifier {
            salt: salt.to_owned(),
            iterations: iterations.parse().ok()?,
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }

    /// Tells verifiers apart without saying anything of them.
    pub fn fingerprint(&self) -> String {
        let parts = [
            self.salt.as_bytes(),
            &self.iterations.to_be_bytes(),
            &self.stored_key,
            &self.server_key,
        ];
        BASE64.encode(hash(&parts.concat()))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// With this key, and no less, its owner can log in. It is kept in memory for as long as it takes to do so.
#[derive(Clone)]
pub struct ClientKey(Key);

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(…)")
    }
}

/// Why an exchange ended without a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("malformed SCRAM message")]
    Malformed,
    /// The client's proof does not fit the verifier: the password is wrong.
    #[error("the proof is wrong")]
    WrongProof,
    #[error("SCRAM channel binding check failed")]
    WrongBinding,
    #[error("the server did not prove that it knows the password")]
    UnprovenServer,
}

/// How far a client's channel binding reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel<'a> {
    /// No binding can be had on this connection.
    Plain,
    /// The hash of the certificate that the client sees.
    EndPoint(&'a [u8]),
}

/// The server's side of one exchange, after its first message.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: Verifier,
    /// What the client's final message must say of the binding, in base64.
    binding: String,
    nonce: String,
    /// The two messages that the proof covers beside the final one.
    first_messages: String,
}

impl ServerExchange {
    /// Reads the client's first message; also gives the answer to it.
    ///
    /// # Errors
    /// A message that is none, or a binding that does not fit the connection or the mechanism.
    pub fn begin(
        verifier: Verifier,
        mechanism: &str,
        channel: Channel<'_>,
        client_first: &str,
    ) -> Result<(Self, String), ScramError> {
        let nonce = random_nonce()?;
        Self::begin_with(verifier, mechanism, channel, client_first, &nonce)
    }

    fn begin_with(
        verifier: Verifier,
        mechanism: &str,
        channel: Channel<'_>,
        client_first: &str,
        own_nonce: &str,
    ) -> Result<(Self, String), ScramError> {
        let bare_at = bare_start(client_first).ok_or(ScramError::Malformed)?;
        let (header, bare) = client_first.split_at(bare_at);
        let binding = expected_binding(mechanism, channel, header)?;
        let mut fields = bare.split(',');
        let has_name = fields.next().is_some_and(|field| field.starts_with("n="));
        let client_nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let (true, Some(client_nonce)) = (has_name, client_nonce.filter(|nonce| is_nonce(nonce)))
        else {
            return Err(ScramError::Malformed);
        };
        let nonce = format!("{client_nonce}{own_nonce}");
        let server_first = format!("r={nonce},s={},i={}", verifier.salt, verifier.iterations);
        let exchange = ServerExchange {
            verifier,
            binding,
            nonce,
            first_messages: format!("{bare},{server_first}"),
        };
        Ok((exchange, server_first))
    }

    /// Checks the client's final message; gives the answer to it, and the client's key.
    ///
    /// # Errors
    /// A message that is none, or a proof that is wrong.
    pub fn finish(self, client_final: &str) -> Result<(String, ClientKey), ScramError> {
        let (unproven, proof) = client_final
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed)?;
        let mut fields = unproven.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c="));
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        if binding.ok_or(ScramError::Malformed)? != self.binding {
            return Err(ScramError::WrongBinding);
        }
        if nonce != Some(&self.nonce) {
            return Err(ScramError::Malformed);
        }
        let proof = decode_key(proof).ok_or(ScramError::Malformed)?;
        let message = format!("{},{unproven}", self.first_messages);
        let client_key = xor(&proof, &mac(&self.verifier.stored_key, &message));
        if !is_same(&hash(&client_key), &self.verifier.stored_key) {
            return Err(ScramError::WrongProof);
        }
        let signature = mac(&self.verifier.server_key, &message);
        Ok((
            format!("v={}", BASE64.encode(signature)),
            ClientKey(client_key),
        ))
    }
}

/// The client's side of one exchange, from a key instead of a password.
#[derive(Debug)]
pub struct ClientExchange {
    client_key: ClientKey,
    verifier: Verifier,
    bare: String,
    nonce: String,
}

/// The client's side, after its proof.
#[derive(Debug)]
pub struct ProvenExchange {
    /// What the server must say to prove that it knows the verifier.
    server_final: String,
}

impl ClientExchange {
    /// The exchange and its first message.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn begin(client_key: ClientKey, verifier: Verifier) -> Result<(Self, String), ScramError> {
        let nonce = random_nonce()?;
        let bare = format!("n=,r={nonce}");
        let message = format!("n,,{bare}");
        let exchange = ClientExchange {
            client_key,
            verifier,
            bare,
            nonce,
        };
        Ok((exchange, message))
    }

    /// The final message, in answer to the server's first.
    ///
    /// # Errors
    /// A message that is none.
    pub fn prove(self, server_first: &str) -> Result<(ProvenExchange, String), ScramError> {
        let nonce = server_first
            .split(',')
            .next()
            .and_then(|field| field.strip_prefix("r="))
            .filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len())
            .ok_or(ScramError::Malformed)?;
        let unproven = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{unproven}", self.bare);
        let proof = xor(
            &self.client_key.0,
            &mac(&self.verifier.stored_key, &message),
        );
        let signature = mac(&self.verifier.server_key, &message);
        let proven = ProvenExchange {
            server_final: format!("v={}", BASE64.encode(signature)),
        };
        Ok((proven, format!("{unproven},p={}", BASE64.encode(proof))))
    }
}

impl ProvenExchange {
    /// Checks the server's final message.
    ///
    /// # Errors
    /// The server does not know the verifier, so it may be anybody.
    pub fn finish(&self, server_final: &str) -> Result<(), ScramError> {
        match is_same(server_final.as_bytes(), self.server_final.as_bytes()) {
            true => Ok(()),
            false => Err(ScramError::UnprovenServer),
        }
    }
}

/// Where the message proper begins, after the header that says how the channel is bound.
fn bare_start(client_first: &str) -> Option<usize> {
    let binding_end = client_first.find(',')?;
    let authzid_end = binding_end + 1 + client_first[binding_end + 1..].find(',')?;
    // PostgreSQL takes no authorization identity.
    (authzid_end == binding_end + 1).then_some(authzid_end + 1)
}

/// What the final message must repeat: the header, and with a binding what the channel is bound to.
fn expected_binding(
    mechanism: &str,
    channel: Channel<'_>,
    header: &str,
) -> Result<String, ScramError> {
    match (mechanism, channel, header) {
        // "y" means that the client could bind and believes that the server cannot.
        (SCRAM_SHA_256, _, "n,,") | (SCRAM_SHA_256, Channel::Plain, "y,,") => {
            Ok(BASE64.encode(header))
        }
        (SCRAM_SHA_256, Channel::EndPoint(_), "y,,") => Err(ScramError::WrongBinding),
        (SCRAM_SHA_256_PLUS, Channel::EndPoint(hash), END_POINT_BINDING) => {
            Ok(BASE64.encode([header.as_bytes(), hash].concat()))
        }
        _ => Err(ScramError::Malformed),
    }
}

/// Printable ASCII without a comma (RFC 5802, section 7).
fn is_nonce(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn random_nonce() -> Result<String, ScramError> {
    let mut nonce = [0; NONCE_BYTES];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| ScramError::Malformed)?;
    Ok(BASE64.encode(nonce))
}

fn decode_key(text: &str) -> Option<Key> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn mac(key: &Key, message: &str) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    xor(&[0; digest::SHA256_OUTPUT_LEN], tag.as_ref())
}

fn hash(bytes: &[u8]) -> Key {
    xor(
        &[0; digest::SHA256_OUTPUT_LEN],
        digest::digest(&digest::SHA256, bytes).as_ref(),
    )
}

fn xor(one: &Key, other: &[u8]) -> Key {
    let mut out = *one;
    out.iter_mut()
        .zip(other)
        .for_each(|(byte, other)| *byte ^= other);
    out
}

/// Compares in a time that does not tell where two secrets differ: by a keyed hash of both.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"pgstar compares secrets");
    let tag = hmac::sign(&key, one);
    hmac::verify(&key, other, tag.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677: user "user", password "pencil".
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const OWN_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    /// What PostgreSQL would keep of this password.
    fn verifier() -> Verifier {
        static VERIFIER: std::sync::OnceLock<Verifier> = std::sync::OnceLock::new();
        VERIFIER.get_or_init(derive_verifier).clone()
    }

    fn derive_verifier() -> Verifier {
        let salt = BASE64.decode(SALT).unwrap();
        let mut salted = [0; 32];
        let iterations = std::num::NonZeroU32::new(4096).unwrap();
        ring::pbkdf2::derive(
            ring::pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            b"pencil",
            &mut salted,
        );
        let stored = BASE64.encode(hash(&mac(&salted, "Client Key")));
        let server = BASE64.encode(mac(&salted, "Server Key"));
        Verifier::parse(&format!("SCRAM-SHA-256$4096:{SALT}${stored}:{server}")).unwrap()
    }

    fn begun(client_first: &str) -> Result<(ServerExchange, String), ScramError> {
        let verifier = verifier();
        ServerExchange::begin_with(
            verifier,
            SCRAM_SHA_256,
            Channel::Plain,
            client_first,
            OWN_NONCE,
        )
    }

    #[test]
    fn the_example_of_the_rfc_is_followed_to_the_letter() {
        let (exchange, first) = begun(CLIENT_FIRST).unwrap();
        assert_eq!(first, SERVER_FIRST);
        let (last, _) = exchange.finish(CLIENT_FINAL).unwrap();
        assert_eq!(last, SERVER_FINAL);
    }

    #[test]
    fn a_key_that_a_login_revealed_logs_in() {
        let (exchange, _) = begun(CLIENT_FIRST).unwrap();
        let (_, key) = exchange.finish(CLIENT_FINAL).unwrap();
        let (client, first) = ClientExchange::begin(key, verifier()).unwrap();
        let (server, answer) =
            ServerExchange::begin(verifier(), SCRAM_SHA_256, Channel::Plain, &first).unwrap();
        let (client, proof) = client.prove(&answer).unwrap();
        let (signature, _) = server.finish(&proof).unwrap();
        assert_eq!(client.finish(&signature), Ok(()));
        assert_eq!(client.finish(SERVER_FINAL), Err(ScramError::UnprovenServer));
    }

    #[test]
    fn every_changed_byte_of_the_final_message_is_refused() {
        for at in 0..CLIENT_FINAL.len() {
            let mut changed = CLIENT_FINAL.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let (exchange, _) = begun(CLIENT_FIRST).unwrap();
            let changed = String::from_utf8(changed).unwrap();
            assert!(exchange.finish(&changed).is_err(), "{changed}");
        }
        for end in 0..CLIENT_FINAL.len() {
            let (exchange, _) = begun(CLIENT_FIRST).unwrap();
            assert!(exchange.finish(&CLIENT_FINAL[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_binding_must_fit_the_mechanism_and_the_channel() {
        let first = |mechanism, channel, header: &str| {
            let message = format!("{header}n=,r=abc");
            ServerExchange::begin(verifier(), mechanism, channel, &message).map(drop)
        };
        let bound = Channel::EndPoint(b"hash");
        assert_eq!(first(SCRAM_SHA_256, Channel::Plain, "y,,"), Ok(()));
        assert_eq!(
            first(SCRAM_SHA_256, bound, "y,,"),
            Err(ScramError::WrongBinding)
        );
        assert_eq!(first(SCRAM_SHA_256, bound, "n,,"), Ok(()));
        assert_eq!(first(SCRAM_SHA_256_PLUS, bound, END_POINT_BINDING), Ok(()));
        for (mechanism, channel, header) in [
            (SCRAM_SHA_256, bound, END_POINT_BINDING),
            (SCRAM_SHA_256_PLUS, bound, "n,,"),
            (SCRAM_SHA_256_PLUS, Channel::Plain, END_POINT_BINDING),
            (SCRAM_SHA_256_PLUS, bound, "p=tls-unique,,"),
            (SCRAM_SHA_256, Channel::Plain, "n,a=other,"),
            ("PLAIN", Channel::Plain, "n,,"),
        ] {
            assert_eq!(
                first(mechanism, channel, header),
                Err(ScramError::Malformed),
                "{header}"
            );
        }
    }

    #[test]
    fn only_verifiers_are_read_as_such() {
        for text in [
            "",
            "md5d41d8cd98f00b204e9800998ecf8427e",
            "SCRAM-SHA-256$4096:W22Z$a:b",
            "SCRAM-SHA-256$x:W22Z$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert_eq!(Verifier::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let (exchange, _) = begun(CLIENT_FIRST).unwrap();
        let shown = format!("{exchange:?}");
        assert!(!shown.contains("stored_key"), "{shown}");
        let (_, key) = exchange.finish(CLIENT_FINAL).unwrap();
        assert_eq!(format!("{key:?}"), "ClientKey(…)");
    }
}
