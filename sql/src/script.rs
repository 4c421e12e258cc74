//! A script's statements, in order, each with its place.
//!
//! The statements are told apart here by their first words; queries and expressions are sqlparser's. What is no
//! statement of Flott's is refused by its name before sqlparser is asked.

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::ddl::{self, CreateTable};
use crate::dialect::FlinkDialect;
use crate::error::{Position, SqlError};

/// More than any script written by hand or by a sensible generator; bounds the size of every syntax tree.
const TOKENS_MAX: usize = 20_000;

#[derive(Debug)]
pub(crate) enum Statement {
    CreateTable(CreateTable),
    DropTable { name: Ident, if_exists: bool },
    Set { key: Text, value: Text },
    Insert(Insert),
    Explain(Insert),
}

/// A string literal and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) position: Position,
}

#[derive(Debug)]
pub(crate) struct Insert {
    /// Of the word `INSERT`.
    pub(crate) position: Position,
    pub(crate) table: Ident,
    /// Empty: all columns of the table.
    pub(crate) columns: Vec<Ident>,
    pub(crate) query: Box<Query>,
}

/// The parsed script, and its words for finding a keyword that sqlparser did not keep.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) statements: Vec<Statement>,
    pub(crate) end: Position,
    pub(crate) words: Words,
}

/// Every word of the script in order, in upper case.
#[derive(Debug)]
pub(crate) struct Words(Vec<(Position, String)>);

impl Words {
    /// The nearest `keyword` before a place, or the place itself: for clauses that begin with a keyword sqlparser drops.
    pub(crate) fn before(&self, place: Position, keyword: &str) -> Position {
        let end = self.0.partition_point(|(position, _)| *position < place);
        let found = self.0[..end].iter().rev().find(|(_, word)| word == keyword);
        found.map_or(place, |(position, _)| *position)
    }

    /// The nearest `keyword` behind a place, or the place itself.
    pub(crate) fn after(&self, place: Position, keyword: &str) -> Position {
        let start = self.0.partition_point(|(position, _)| *position <= place);
        let found = self.0[start..].iter().find(|(_, word)| word == keyword);
        found.map_or(place, |(position, _)| *position)
    }
}

/// Parses a whole script.
pub(crate) fn parse(script: &str) -> Result<Script, SqlError> {
    let tokens = Tokenizer::new(&FlinkDialect, script)
        .tokenize_with_location()
        .map_err(|error| {
            SqlError::new(
                error.location.into(),
                format!("syntax error: {}", lowercase_first(&error.message)),
            )
        })?;
    let end = end_of(script);
    check_tokens(&tokens, end)?;
    let words = Words(tokens.iter().filter_map(word).collect());
    let parser = Parser::new(&FlinkDialect).with_tokens_with_locations(tokens);
    let mut cursor = Cursor { parser, end };
    let mut statements = Vec::new();
    loop {
        while cursor.parser.consume_token(&Token::SemiColon) {}
        if cursor.at_end() {
            return Ok(Script {
                statements,
                end,
                words,
            });
        }
        statements.push(cursor.statement()?);
        if !cursor.at_end() && !cursor.parser.consume_token(&Token::SemiColon) {
            return Err(cursor.expected("';' or the end of the script"));
        }
    }
}

fn check_tokens(tokens: &[TokenWithSpan], end: Position) -> Result<(), SqlError> {
    let mut count = 0;
    for token in tokens {
        let position = Position::of_span(token.span).unwrap_or(end);
        match &token.token {
            Token::Whitespace(Whitespace::MultiLineComment(comment))
                if comment.starts_with('+') =>
            {
                return Err(SqlError::unsupported(
                    position,
                    "a hint /*+ ... */",
                    "put the options into the table's WITH clause",
                ));
            }
            Token::Whitespace(_) => {}
            _ => count += 1,
        }
        if count > TOKENS_MAX {
            let message = format!("the script has more than {TOKENS_MAX} words; split it");
            return Err(SqlError::new(position, message));
        }
    }
    Ok(())
}

