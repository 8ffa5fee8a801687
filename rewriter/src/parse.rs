//! From text to sqlparser's tree, within bounds.
//!
//! Everything after this module recurses over the tree, so its depth is bounded here, before the
//! tree is built: by the tokens that can nest, and by the parser's own recursion limit.

use sqlparser::ast::{Query, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::reason::{Code, Reason};

/// Longest statement that is analysed, in bytes. Superset's longest measured is 4.2 kB.
pub const STATEMENT_BYTES_MAX: usize = 64 * 1024;

/// Most tokens that may deepen the tree; commas, literals and parentheses aside (the parser itself bounds those).
const NESTING_TOKENS_MAX: usize = 2_000;

/// Deepest nesting of parentheses and sub-queries.
const RECURSION_MAX: usize = 64;

/// The statement's query, if it is one SELECT.
pub fn parse_query(sql: &str) -> Result<Query, Reason> {
    match one_statement(sql)? {
        Statement::Query(query) => Ok(*query),
        _ => Err(Reason::new(Code::NotASelect, "")),
    }
}

fn one_statement(sql: &str) -> Result<Statement, Reason> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(Reason::new(
            Code::StatementTooLarge,
            format!("{} bytes, of at most {STATEMENT_BYTES_MAX}", sql.len()),
        ));
    }
    // Blanks to sqlparser, but letters to PostgreSQL.
    if let Some(blank) = sql.chars().find(|c| !c.is_ascii() && c.is_whitespace()) {
        return Err(Reason::new(
            Code::NotParsed,
            format!("the blank U+{:04X}", u32::from(blank)),
        ));
    }
    let not_parsed =
        |error: &dyn std::fmt::Display| Reason::new(Code::NotParsed, error.to_string());
    let dialect = PostgreSqlDialect {};
    // The text of literals is kept as written: what an escape means is PostgreSQL's business.
    let tokens = Tokenizer::new(&dialect, sql)
        .with_unescape(true)
        .tokenize()
        .map_err(|error| not_parsed(&error))?;
    let nesting = tokens.iter().filter(|token| may_nest(token)).count();
    if nesting > NESTING_TOKENS_MAX {
        return Err(Reason::new(
            Code::StatementTooLarge,
            format!("{nesting} operators and words, of at most {NESTING_TOKENS_MAX}"),
        ));
    }
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(RECURSION_MAX)
        .with_tokens(tokens);
    let mut statements = parser
        .parse_statements()
        .map_err(|error| not_parsed(&error))?;
    match (statements.pop(), statements.pop()) {
        (Some(only), None) => Ok(only),
        _ => Err(Reason::new(Code::NotASelect, "not exactly one statement")),
    }
}

fn may_nest(token: &Token) -> bool {
    !matches!(
        token,
        Token::Whitespace(_)
            | Token::Comma
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::LParen
            | Token::RParen
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(sql: &str) -> Code {
        parse_query(sql).expect_err("should be refused").code
    }

    #[test]
    fn hostile_depth_is_refused_before_anything_recurses() {
        assert_eq!(
            code(&format!("SELECT {}1", "NOT ".repeat(5_000))),
            Code::StatementTooLarge
        );
        assert_eq!(
            code(&format!("SELECT 1{}", " + a".repeat(5_000))),
            Code::StatementTooLarge
        );
        assert_eq!(
            code(&format!(
                "SELECT {}1{}",
                "(".repeat(5_000),
                ")".repeat(5_000)
            )),
            Code::NotParsed
        );
        assert_eq!(
            code(&"x".repeat(STATEMENT_BYTES_MAX + 1)),
            Code::StatementTooLarge
        );
    }

    #[test]
    fn long_lists_are_fine() {
        let list = vec!["'some value'"; 3_000].join(", ");
        assert!(parse_query(&format!("SELECT count(*) FROM t WHERE a IN ({list})")).is_ok());
    }

    #[test]
    fn only_a_lone_select_is_a_query() {
        assert_eq!(code("SELECT 1; SELECT 2"), Code::NotASelect);
        assert_eq!(code("DELETE FROM t"), Code::NotASelect);
        assert_eq!(code(""), Code::NotASelect);
        assert_eq!(code("SELEC 1"), Code::NotParsed);
    }
}
