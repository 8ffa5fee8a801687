//! SCRAM-SHA-256 from keys that are derived from the password once. The server's own proof is not looked at.
//!
//! It must not know frames.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

/// What a password becomes with a salt.
#[derive(Debug, Clone)]
pub struct Keys {
    salt: String,
    client: Vec<u8>,
    stored: Vec<u8>,
}

/// A fresh nonce.
pub fn nonce() -> String {
    let mut nonce = [0; 18];
    // Without randomness the server refuses the next login of the same nonce, which shows.
    let _ = SystemRandom::new().fill(&mut nonce);
    BASE64.encode(nonce)
}

impl Keys {
    /// The keys for the salt of this message; `known` ones if they are for it.
    pub fn derive<'k>(
        known: &'k mut Option<Keys>,
        password: &str,
        server_first: &str,
    ) -> Option<&'k Keys> {
        let field = |name| server_first.split(',').find_map(|it| it.strip_prefix(name));
        let (salt, iterations) = (field("s=")?, field("i=")?);
        if known.as_ref().is_none_or(|keys| keys.salt != salt) {
            let mut salted = [0; digest::SHA256_OUTPUT_LEN];
            let iterations = NonZeroU32::new(iterations.parse().ok()?)?;
            let raw_salt = BASE64.decode(salt).ok()?;
            let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
            pbkdf2::derive(
                algorithm,
                iterations,
                &raw_salt,
                password.as_bytes(),
                &mut salted,
            );
            let client = mac(&salted, "Client Key");
            let stored = digest::digest(&digest::SHA256, &client).as_ref().to_vec();
            *known = Some(Keys {
                salt: salt.to_owned(),
                client,
                stored,
            });
        }
        known.as_ref()
    }

    /// The client's final message.
    pub fn prove(&self, nonce: &str, server_first: &str) -> String {
        let combined = server_first.split(',').next().unwrap_or_default();
        let unproven = format!("c=biws,{combined}");
        let message = format!("n=,r={nonce},{server_first},{unproven}");
        let signature = mac(&self.stored, &message);
        let proof = self.client.iter().zip(signature);
        let proof: Vec<u8> = proof.map(|(one, other)| one ^ other).collect();
        format!("{unproven},p={}", BASE64.encode(proof))
    }
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}
