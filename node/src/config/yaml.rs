//! YAML to a flat list of settings with their lines.
//!
//! `a: {b: {c: 1}}`, `a.b.c: 1` and any mixture mean the same key. A list of plain values is one value, separated by
//! commas. Scalars keep the text that stands in the file: a cluster named `007` stays so.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Deeper than any key; deeper files are a mistake.
const DEPTH_MAX: usize = 16;

/// A key with its value as text, and the line in which the value begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: u64,
}

/// All settings of a document in their order; an empty document has none. The error says what is wrong, and where.
pub(super) fn flatten(text: &str) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(settings);
    }
    let root: Spanned<Node> = serde_saphyr::from_str(text).map_err(|error| {
        let place = error
            .location()
            .map(|location| format!("line {}, column {}: ", location.line(), location.column()));
        format!(
            "{}{}",
            place.unwrap_or_default(),
            plain(error.without_snippet())
        )
    })?;
    match &root.value {
        Node::Map(_) => {}
        _ => return Err("line 1: expected `key: value` lines".to_owned()),
    }
    walk(text, String::new(), &root, 0, &mut settings)?;
    Ok(settings)
}

/// The first line of the parser's message, without the place that it may repeat.
fn plain(error: &serde_saphyr::Error) -> String {
    let message = error.to_string();
    message
        .lines()
        .next()
        .unwrap_or("malformed")
        .trim_start_matches("error: ")
        .to_owned()
}

fn walk(
    text: &str,
    key: String,
    node: &Spanned<Node>,
    depth: usize,
    out: &mut Vec<Setting>,
) -> Result<(), String> {
    let line = node.referenced.line();
    if depth > DEPTH_MAX {
        return Err(format!("line {line}: nested more than {DEPTH_MAX} deep"));
    }
    match &node.value {
        Node::Map(members) => {
            for (name, member) in members {
                let name = name.trim();
                let key = if key.is_empty() {
                    name.to_owned()
                } else {
                    format!("{key}.{name}")
                };
                walk(text, key, member, depth + 1, out)?;
            }
        }
        // `key:` without a value sets nothing, as in Flink.
        Node::Null => {}
        Node::Seq(members) => {
            let mut values = Vec::new();
            for member in members {
                values.push(scalar(text, member).ok_or_else(|| {
                    format!(
                        "line {}: the list of `{key}` may hold plain values only",
                        member.referenced.line()
                    )
                })?);
            }
            out.push(Setting {
                key,
                value: values.join(","),
                line,
            });
        }
        Node::Text(_) | Node::Plain(_) => {
            let value = scalar(text, node).unwrap_or_default();
            out.push(Setting { key, value, line });
        }
    }
    Ok(())
}

/// The text of a scalar: a number or truth value as it stands in the file.
fn scalar(text: &str, node: &Spanned<Node>) -> Option<String> {
    match &node.value {
        Node::Text(value) => Some(value.clone()),
        Node::Plain(parsed) => {
            let span = node.defined.span();
            let source = span
                .byte_offset()
                .zip(span.byte_len())
                .and_then(|(start, length)| {
                    let start = usize::try_from(start).ok()?;
                    text.get(start..start.checked_add(usize::try_from(length).ok()?)?)
                });
            let source = source.map(str::trim).filter(|source| !source.is_empty());
            Some(source.map_or_else(|| parsed.clone(), str::to_owned))
        }
        Node::Null | Node::Seq(_) | Node::Map(_) => None,
    }
}

enum Node {
    Null,
    /// A scalar that YAML reads as text.
    Text(String),
    /// A scalar that YAML reads as a number or truth value, printed back.
    Plain(String),
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = seq.next_element()? {
            members.push(member);
        }
        Ok(Node::Seq(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Vec<(String, String, u64)> {
        let settings = flatten(text).unwrap();
        settings
            .into_iter()
            .map(|s| (s.key, s.value, s.line))
            .collect()
    }

    fn setting(key: &str, value: &str, line: u64) -> (String, String, u64) {
        (key.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn nested_and_dotted_keys_are_the_same() {
        let text = "# comment\njobmanager:\n  rpc:\n    address: host1\n  rpc.port: 6123\nparallelism.default: 4\nempty:\n";
        let expected = [
            setting("jobmanager.rpc.address", "host1", 4),
            setting("jobmanager.rpc.port", "6123", 5),
            setting("parallelism.default", "4", 6),
        ];
        assert_eq!(flat(text), expected);
    }

    #[test]
    fn scalars_keep_their_text() {
        let text = "a: 007\nb: 1.50\nc: 10 s\nd: 'x: y'\ne: True\nf: 0x10\ng: [h1:1, 'h2:2', 3]\nh: 1_000\n";
        let values: Vec<_> = flat(text).into_iter().map(|(_, value, _)| value).collect();
        assert_eq!(
            values,
            [
                "007",
                "1.50",
                "10 s",
                "x: y",
                "True",
                "0x10",
                "h1:1,h2:2,3",
                "1_000"
            ]
        );
    }

    #[test]
    fn a_file_without_settings_is_fine() {
        assert_eq!(flat(""), []);
        assert_eq!(flat("# nothing\n\n"), []);
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_line() {
        for (text, line) in [
            ("just text\n", "line 1"),
            ("a: 1\nb: [\n", "line "),
            ("a: 1\na: 2\n", "line 2"),
            ("a:\n  - {b: 1}\n", "line 2"),
        ] {
            let reason = flatten(text).unwrap_err();
            assert!(reason.contains(line), "{text:?}: {reason}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-c:\\-\\[\\]{}\"'&*!#|> \n.0-9]{0,40}") {
            let _ = flatten(&text);
        }
    }
}