fn word(token: &TokenWithSpan) -> Option<(Position, String)> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => {
            Some((token.span.start.into(), word.value.to_uppercase()))
        }
        _ => None,
    }
}

/// Behind the last character that is not white space.
fn end_of(script: &str) -> Position {
    let text = script.trim_end();
    let last_line = text.rsplit('\n').next().unwrap_or(text);
    Position {
        line: text.matches('\n').count() as u64 + 1,
        column: last_line.chars().count() as u64 + 1,
    }
}

fn lowercase_first(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

/// sqlparser's parser, with errors that carry a position.
pub(crate) struct Cursor<'a> {
    pub(crate) parser: Parser<'a>,
    end: Position,
}

impl Cursor<'_> {
    fn statement(&mut self) -> Result<Statement, SqlError> {
        let position = self.position();
        let token = self.parser.next_token();
        let keyword = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
            _ => {
                self.parser.prev_token();
                return Err(self.expected("a statement"));
            }
        };
        match keyword.as_str() {
            "CREATE" => ddl::create_table(self).map(Statement::CreateTable),
            "DROP" => self.drop_table(),
            "SET" => self.set(position),
            "INSERT" => self.insert(position).map(Statement::Insert),
            "EXPLAIN" => self.explain(),
            "SELECT" | "WITH" | "VALUES" | "TABLE" => Err(SqlError::unsupported(
                position,
                &format!("a {keyword} on its own"),
                "a job needs a sink, write INSERT INTO <table> SELECT ...",
            )),
            "BEGIN" | "EXECUTE" => Err(SqlError::unsupported(
                position,
                "STATEMENT SET",
                "submit each INSERT as a job of its own",
            )),
            _ => Err(SqlError::unsupported(
                position,
                &format!("the statement {keyword}"),
                "Flott runs CREATE TABLE, DROP TABLE, SET, INSERT INTO ... SELECT and EXPLAIN",
            )),
        }
    }

    fn drop_table(&mut self) -> Result<Statement, SqlError> {
        let _temporary = self.parser.parse_keyword(Keyword::TEMPORARY);
        let position = self.position();
        if !self.parser.parse_keyword(Keyword::TABLE) {
            let what = format!("DROP {}", self.parser.peek_token_ref());
            return Err(SqlError::unsupported(
                position,
                &what,
                "only tables can be dropped",
            ));
        }
        let if_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = self.table_name()?;
        Ok(Statement::DropTable { name, if_exists })
    }

    fn set(&mut self, position: Position) -> Result<Statement, SqlError> {
        if !matches!(
            self.parser.peek_token_ref().token,
            Token::SingleQuotedString(_)
        ) {
            let message = "SET needs a quoted key and value: SET 'parallelism.default' = '4'";
            return Err(SqlError::new(position, message));
        }
        let key = self.string("a quoted key")?;
        self.token(&Token::Eq, "'='")?;
        let value = self.string("a quoted value")?;
        Ok(Statement::Set { key, value })
    }

    fn explain(&mut self) -> Result<Statement, SqlError> {
        let _plan_for = self.parser.parse_keywords(&[Keyword::PLAN, Keyword::FOR]);
        let position = self.position();
        if !self.parser.parse_keyword(Keyword::INSERT) {
            let what = format!("EXPLAIN {}", self.parser.peek_token_ref());
            return Err(SqlError::unsupported(
                position,
                &what,
                "write EXPLAIN INSERT INTO <table> SELECT ...",
            ));
        }
        self.insert(position).map(Statement::Explain)
    }

    /// Behind the word `INSERT`.
    fn insert(&mut self, position: Position) -> Result<Insert, SqlError> {
        let at = self.position();
        if self.parser.parse_keyword(Keyword::OVERWRITE) {
            return Err(SqlError::unsupported(
                at,
                "INSERT OVERWRITE",
                "a streaming job appends, write INSERT INTO",
            ));
        }
        self.keyword(Keyword::INTO)?;
        let table = self.table_name()?;
        let mut columns = Vec::new();
        if self.at_column_list() {
            self.token(&Token::LParen, "'('")?;
            loop {
                columns.push(self.identifier("a column's name")?);
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.token(&Token::RParen, "',' or ')'")?;
        }
        let query = self.parsed(|parser| parser.parse_query())?;
        Ok(Insert {
            position,
            table,
            columns,
            query,
        })
    }

    /// Whether `(` opens a list of columns and not a query in parentheses.
    fn at_column_list(&self) -> bool {
        let [open, first] = self.parser.peek_tokens_ref::<2>();
        let query = [
            Keyword::SELECT,
            Keyword::WITH,
            Keyword::VALUES,
            Keyword::TABLE,
        ];
        open.token == Token::LParen
            && matches!(&first.token, Token::Word(word) if !query.contains(&word.keyword))
    }

    // ---- the pieces that statements are read from ----

    /// Where the next token stands.
    pub(crate) fn position(&self) -> Position {
        Position::of_span(self.parser.peek_token_ref().span).unwrap_or(self.end)
    }

    fn at_end(&self) -> bool {
        self.parser.peek_token_ref().token == Token::EOF
    }

    /// The error that something else stands here.
    pub(crate) fn expected(&self, what: &str) -> SqlError {
        let found = match &self.parser.peek_token_ref().token {
            Token::EOF => "the end of the script".to_owned(),
            token => token.to_string(),
        };
        SqlError::new(
            self.position(),
            format!("syntax error: expected {what}, found {found}"),
        )
    }

    pub(crate) fn token(&mut self, token: &Token, what: &str) -> Result<(), SqlError> {
        if self.parser.consume_token(token) {
            Ok(())
        } else {
            Err(self.expected(what))
        }
    }

    pub(crate) fn keyword(&mut self, keyword: Keyword) -> Result<(), SqlError> {
        if self.parser.parse_keyword(keyword) {
            Ok(())
        } else {
            Err(self.expected(&format!("{keyword:?}")))
        }
    }

    pub(crate) fn string(&mut self, what: &str) -> Result<Text, SqlError> {
        let position = self.position();
        match self.parser.peek_token_ref().token.clone() {
            Token::SingleQuotedString(value) => {
                self.parser.next_token();
                Ok(Text { value, position })
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(crate) fn identifier(&mut self, what: &str) -> Result<Ident, SqlError> {
        match &self.parser.peek_token_ref().token {
            Token::Word(word) if word.value.is_empty() => Err(self.expected(what)),
            Token::Word(_) => self.parsed(|parser| parser.parse_identifier()),
            _ => Err(self.expected(what)),
        }
    }

    /// A table's name, which Flott does not qualify.
    pub(crate) fn table_name(&mut self) -> Result<Ident, SqlError> {
        let name = self.identifier("a table's name")?;
        if self.parser.peek_token_ref().token == Token::Period {
            return Err(SqlError::unsupported(
                self.position(),
                "a catalog or database before a table's name",
                "there is one catalog per script, write the table's name alone",
            ));
        }
        Ok(name)
    }

    pub(crate) fn expression(&mut self) -> Result<Expr, SqlError> {
        self.parsed(|parser| parser.parse_expr())
    }

    /// What sqlparser reads here; its error with a position.
    fn parsed<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<T, SqlError> {
        read(&mut self.parser).map_err(|error| match error {
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
                let (text, position) = split_location(&message);
                let position = position.unwrap_or_else(|| self.position());
                let text = lowercase_first(text).replacen("expected: ", "expected ", 1);
                let text = text.replace("found: EOF", "found the end of the script");
                SqlError::new(
                    position,
                    format!("syntax error: {}", text.replacen("found: ", "found ", 1)),
                )
            }
            ParserError::RecursionLimitExceeded => SqlError::new(
                self.position(),
                "too deeply nested; split the expression or the query into simpler ones",
            ),
        })
    }
}

/// sqlparser appends ` at Line: 3, Column: 7` to most messages.
fn split_location(message: &str) -> (&str, Option<Position>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else {
        return (message, None);
    };
    let position = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)))
        .filter(|(line, _): &(u64, u64)| *line > 0)
        .map(|(line, column)| Position { line, column });
    (text, position)
}
