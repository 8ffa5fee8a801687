//! The shape of a statement: its text with constants left out that cannot change its columns.
//!
//! PostgreSQL gives a quoted constant its type by what stands around it and never by what is in it, and a number by its
//! size. So two statements of one shape have the same columns of the same types, if PostgreSQL takes both. Numbers that may
//! be something else than a value, such as `ORDER BY 1` or `numeric(10,2)`, are part of the shape.

/// The shape, or `None` where it is not certain: a text with other kinds of constants or with comments.
pub(super) fn shape(sql: &str) -> Option<String> {
    let mut scan = Scan {
        rest: sql,
        shape: String::with_capacity(sql.len()),
        before: Before::Other,
        list_depth: 0,
        depth: 0,
    };
    while let Some(first) = scan.rest.chars().next() {
        scan.step(first)?;
    }
    Some(scan.shape)
}

/// What stands before a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A number here is a value.
    Value,
    /// `IN`, so that a parenthesis opens a list of values.
    In,
    /// A word or number to which a quotation mark could belong.
    Word,
    Other,
}

struct Scan<'s> {
    rest: &'s str,
    shape: String,
    before: Before,
    /// How deep in parentheses the list of values is that the scan is in; 0 if it is in none.
    list_depth: usize,
    depth: usize,
}

impl<'s> Scan<'s> {
    fn step(&mut self, first: char) -> Option<()> {
        match first {
            '\'' => self.string()?,
            '"' => self.quoted_name()?,
            '$' => self.parameter()?,
            '0'..='9' => self.number(),
            '-' if self.rest.starts_with("--") => return None,
            '/' if self.rest.starts_with("/*") => return None,
            _ if is_word(first) => self.word(),
            _ if first.is_whitespace() => {
                self.take(first.len_utf8());
            }
            _ => self.sign(first),
        }
        Some(())
    }

    fn take(&mut self, bytes: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.shape.push_str(taken);
        self.rest = rest;
        taken
    }

    /// `'…'`, which the text of another statement may have otherwise. What has a prefix means something else.
    fn string(&mut self) -> Option<()> {
        if self
            .shape
            .ends_with(|last: char| is_word(last) || last == '&')
        {
            return None;
        }
        let mut end = 1;
        loop {
            end += self.rest.get(end..)?.find('\'')? + 1;
            if !self.rest[end..].starts_with('\'') {
                break;
            }
            end += 1;
        }
        self.rest = &self.rest[end..];
        self.shape.push_str("''");
        self.before = Before::Other;
        Some(())
    }

    fn quoted_name(&mut self) -> Option<()> {
        let end = self.rest.get(1..)?.find('"')? + 2;
        self.take(end);
        self.before = Before::Other;
        Some(())
    }

    fn parameter(&mut self) -> Option<()> {
        let digits = self.rest[1..].bytes().take_while(u8::is_ascii_digit);
        let digits = digits.count();
        // What else begins so is a constant in dollar signs.
        if digits == 0 {
            return None;
        }
        self.take(1 + digits);
        self.before = Before::Word;
        Some(())
    }

    fn number(&mut self) {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
        let length = self.rest.bytes().take_while(is_part).count();
        let is_value =
            self.before == Before::Value || (self.list_depth > 0 && self.depth == self.list_depth);
        let text = &self.rest[..length];
        match is_value.then(|| kind_of_number(text)).flatten() {
            Some(kind) => {
                self.rest = &self.rest[length..];
                self.shape.push_str(kind);
            }
            None => {
                self.take(length);
            }
        }
        self.before = Before::Word;
    }

    fn word(&mut self) {
        const BEFORE_VALUES: [&str; 8] = [
            "LIMIT", "OFFSET", "BETWEEN", "AND", "OR", "THEN", "ELSE", "WHEN",
        ];
        let is_part = |c: &char| is_word(*c) || c.is_ascii_digit() || *c == '$';
        let length = self
            .rest
            .chars()
            .take_while(is_part)
            .map(char::len_utf8)
            .sum();
        let word = self.take(length);
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        self.before = match word {
            _ if is("IN") => Before::In,
            _ if BEFORE_VALUES.into_iter().any(is) => Before::Value,
            _ => Before::Word,
        };
    }

    fn sign(&mut self, sign: char) {
        match sign {
            '(' => {
                self.depth += 1;
                if self.before == Before::In {
                    self.list_depth = self.depth;
                }
            }
            ')' => {
                if self.depth == self.list_depth {
                    self.list_depth = 0;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
        self.take(sign.len_utf8());
        self.before = match sign {
            '=' | '<' | '>' => Before::Value,
            _ => Before::Other,
        };
    }
}

fn is_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// What stands for a number of this type; `None` for one that is not plain digits.
fn kind_of_number(text: &str) -> Option<&'static str> {
    let is_decimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text {
        _ if !is_decimal => None,
        _ if text.parse::<i32>().is_ok() => Some("0"),
        _ if text.parse::<i64>().is_ok() => Some("9999999999"),
        _ => Some("0.0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(left: &str, right: &str) -> bool {
        shape(left).is_some() && shape(left) == shape(right)
    }

    #[test]
    fn values_are_no_part_of_the_shape() {
        for (left, right) in [
            (
                "SELECT a FROM t WHERE b = 'it''s'",
                "SELECT a FROM t WHERE b = ''",
            ),
            (
                "SELECT a FROM t WHERE b >= 5 LIMIT 10",
                "SELECT a FROM t WHERE b >= 77 LIMIT 1000",
            ),
            ("b IN (1, 2, 3) AND c", "b IN (4, 5, 6) AND c"),
            ("b BETWEEN 1 AND 2", "b BETWEEN 30 AND 40"),
            ("b > 1.5", "b > 22.75"),
        ] {
            assert!(alike(left, right), "{left}");
        }
    }

    #[test]
    fn what_may_change_columns_is_part_of_the_shape() {
        for (left, right) in [
            (
                "SELECT a, b FROM t GROUP BY 1",
                "SELECT a, b FROM t GROUP BY 2",
            ),
            (
                "SELECT a, b FROM t ORDER BY 1, 2",
                "SELECT a, b FROM t ORDER BY 1, 1",
            ),
            ("SELECT a::numeric(10,2)", "SELECT a::numeric(10,3)"),
            ("SELECT a::varchar(10)", "SELECT a::varchar(11)"),
            ("SELECT round(a, 1)", "SELECT round(a, 2)"),
            (
                "a IN (SELECT b::numeric(10,2))",
                "a IN (SELECT b::numeric(10,3))",
            ),
            ("a = 1", "a = 3000000000"),
            ("a = 1", "a = 1.0"),
            ("a = 1", "a = '1'"),
            ("a = $1", "a = $2"),
            ("SELECT \"it's\"", "SELECT \"it''s\""),
            ("b IN (1, 2)", "b IN (1, 2, 3)"),
        ] {
            assert!(!alike(left, right), "{left}");
        }
    }

    #[test]
    fn other_constants_have_no_shape() {
        for sql in [
            "SELECT E'a\\'b'",
            "SELECT $$a$$",
            "SELECT $x$a$x$",
            "SELECT B'101'",
            "SELECT U&'a'",
            "SELECT 1 -- it's",
            "SELECT 1 /* 'a' */",
            "SELECT 'open",
            "SELECT \"open",
        ] {
            assert_eq!(shape(sql), None, "{sql}");
        }
    }
}
