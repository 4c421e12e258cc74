//! Settings that may be shown to others: without passwords and keys.
//!
//! No option of ours is a secret today, and values may still have one in them: a URL with a password, or a key that a
//! later option brings. What looks like one is masked; a value too many costs nothing.

use std::collections::BTreeMap;

use super::{Configuration, OptionInfo, options};

/// What stands for a secret, as in Flink.
const MASK: &str = "******";

/// Parts of keys whose values are secrets.
const SECRET_KEY_PARTS: [&str; 9] = [
    "password",
    "secret",
    "token",
    "credential",
    "access-key",
    "accesskey",
    "api-key",
    "apikey",
    "private-key",
];

impl Configuration {
    /// Every option with the value in effect, secrets masked.
    pub fn effective_masked(&self) -> BTreeMap<String, String> {
        let show = |info: &OptionInfo| {
            let value = self
                .entries
                .get(info.key)
                .map_or(info.default, |entry| entry.value.as_str());
            (info.key.to_owned(), masked(info.key, value))
        };
        options::ALL.iter().map(show).collect()
    }
}

/// The value, unless it is a secret or has one in it.
fn masked(key: &str, value: &str) -> String {
    let key = key.to_ascii_lowercase();
    if !value.is_empty() && SECRET_KEY_PARTS.iter().any(|part| key.contains(part)) {
        return MASK.to_owned();
    }
    let mut shown = String::new();
    let mut rest = value;
    // User and password of each URL, and what follows a question mark: signed URLs carry their signature there.
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find([',', ' ']).unwrap_or(after.len());
        let (url, next) = after.split_at(end);
        let (url, query) = match url.split_once('?') {
            Some((url, _)) => (url, true),
            None => (url, false),
        };
        let authority = url.find('/').unwrap_or(url.len());
        match url[..authority].rfind('@') {
            Some(at) => {
                shown.push_str(MASK);
                shown.push_str(&url[at..]);
            }
            None => shown.push_str(url),
        }
        if query {
            shown.push('?');
            shown.push_str(MASK);
        }
        rest = next;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_everything_else_is_shown() {
        let table = [
            ("rest.port", "8081", "8081"),
            ("s3.secret-key", "abc", "******"),
            ("security.ssl.key-Password", "abc", "******"),
            ("security.ssl.key-password", "", ""),
            ("a", "s3://bucket/dir", "s3://bucket/dir"),
            ("a", "https://me:pw@host/x@y", "https://******@host/x@y"),
            (
                "a",
                "https://h/x?sig=1,https://u@h2:1/y",
                "https://h/x?******,https://******@h2:1/y",
            ),
            ("a", "ftp://u:p", "ftp://u:p"),
        ];
        for (key, value, shown) in table {
            assert_eq!(masked(key, value), shown, "{key} {value}");
        }
    }

    #[test]
    fn all_options_are_shown_with_what_is_in_effect() {
        let mut configuration = Configuration::default();
        configuration.set(&options::REST_PORT, 99);
        let shown = configuration.effective_masked();
        assert_eq!(shown.len(), options::ALL.len());
        assert_eq!(shown["rest.port"], "99");
        assert_eq!(shown["rest.bind-address"], "127.0.0.1");
    }
}
