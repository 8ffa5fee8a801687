//! What a session has in its temporary schema, and whether a name in a text may mean it.
//!
//! Names are looked for in the text itself, wherever they stand: a column or a word in a string counts as well, which only means
//! that PostgreSQL answers. It must not know what the text says.

use std::sync::Arc;

/// Longer names are cut to this, by PostgreSQL as well.
const NAME_BYTES_MAX: usize = 63;

/// The relations and types in a session's temporary schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Temporary {
    /// So are they called.
    Named(Arc<[Box<str>]>),
    /// There may be any.
    Unknown,
}

impl Default for Temporary {
    /// There are none.
    fn default() -> Self {
        Temporary::of([])
    }
}

impl Temporary {
    /// Objects of these names.
    pub fn of(names: impl IntoIterator<Item = Box<str>>) -> Self {
        Temporary::Named(names.into_iter().collect())
    }

    /// The first of them that the text may name.
    pub(super) fn found_in(&self, text: &str) -> Option<&str> {
        match self {
            Temporary::Unknown => Some("it is not known which"),
            Temporary::Named(names) if names.is_empty() => None,
            // A name may be written without one of its letters.
            Temporary::Named(names) if may_spell_otherwise(text) => {
                names.first().map(|name| &**name)
            }
            Temporary::Named(names) => {
                let text = text.to_ascii_lowercase();
                names
                    .iter()
                    .map(|name| &**name)
                    .find(|name| is_in(name, &text))
            }
        }
    }
}

/// Whether the text may have `U&"…"`, in which letters are written as numbers.
fn may_spell_otherwise(text: &str) -> bool {
    text.as_bytes()
        .windows(2)
        .any(|pair| pair.eq_ignore_ascii_case(b"u&"))
}

/// Whether the name stands in the text, which is in lower case, as a word or as words of its own.
fn is_in(name: &str, text: &str) -> bool {
    // In a text it is written twice.
    if name.contains('"') {
        return true;
    }
    let lower = name.to_ascii_lowercase();
    let is_cut = name.len() >= NAME_BYTES_MAX - char::MAX.len_utf8();
    text.match_indices(&lower).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        !before.is_some_and(goes_on) && (is_cut || !after.is_some_and(goes_on))
    })
}

/// Whether a name goes on with this character, unless it is in quotes.
fn goes_on(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(temporary: &'a Temporary, text: &str) -> Option<&'a str> {
        temporary.found_in(text)
    }

    fn named(names: &[&str]) -> Temporary {
        Temporary::of(names.iter().map(|name| Box::from(*name)))
    }

    #[test]
    fn names_are_found_as_whole_words_in_any_case() {
        let temporary = named(&["shop", "Größe", "a b"]);
        for text in [
            "SELECT count(*) FROM shop",
            "select 1 from public.\"SHOP\"",
            "SELECT 'shop'::regclass",
            "TABLE Größe",
            "TABLE \"a b\"",
            "SELECT u&\"sh\\006fp\"",
        ] {
            assert!(found(&temporary, text).is_some(), "{text}");
        }
        for text in [
            "SELECT shops FROM workshop",
            "SELECT shop_id, shop1, shop$, Größen",
            "",
        ] {
            assert_eq!(found(&temporary, text), None, "{text}");
        }
    }

    #[test]
    fn a_name_in_quotes_may_begin_within_a_word() {
        // As in SELECT 1 FROM"shop", or AS shop2.
        let temporary = named(&["shop"]);
        assert!(found(&temporary, "SELECT 1 FROM\"shop\"WHERE TRUE").is_some());
    }

    #[test]
    fn a_long_name_is_found_where_it_is_cut() {
        let name = "n".repeat(63);
        assert!(found(&named(&[&name]), &format!("TABLE {name}nnn")).is_some());
    }

    #[test]
    fn what_is_not_known_may_be_anywhere() {
        assert!(found(&Temporary::Unknown, "").is_some());
        assert!(found(&named(&["a\"b"]), "SELECT 1").is_some());
        assert_eq!(found(&Temporary::default(), "SELECT U&\"x\""), None);
    }
}
