//! The only place that prints: results to standard output, prose to standard error.

use std::io::{IsTerminal, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

/// A line of the result.
pub(crate) fn line(text: &str) {
    // A reader that has gone (`flott list | head -1`) is no failure.
    let _ = is_read(text);
}

/// A line of a result that has no end; whether anybody reads it.
pub(crate) fn is_read(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.is_ok()
}

/// A part of the result that ends with a line break; whether anybody reads it.
pub(crate) fn is_read_whole(lines: &[u8]) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(lines).and_then(|()| stdout.flush());
    written.is_ok()
}

/// The result as it is. For a person it ends with a line break, for a program with its last byte.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let end: &[u8] = if stdout.is_terminal() { b"\n" } else { b"" };
    let written = stdout.write_all(bytes).and_then(|()| stdout.write_all(end));
    let _ = written.and_then(|()| stdout.flush());
}

/// The result as JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(
        &serde_json::to_string_pretty(value)
            .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")),
    );
}

/// The result as a table; `none` is printed if it has no rows.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, none: &str) {
    if rows.is_empty() {
        return line(none);
    }
    line(&format_table(header, rows));
}

/// Aligned columns, without lines.
pub(crate) fn format_table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_header(header.iter().copied())
        .add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Something worth knowing that is not the result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether a person looks at standard error.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Replaces the line that was shown before by `text`; an empty text clears it. Only where [`is_watched`].
pub(crate) fn live(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_without_trailing_blanks() {
        let rows = vec![
            vec!["1".to_owned(), "leader".to_owned()],
            vec!["20".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            format_table(&["ID", "ROLE"], rows),
            "ID  ROLE\n1   leader\n20  x"
        );
    }
}
