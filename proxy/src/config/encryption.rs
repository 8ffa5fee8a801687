//! `sslmode` and the options that name certificates in a connection string: taken out of it, because the driver knows
//! neither all modes nor certificates.
//!
//! No complaint repeats a value of the string, which could be a part of a password.

use std::path::PathBuf;

use pgstar_postgres::tls::{SslMode, TlsFiles};

use super::problem::Complaint;
use super::upstream::{Encryption, invalid};

/// The string without the two options, and what they say.
pub(super) fn extract(text: &str) -> Result<(String, Encryption), Complaint> {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let (rest, options) = match is_url {
        true => from_url(text),
        false => from_pairs(text)?,
    };
    let value = |name| options.iter().rev().find(|(key, _)| key == name);
    let mode = match value("sslmode") {
        None => SslMode::Disable,
        Some((_, mode)) => mode_of(mode)?,
    };
    let roots = value("sslrootcert").map(|(_, file)| PathBuf::from(file));
    let verifies = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
    if verifies && roots.is_none() {
        let name = match mode {
            SslMode::VerifyCa => "verify-ca",
            _ => "verify-full",
        };
        return Err(Complaint::new(
            format!("sslmode={name} needs sslrootcert"),
            "Add sslrootcert=FILE, a PEM file of the certificates that vouch for the server.",
        ));
    }
    let file = |name| value(name).map(|(_, file)| PathBuf::from(file));
    let identity = match (file("sslcert"), file("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(Complaint::new(
                "a certificate of pgstar's own needs both sslcert and sslkey",
                "Name the two PEM files, or leave out both.",
            ));
        }
    };
    let files = TlsFiles { roots, identity };
    Ok((rest, Encryption { mode, files }))
}

fn mode_of(text: &str) -> Result<SslMode, Complaint> {
    Ok(match text {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(Complaint::new(
                "invalid value for option \"sslmode\" of the connection string",
                "Write disable, allow, prefer, require, verify-ca or verify-full.",
            ));
        }
    })
}

type Options = Vec<(String, String)>;

fn is_ours(key: &str) -> bool {
    ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&key)
}

fn from_url(url: &str) -> (String, Options) {
    let Some((before, query)) = url.split_once('?') else {
        return (url.to_owned(), vec![]);
    };
    let split = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        is_ours(key).then(|| (key.to_owned(), percent_decoded(value)))
    };
    let options = query.split('&').filter_map(split).collect();
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| split(pair).is_none())
        .collect();
    let rest = match kept.is_empty() {
        true => before.to_owned(),
        false => format!("{before}?{}", kept.join("&")),
    };
    (rest, options)
}

/// As libpq decodes it; what is not encoded right stays as it is, and names no file.
fn percent_decoded(text: &str) -> String {
    let mut out = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let decoded = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(decoded.unwrap_or(*first));
        rest = match decoded {
            Some(_) => &after[2..],
            None => after,
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `key = value` pairs, in which a value may stand in quotation marks and a backslash keeps the next letter.
fn from_pairs(text: &str) -> Result<(String, Options), Complaint> {
    let mut kept = String::new();
    let mut options = vec![];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| invalid("invalid connection string"))?;
        let after = after.trim_start();
        let (value, end) = value(after).ok_or_else(|| invalid("invalid connection string"))?;
        let key = key.trim();
        match is_ours(key) {
            true => options.push((key.to_owned(), value)),
            false => {
                kept.push_str(key);
                kept.push('=');
                kept.push_str(&after[..end]);
                kept.push(' ');
            }
        }
        rest = after[end..].trim_start();
    }
    Ok((kept, options))
}

/// The value at the start, and where it ends; `None` without an end.
fn value(text: &str) -> Option<(String, usize)> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' if is_quoted => return Some((value, at + 1)),
            letter if !is_quoted && letter.is_ascii_whitespace() => return Some((value, at)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    (!is_quoted).then_some((value, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_taken_out_of_both_kinds_of_strings() {
        let cases = [
            (
                "postgresql://u@h/d",
                "postgresql://u@h/d",
                SslMode::Disable,
                None,
            ),
            (
                "postgresql://u@h/d?sslmode=require",
                "postgresql://u@h/d",
                SslMode::Require,
                None,
            ),
            (
                "postgresql://u@h/d?a=b&sslmode=verify-ca&sslrootcert=%2Fetc%2Fa+b&c=d",
                "postgresql://u@h/d?a=b&c=d",
                SslMode::VerifyCa,
                Some("/etc/a+b"),
            ),
            (
                "host=h sslmode = 'verify-full' password='it''s' ",
                "host=h password='it's' ",
                SslMode::VerifyFull,
                None,
            ),
            (
                r"host=h sslrootcert='/a b\'c' password='x sslmode=require' sslmode=prefer",
                "host=h password='x sslmode=require' ",
                SslMode::Prefer,
                Some("/a b'c"),
            ),
        ];
        for (text, rest, mode, roots) in cases {
            let roots = roots.map(PathBuf::from);
            match extract(text) {
                Ok((found, encryption)) => {
                    assert_eq!(
                        (found.as_str(), encryption.mode, encryption.files.roots),
                        (rest, mode, roots)
                    );
                }
                Err(_) => assert_eq!((mode, roots), (SslMode::VerifyFull, None), "{text}"),
            }
        }
        let (_, shown) = extract("host=h sslcert=/c sslmode=allow sslkey=/k").unwrap();
        let identity = Some((PathBuf::from("/c"), PathBuf::from("/k")));
        assert_eq!(
            (shown.mode, shown.files.identity),
            (SslMode::Allow, identity)
        );
        assert!(extract("host=h sslcert=/c").is_err());
        assert!(extract("host=h password='x").is_err());
        assert!(extract("host").is_err());
    }
}
