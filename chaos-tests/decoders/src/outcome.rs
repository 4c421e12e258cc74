//! What becomes of an input, in the words of its target: which error, without what differs from input to input, or what was
//! decoded.
//!
//! It is asked for only while a corpus is gathered ([`crate::gather`]); else nothing is written down. What must stay true: it
//! takes next to no memory, since it is counted as the target's.

use std::cell::RefCell;
use std::fmt::{self, Write};

/// Of a text, so many bytes are looked at.
const TEXT_BYTES_MAX: usize = 240;
/// Of one input: an input of many records is told apart by its first.
const OUTCOME_BYTES_MAX: usize = 2_000;

thread_local! {
    /// None: nobody asks.
    static OUTCOME: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Hands a result on. That there is a value, or the words of the error, is part of what became of the input.
pub fn told<T, E: fmt::Display>(result: Result<T, E>) -> Result<T, E> {
    match &result {
        Ok(_) => note(format_args!("decoded")),
        Err(error) => note(format_args!("{error:#}")),
    }
    result
}

/// Hands a value on. Which variant it is, is part of what became of the input.
pub fn kind<T: fmt::Debug>(value: T) -> T {
    note(format_args!("{value:?}"));
    value
}

/// What a call returns, and what became of its input.
pub(crate) fn outcome_of<R>(call: impl FnOnce() -> R) -> (R, String) {
    OUTCOME.replace(Some(String::new()));
    let returned = call();
    (returned, OUTCOME.replace(None).unwrap_or_default())
}

fn note(text: fmt::Arguments<'_>) {
    OUTCOME.with_borrow_mut(|outcome| {
        let Some(outcome) = outcome else { return };
        let mut begin = Begin(String::new());
        // An error means that enough of it was seen.
        let _ = begin.write_fmt(text);
        let shape = shape(&begin.0);
        // The same of one record after the other is one thing.
        if !outcome.ends_with(&shape) && outcome.len() < OUTCOME_BYTES_MAX {
            outcome.push('\n');
            outcome.push_str(&shape);
        }
    });
}

/// The begin of a text, whatever its length.
struct Begin(String);

impl Write for Begin {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        match text.len() > room {
            true => Err(fmt::Error),
            false => Ok(()),
        }
    }
}

/// The words of a text, as far as they have no digits and are not quoted. Of a value, as far as its fields.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    let mut quote = None;
    let mut before = ' ';
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '{' => break,
            None if letter.is_alphanumeric() || letter == '_' => word.push(letter),
            None => {
                let is_letter = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
                if !word.is_empty() && word.chars().all(is_letter) {
                    shape.push_str(&word);
                    shape.push(' ');
                }
                word.clear();
                // Not that of a genitive.
                if matches!(letter, '"' | '\'' | '`') && !before.is_alphanumeric() {
                    quote = Some(letter);
                }
            }
        }
        before = letter;
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_same_words_are_one_outcome() {
        let of = |text: &str| outcome_of(|| told(Err::<(), _>(text.to_owned()))).1;
        assert_eq!(
            of("line 7, column 3: the job's name 'a b' has 0x1f"),
            of("line 12, column 1: the job's name 'c' has 0x00")
        );
        assert_ne!(of("entry 9: no checksum"), of("entry 9: bad checksum"));
        assert_ne!(of("bad"), outcome_of(|| told(Ok::<_, String>(1))).1);
        assert!(of(&"x".repeat(1_000_000)).len() < 2 * TEXT_BYTES_MAX);
    }

    #[test]
    fn values_are_told_apart_by_their_variants() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "it is only shown")]
        enum Value {
            One(u8),
            Two { text: &'static str },
        }
        let of = |value: Value| outcome_of(|| kind(value)).1;
        assert_eq!(of(Value::One(1)), of(Value::One(2)));
        assert_eq!(of(Value::Two { text: "a" }), of(Value::Two { text: "b" }));
        assert_ne!(of(Value::One(1)), of(Value::Two { text: "a" }));
        let many = outcome_of(|| (0..10_000).map(Some).map(kind).for_each(drop));
        assert_eq!(many.1, outcome_of(|| kind(Some(1))).1);
    }

    #[test]
    fn nothing_is_written_down_unless_somebody_asks() {
        assert!(told(Err::<(), _>("bad")).is_err());
        assert_eq!(outcome_of(|| ()).1, "");
    }
}
