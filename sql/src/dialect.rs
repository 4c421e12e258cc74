//! Flink's SQL as sqlparser sees it.
//!
//! Much stricter than sqlparser's generic dialect, which accepts the union of everybody's SQL: what is not enabled here
//! is a syntax error with a position. It reports itself as the generic dialect so that sqlparser's checks by type
//! apply, because the worker parses expression text with that one; [`crate::expressions`] proves for every text that
//! both read the same.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

#[derive(Debug)]
pub(crate) struct FlinkDialect;

impl Dialect for FlinkDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        character == '`' || character == '"'
    }

    fn is_identifier_start(&self, character: char) -> bool {
        character.is_alphabetic() || character == '_'
    }

    fn is_identifier_part(&self, character: char) -> bool {
        character.is_alphanumeric() || character == '_' || character == '$'
    }

    // The following are parsed only to be refused by their names.

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    /// `TABLE t` as an argument of a window function becomes [`Expr::Prefixed`].
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let [table, name] = parser.peek_tokens_ref::<2>();
        let (Token::Word(table_word), Token::Word(_)) = (&table.token, &name.token) else {
            return None;
        };
        if table_word.keyword != Keyword::TABLE || table_word.quote_style.is_some() {
            return None;
        }
        let prefix = Ident::with_span(table.span, "TABLE");
        parser.next_token();
        Some(parser.parse_identifier().map(|name| Expr::Prefixed {
            prefix,
            value: Box::new(Expr::Identifier(name)),
        }))
    }
}
