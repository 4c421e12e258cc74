//! `CREATE TABLE` in Flink's dialect, read token by token: columns, `WATERMARK FOR`, `WITH`.
//!
//! What comes out has the shape of a table but is not yet checked against its connector: that is [`crate::plan`]'s
//! catalog with [`crate::options`].

use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;
use flott_proto::data_type::DataType;

use crate::error::{Position, SqlError};
use crate::script::{Cursor, Text};
use crate::types;

#[derive(Debug)]
pub(crate) struct CreateTable {
    pub(crate) name: Ident,
    /// Of the name.
    pub(crate) position: Position,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) watermark: Option<Watermark>,
    pub(crate) options: Vec<TableOption>,
}

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) position: Position,
    pub(crate) data_type: DataType,
    pub(crate) nullable: bool,
}

#[derive(Debug)]
pub(crate) struct Watermark {
    pub(crate) column: Ident,
    pub(crate) position: Position,
    pub(crate) expression: Expr,
}

#[derive(Debug)]
pub(crate) struct TableOption {
    pub(crate) key: Text,
    pub(crate) value: Text,
}

/// Behind the word `CREATE`.
pub(crate) fn create_table(cursor: &mut Cursor<'_>) -> Result<CreateTable, SqlError> {
    let position = cursor.position();
    let _temporary = cursor.parser.parse_keyword(Keyword::TEMPORARY);
    if !cursor.parser.parse_keyword(Keyword::TABLE) {
        let what = format!("CREATE {}", cursor.parser.peek_token_ref());
        let remedy = "only CREATE [TEMPORARY] TABLE is; a subquery in FROM or a WITH clause does what a view does";
        return Err(SqlError::unsupported(position, &what, remedy));
    }
    let if_not_exists = cursor
        .parser
        .parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let position = cursor.position();
    let mut table = CreateTable {
        name: cursor.table_name()?,
        position,
        if_not_exists,
        columns: Vec::new(),
        watermark: None,
        options: Vec::new(),
    };
    cursor.token(&Token::LParen, "'(' and the table's columns")?;
    loop {
        table_element(cursor, &mut table)?;
        if !cursor.parser.consume_token(&Token::Comma) {
            break;
        }
    }
    cursor.token(&Token::RParen, "',' or ')'")?;
    comment(cursor)?;
    refuse_table_clause(cursor)?;
    if !cursor.parser.parse_keyword(Keyword::WITH) {
        let message = format!(
            "table {} has no WITH clause; add WITH ('connector' = 'filesystem', ...)",
            table.name.value
        );
        return Err(SqlError::new(cursor.position(), message));
    }
    table.options = with_options(cursor)?;
    refuse_table_clause(cursor)?;
    Ok(table)
}

