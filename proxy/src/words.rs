//! A set of words that are looked for in a text all at once, in one pass, whatever the text's case.
//!
//! It must not know what the words are for.

use aho_corasick::{AhoCorasick, Input, Match};

/// Words to look for.
#[derive(Debug)]
pub struct Words {
    /// `None` when there are more words than can be looked for: then any text counts as having one.
    finder: Option<AhoCorasick>,
}

impl Words {
    /// Words in ASCII, or with other letters in exactly this case.
    pub fn of(words: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let finder = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(words);
        Words {
            finder: finder.ok(),
        }
    }

    /// Whether the text has any of the words, also within a longer word.
    pub fn are_in(&self, text: &[u8]) -> bool {
        self.finder
            .as_ref()
            .is_none_or(|finder| finder.patterns_len() > 0 && finder.is_match(text))
    }

    /// Whether the text has any of the first so many words with no letter or digit right before or after it, or any of the
    /// others anywhere. None of them may be part of another.
    pub fn are_in_with_whole(&self, text: &[u8], whole: usize) -> bool {
        let is_edge = |byte: Option<&u8>| {
            byte.is_none_or(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric())
        };
        let counts = |found: Match| {
            let before = found.start().checked_sub(1).and_then(|at| text.get(at));
            found.pattern().as_usize() >= whole || is_edge(before) && is_edge(text.get(found.end()))
        };
        let Some(finder) = &self.finder else {
            return true;
        };
        let mut from = 0;
        while let Some(found) = finder.find(Input::new(text).range(from..)) {
            if counts(found) {
                return true;
            }
            // Another one may begin within this one.
            from = found.start() + 1;
        }
        false
    }
}

impl Default for Words {
    fn default() -> Self {
        Words::of([""; 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_word_is_found_anywhere_in_any_case() {
        let words = Words::of(["lineorder", "größe"]);
        assert!(words.are_in(b"SELECT * FROM ssb.LineOrder_2020"));
        assert!(words.are_in("select Größe".as_bytes()));
        assert!(!words.are_in(b"select line, order from item"));
        assert!(!words.are_in(b""));
    }

    #[test]
    fn no_words_are_in_no_text() {
        assert!(!Words::default().are_in(b"anything"));
    }
}
