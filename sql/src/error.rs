//! The one error of this crate: a script that cannot become a job.
//!
//! The caller has a single decision, to show it to the person who wrote the script, so there is one shape: where it is
//! (line and column, always), what the construct is, and the remedy in the message.

use std::fmt;

use datafusion::sql::sqlparser::ast::{Spanned, helpers::attached_token::AttachedToken};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// A place in a script: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl Position {
    /// The first character of the script, for what concerns the whole of it.
    pub const START: Self = Self { line: 1, column: 1 };

    /// Where a parsed node begins, or `fallback` for the few nodes that do not know it.
    pub(crate) fn of(node: &impl Spanned, fallback: Self) -> Self {
        Self::of_span(node.span()).unwrap_or(fallback)
    }

    /// Where a token that the parser kept stands, or `fallback` if it kept none.
    pub(crate) fn of_token(token: &AttachedToken, fallback: Self) -> Self {
        Self::of_span(token.0.span).unwrap_or(fallback)
    }

    /// None for the empty span, which sqlparser writes as line 0.
    pub(crate) fn of_span(span: Span) -> Option<Self> {
        (span.start.line > 0).then(|| span.start.into())
    }
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self {
            line: location.line,
            column: location.column,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a script was refused. Shows as `line 7, column 12: column "departd_at" not found …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct SqlError {
    position: Position,
    message: String,
}

impl SqlError {
    pub(crate) fn new(position: Position, message: impl Into<String>) -> Self {
        Self {
            position,
            message: message.into(),
        }
    }

    /// A construct that the parser knows and Flott does not run.
    pub(crate) fn unsupported(position: Position, construct: &str, remedy: &str) -> Self {
        let separator = if remedy.is_empty() { "" } else { ": " };
        Self::new(
            position,
            format!("{construct} is not supported{separator}{remedy}"),
        )
    }

    /// Where in the script.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What is wrong and what to do, without the position.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The nearest of the known names, if one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let distance_max = (wanted.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean x?` for the nearest of the known names, else `; there is a, b, c`.
pub(crate) fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("; did you mean {near}?"),
        None if known.is_empty() => String::new(),
        None => format!("; there is {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = ["departed_at", "landed_at", "origin"];
        assert_eq!(nearest("departd_at", known), Some("departed_at"));
        assert_eq!(nearest("ORIGIN", known), Some("origin"));
        assert_eq!(nearest("carrier", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(did_you_mean("orgin", &known), "; did you mean origin?");
        assert_eq!(
            did_you_mean("carrier", &known),
            "; there is departed_at, landed_at, origin"
        );
    }
}