fn table_element(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Result<(), SqlError> {
    let position = cursor.position();
    let (word, quoted) = match &cursor.parser.peek_token_ref().token {
        Token::Word(word) => (word.value.to_uppercase(), word.quote_style.is_some()),
        _ => return Err(cursor.expected("a column, or WATERMARK FOR")),
    };
    let second = cursor.parser.peek_nth_token_ref(1).token.clone();
    let second = match second {
        Token::Word(word) => word.value.to_uppercase(),
        other => other.to_string(),
    };
    match (word.as_str(), second.as_str()) {
        ("WATERMARK", "FOR") if !quoted => watermark(cursor, table),
        ("PRIMARY", "KEY") | ("CONSTRAINT", _) | ("UNIQUE", "(" | "KEY") if !quoted => {
            Err(no_constraint(position))
        }
        _ => column(cursor, table),
    }
}

fn no_constraint(position: Position) -> SqlError {
    let remedy = "Flott's tables are append-only streams without keys, leave it out";
    SqlError::unsupported(position, "a PRIMARY KEY or UNIQUE constraint", remedy)
}

fn watermark(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Result<(), SqlError> {
    let position = cursor.position();
    if table.watermark.is_some() {
        let message = format!("table {} has a second WATERMARK", table.name.value);
        return Err(SqlError::new(position, message));
    }
    cursor.parser.next_token();
    cursor.keyword(Keyword::FOR)?;
    let position = cursor.position();
    let column = cursor.identifier("a column's name")?;
    if cursor.parser.peek_token_ref().token == Token::Period {
        let remedy = "the event time is a column of the table itself";
        return Err(SqlError::unsupported(
            cursor.position(),
            "a nested watermark column",
            remedy,
        ));
    }
    cursor.keyword(Keyword::AS)?;
    let expression = cursor.expression()?;
    table.watermark = Some(Watermark {
        column,
        position,
        expression,
    });
    Ok(())
}

fn column(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Result<(), SqlError> {
    let position = cursor.position();
    let name = cursor.identifier("a column's name")?.value;
    if table.columns.iter().any(|column| column.name == name) {
        let message = format!("table {} has a second column {name:?}", table.name.value);
        return Err(SqlError::new(position, message));
    }
    if cursor.parser.peek_keyword(Keyword::AS) {
        let remedy = "compute it in the SELECT, or in a subquery";
        return Err(SqlError::unsupported(
            cursor.position(),
            &format!("the computed column {name:?}"),
            remedy,
        ));
    }
    let data_type = data_type(cursor)?;
    let mut nullable = true;
    loop {
        let position = cursor.position();
        if cursor.parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            nullable = false;
        } else if cursor.parser.parse_keyword(Keyword::NULL) {
            nullable = true;
        } else if cursor.parser.peek_keyword(Keyword::COMMENT) {
            comment(cursor)?;
        } else if cursor.parser.peek_keyword(Keyword::PRIMARY)
            || cursor.parser.peek_keyword(Keyword::UNIQUE)
        {
            return Err(no_constraint(position));
        } else if matches!(&cursor.parser.peek_token_ref().token, Token::Word(word) if word.value.eq_ignore_ascii_case("METADATA"))
        {
            let remedy = "Flott's connectors have no metadata, leave the column out";
            return Err(SqlError::unsupported(position, "a METADATA column", remedy));
        } else {
            break;
        }
    }
    table.columns.push(Column {
        name,
        position,
        data_type,
        nullable,
    });
    Ok(())
}

/// A type: a word, and numbers in parentheses.
fn data_type(cursor: &mut Cursor<'_>) -> Result<DataType, SqlError> {
    let position = cursor.position();
    let Token::Word(word) = cursor.parser.peek_token_ref().token.clone() else {
        return Err(cursor.expected("a type"));
    };
    cursor.parser.next_token();
    let mut text = word.value.to_uppercase();
    if text == "DOUBLE" {
        let _precision = cursor.parser.parse_keyword(Keyword::PRECISION);
    }
    if cursor.parser.peek_token_ref().token == Token::Lt {
        let construct = format!("the type {text}<...>");
        let remedy = "columns have simple types, flatten it before";
        return Err(SqlError::unsupported(position, &construct, remedy));
    }
    if cursor.parser.consume_token(&Token::LParen) {
        let mut numbers = Vec::new();
        loop {
            match cursor.parser.peek_token_ref().token.clone() {
                Token::Number(digits, false) => numbers.push(digits),
                _ => return Err(cursor.expected("a number")),
            }
            cursor.parser.next_token();
            if !cursor.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        cursor.token(&Token::RParen, "',' or ')'")?;
        // Any length of VARCHAR is a STRING.
        if text == "VARCHAR" && numbers.len() == 1 {
            text = "STRING".to_owned();
        } else {
            text = format!("{text}({})", numbers.join(", "));
        }
    }
    if cursor
        .parser
        .peek_one_of_keywords(&[Keyword::WITH, Keyword::WITHOUT])
        .is_some()
    {
        let without =
            cursor
                .parser
                .parse_keywords(&[Keyword::WITHOUT, Keyword::TIME, Keyword::ZONE]);
        if !without {
            let remedy = "Flott's timestamps have no time zone, write TIMESTAMP(3)";
            return Err(SqlError::unsupported(
                position,
                &format!("{text} with a time zone"),
                remedy,
            ));
        }
    }
    types::parse(&text).map_err(|message| SqlError::new(position, message))
}

/// A COMMENT is for people; nothing keeps it.
fn comment(cursor: &mut Cursor<'_>) -> Result<(), SqlError> {
    if cursor.parser.parse_keyword(Keyword::COMMENT) {
        cursor.string("the comment's text in quotes")?;
    }
    Ok(())
}

fn refuse_table_clause(cursor: &mut Cursor<'_>) -> Result<(), SqlError> {
    let clauses = [
        (
            Keyword::PARTITIONED,
            "PARTITIONED BY",
            "files are written without partitions, leave it out",
        ),
        (
            Keyword::LIKE,
            "LIKE",
            "write the columns and options of the table itself",
        ),
        (
            Keyword::AS,
            "CREATE TABLE ... AS SELECT",
            "write CREATE TABLE and INSERT INTO",
        ),
    ];
    for (keyword, construct, remedy) in clauses {
        if cursor.parser.peek_keyword(keyword) {
            return Err(SqlError::unsupported(cursor.position(), construct, remedy));
        }
    }
    Ok(())
}

fn with_options(cursor: &mut Cursor<'_>) -> Result<Vec<TableOption>, SqlError> {
    cursor.token(&Token::LParen, "'(' and the table's options")?;
    let mut options: Vec<TableOption> = Vec::new();
    loop {
        let key = cursor.string("an option's quoted key")?;
        cursor.token(&Token::Eq, "'='")?;
        let value = cursor.string("an option's quoted value")?;
        if options.iter().any(|option| option.key.value == key.value) {
            let message = format!("the option '{}' is given twice", key.value);
            return Err(SqlError::new(key.position, message));
        }
        options.push(TableOption { key, value });
        if !cursor.parser.consume_token(&Token::Comma) {
            break;
        }
    }
    cursor.token(&Token::RParen, "',' or ')'")?;
    Ok(options)
}
