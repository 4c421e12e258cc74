//! Flink's functions in other words: those whose namesake DataFusion lacks, or writes otherwise, or runs only after its
//! optimizer has replaced it, which the worker does not call.

use std::iter::Peekable;
use std::str::Chars;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, ObjectName, Value, helpers::attached_token::AttachedToken,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::error::{Position, SqlError};
use crate::functions::{arguments, name_of};

/// Whether [`rewrite`] knows a function of this name, in lower case.
pub(crate) fn is_rewritten(name: &str) -> bool {
    matches!(
        name,
        "mod" | "coalesce" | "ifnull" | "nvl" | "nvl2" | "date_format"
    )
}

/// The call in syntax that the worker evaluates; none if it stands as it is.
pub(crate) fn rewrite(function: &Function, position: Position) -> Result<Option<Expr>, SqlError> {
    let name = name_of(function);
    let arguments = arguments(function);
    let count = |low: usize, high: usize| {
        if (low..=high).contains(&arguments.len()) {
            Ok(())
        } else {
            let number = if low == high {
                low.to_string()
            } else {
                format!("at least {low}")
            };
            let message = format!(
                "{} needs {number} arguments, not {}",
                name.to_uppercase(),
                arguments.len()
            );
            Err(SqlError::new(position, message))
        }
    };
    Ok(match name.as_str() {
        "mod" => {
            count(2, 2)?;
            Some(Expr::Nested(Box::new(Expr::BinaryOp {
                left: Box::new(operand(arguments[0])),
                op: BinaryOperator::Modulo,
                right: Box::new(operand(arguments[1])),
            })))
        }
        "coalesce" => {
            count(1, usize::MAX)?;
            Some(first_not_null(function, &arguments))
        }
        "ifnull" | "nvl" => {
            count(2, 2)?;
            Some(first_not_null(function, &arguments))
        }
        "nvl2" => {
            count(3, 3)?;
            let condition = Expr::IsNotNull(Box::new(operand(arguments[0])));
            let when = case_when(condition, arguments[1]);
            Some(case(function, vec![when], arguments[2]))
        }
        "date_format" => {
            count(2, 2)?;
            Some(date_format(function, arguments[1], position)?)
        }
        _ => None,
    })
}

/// The expression, in parentheses if an operator beside it could tear it apart.
fn operand(expression: &Expr) -> Expr {
    match expression {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Value(_)
        | Expr::Function(_)
        | Expr::Nested(_)
        | Expr::Cast { .. }
        | Expr::Case { .. } => expression.clone(),
        _ => Expr::Nested(Box::new(expression.clone())),
    }
}

fn first_not_null(function: &Function, arguments: &[&Expr]) -> Expr {
    let (last, others) = arguments
        .split_last()
        .expect("the number of arguments was checked");
    if others.is_empty() {
        return Expr::Nested(Box::new((*last).clone()));
    }
    let conditions = others
        .iter()
        .map(|argument| case_when(Expr::IsNotNull(Box::new(operand(argument))), argument))
        .collect();
    case(function, conditions, last)
}

fn case_when(condition: Expr, result: &Expr) -> CaseWhen {
    CaseWhen {
        condition,
        result: result.clone(),
    }
}

fn case(function: &Function, conditions: Vec<CaseWhen>, otherwise: &Expr) -> Expr {
    let span = name_span(function);
    let token = |word: &str| AttachedToken(TokenWithSpan::new(Token::make_keyword(word), span));
    Expr::Case {
        case_token: token("CASE"),
        end_token: token("END"),
        operand: None,
        conditions,
        else_result: Some(Box::new(otherwise.clone())),
    }
}

fn name_span(function: &Function) -> Span {
    let name = function.name.0.first().and_then(|part| part.as_ident());
    name.map_or(Span::empty(), |ident| ident.span)
}

/// `DATE_FORMAT(x, 'yyyy-MM-dd')` is DataFusion's `to_char(x, '%Y-%m-%d')`.
fn date_format(function: &Function, pattern: &Expr, place: Position) -> Result<Expr, SqlError> {
    let literal = match pattern {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some((text, value.span)),
            _ => None,
        },
        _ => None,
    };
    let Some((text, span)) = literal else {
        let message = "DATE_FORMAT needs its pattern as a literal, e.g. 'yyyy-MM-dd HH:mm'";
        return Err(SqlError::new(Position::of(pattern, place), message));
    };
    let translated = chrono_pattern(text)
        .map_err(|message| SqlError::new(Position::of(pattern, place), message))?;
    let mut call = function.clone();
    call.name = ObjectName::from(Ident::with_span(name_span(function), "to_char"));
    if let FunctionArguments::List(list) = &mut call.args {
        list.args[1] = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(
            Value::SingleQuotedString(translated).with_span(span),
        )));
    }
    Ok(Expr::Function(call))
}

/// Java's `DateTimeFormatter` pattern as chrono writes it.
fn chrono_pattern(java: &str) -> Result<String, String> {
    let mut chrono = String::new();
    let mut rest = java.chars().peekable();
    while let Some(first) = rest.next() {
        if first == '\'' {
            quoted_literal(&mut rest, &mut chrono);
        } else if first.is_ascii_alphabetic() {
            let mut run = String::from(first);
            while let Some(same) = rest.next_if_eq(&first) {
                run.push(same);
            }
            chrono.push_str(match run.as_str() {
                "yyyy" | "uuuu" => "%Y",
                "yy" | "uu" => "%y",
                "MMMM" => "%B",
                "MMM" => "%b",
                "MM" => "%m",
                "M" => "%-m",
                "dd" => "%d",
                "d" => "%-d",
                "DDD" => "%j",
                "EEEE" => "%A",
                "E" | "EE" | "EEE" => "%a",
                "HH" => "%H",
                "H" => "%-H",
                "hh" => "%I",
                "h" => "%-I",
                "a" => "%p",
                "mm" => "%M",
                "ss" => "%S",
                "SSS" => "%3f",
                "SSSSSS" => "%6f",
                "SSSSSSSSS" => "%9f",
                _ => {
                    return Err(format!(
                        "the date pattern '{java}' has {run}, which Flott does not know; it knows yyyy MM dd HH mm ss SSS and their kin, and 'text' in quotes"
                    ));
                }
            });
        } else {
            push_literal(&mut chrono, first);
        }
    }
    Ok(chrono)
}

/// Behind an opening quote. Two quotes in a row are the quote itself, inside and outside.
fn quoted_literal(rest: &mut Peekable<Chars<'_>>, chrono: &mut String) {
    if rest.next_if_eq(&'\'').is_some() {
        chrono.push('\'');
        return;
    }
    while let Some(character) = rest.next() {
        if character != '\'' {
            push_literal(chrono, character);
        } else if rest.next_if_eq(&'\'').is_some() {
            chrono.push('\'');
        } else {
            return;
        }
    }
}

fn push_literal(chrono: &mut String, character: char) {
    chrono.push(character);
    if character == '%' {
        chrono.push('%');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_patterns_become_chrono_patterns() {
        for (java, chrono) in [
            ("yyyy-MM-dd HH:mm:ss.SSS", "%Y-%m-%d %H:%M:%S.%3f"),
            ("yyyy-MM-dd'T'HH", "%Y-%m-%dT%H"),
            ("d.M.yy 100%", "%-d.%-m.%y 100%%"),
            ("h 'o''clock' a", "%-I o'clock %p"),
            ("''yyyy", "'%Y"),
        ] {
            assert_eq!(chrono_pattern(java).unwrap(), chrono, "{java}");
        }
        assert!(chrono_pattern("yyyy-Q").is_err());
    }
}
