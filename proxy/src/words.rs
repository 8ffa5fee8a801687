//! A set of words that are looked for in a text all at once, in one pass, whatever the text's case.
//!
//! It must not know what the words are for.

use aho_corasick::{AhoCorasick, Input, Match};

/// Words to look for.
#[derive(Debug)]
pub struct Words {
    /// `None` when there are more words than can be looked for: then any text counts as having one.
    finder: Option<AhoCorasick>,
    beginnings: Beginnings,
}

impl Words {
    /// Words in ASCII, or with other letters in exactly this case.
    pub fn of(words: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let words: Vec<_> = words.into_iter().collect();
        let finder = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(&words);
        Words {
            finder: finder.ok(),
            beginnings: Beginnings::of(&words),
        }
    }

    /// Whether the text has any of the words, also within a longer word.
    pub fn are_in(&self, text: &[u8]) -> bool {
        match &self.finder {
            None => true,
            Some(finder) => self.find(finder, text, 0).is_some(),
        }
    }

    /// The first word that begins here or later.
    fn find(&self, finder: &AhoCorasick, text: &[u8], from: usize) -> Option<Match> {
        let from = self.beginnings.first_in(text, from)?;
        finder.find(Input::new(text).range(from..))
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
        while let Some(found) = self.find(finder, text, from) {
            if counts(found) {
                return true;
            }
            // Another one may begin within this one.
            from = found.start() + 1;
        }
        false
    }
}

/// What the words begin with, in a table that stays in the processor's cache, unlike that of the whole words: few texts have
/// places at which more is to be looked at.
#[derive(Debug, Default)]
struct Beginnings {
    /// The first two bytes, and the second two.
    firsts: Pairs,
    seconds: Pairs,
    /// Whether that says where a word may begin.
    hint: Hint,
}

#[derive(Debug, Default, Clone, Copy)]
enum Hint {
    /// There are no words.
    #[default]
    Nowhere,
    AtPairs,
    /// A word has less than three bytes.
    Anywhere,
}

impl Beginnings {
    fn of(words: &[impl AsRef<[u8]>]) -> Self {
        let mut beginnings = Beginnings::default();
        let mut is_short = false;
        for word in words {
            match *word.as_ref() {
                [first, second, third, ..] => {
                    beginnings.firsts.add(first, second);
                    beginnings.seconds.add(second, third);
                }
                _ => is_short = true,
            }
        }
        beginnings.hint = match words {
            [] => Hint::Nowhere,
            _ if is_short => Hint::Anywhere,
            _ => Hint::AtPairs,
        };
        beginnings
    }

    /// The first place from this one on where a word may begin.
    fn first_in(&self, text: &[u8], from: usize) -> Option<usize> {
        match self.hint {
            Hint::Nowhere => return None,
            Hint::Anywhere => return Some(from),
            Hint::AtPairs => {}
        }
        let may_begin = |bytes: &[u8]| {
            self.firsts.have(bytes[0], bytes[1]) && self.seconds.have(bytes[1], bytes[2])
        };
        let place = text.get(from..)?.windows(3).position(may_begin)?;
        Some(from + place)
    }
}

/// A set of pairs of bytes, of which only the last five bits count: a letter's case is not among them.
#[derive(Debug, Default)]
struct Pairs([u32; 32]);

impl Pairs {
    fn add(&mut self, one: u8, other: u8) {
        self.0[usize::from(one & 31)] |= 1 << (other & 31);
    }

    fn have(&self, one: u8, other: u8) -> bool {
        self.0[usize::from(one & 31)] & 1 << (other & 31) != 0
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
        assert!(!Words::default().are_in(b""));
    }

    #[test]
    fn short_words_are_found_too() {
        for words in [&["t"][..], &["ab"], &["t", "lineorder"]] {
            let words = Words::of(words);
            assert!(words.are_in(b"SELECT 1 FROM AB, T"));
            assert!(words.are_in(b"t") || words.are_in(b"ab"));
            assert!(!words.are_in(b"xyz"));
        }
    }

    #[test]
    fn a_word_is_found_wherever_it_begins() {
        let words = Words::of(["count", "_agg", "sum"]);
        let almost = "acc coun cou_ag _a su m accou";
        assert!(!words.are_in(almost.as_bytes()));
        for at in 0..=almost.len() {
            let (before, after) = almost.split_at(at);
            for word in ["count", "_agg", "sum"] {
                let text = format!("{before}{word}{after}");
                assert!(words.are_in(text.as_bytes()), "{text}");
                let whole = format!("{before} {word} {after}");
                assert!(words.are_in_with_whole(whole.as_bytes(), 3), "{whole}");
            }
        }
    }
}
