//! What an option is, where a value came from, and what can be wrong with one.

use std::fmt;
use std::marker::PhantomData;

use super::value::ConfigValue;

/// A setting: its key, type, default, older keys and a line of explanation. All are constants in
/// [`options`](super::options).
pub struct ConfigOption<T> {
    key: &'static str,
    default: &'static str,
    aliases: &'static [&'static str],
    doc: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> ConfigOption<T> {
    /// An option without older keys.
    pub const fn new(key: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self {
            key,
            default,
            aliases: &[],
            doc,
            value: PhantomData,
        }
    }

    /// The same option, also known by these older keys.
    #[must_use]
    pub const fn with_aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The key, as Flink writes it.
    pub const fn key(&self) -> &'static str {
        self.key
    }

    /// The default, as one would write it in a file.
    pub const fn default_text(&self) -> &'static str {
        self.default
    }
}

impl<T: ConfigValue> ConfigOption<T> {
    /// The option without its type, for the registry of all options.
    pub const fn info(&self) -> OptionInfo {
        OptionInfo {
            key: self.key,
            default: self.default,
            aliases: self.aliases,
            doc: self.doc,
            expected: T::EXPECTED,
            check: T::is_valid,
        }
    }
}

impl<T> fmt::Debug for ConfigOption<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigOption({}, default {:?})", self.key, self.default)
    }
}

/// An option with its type forgotten: for looking a key up, checking a text, and printing the reference.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    pub key: &'static str,
    /// The default as text; empty for "none".
    pub default: &'static str,
    pub aliases: &'static [&'static str],
    pub doc: &'static str,
    /// What a value looks like, e.g. ``a duration such as `10 s` ``.
    pub expected: &'static str,
    /// Whether a text is a value of the option's type.
    pub check: fn(&str) -> bool,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// A configuration file and the line in it, from 1.
    File {
        file: String,
        line: u64,
    },
    /// `-D key=value` on the command line.
    CommandLine,
    /// The settings that came with a job.
    Job,
    /// Set by the program itself.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file} line {line}"),
            Self::CommandLine => f.write_str("-D"),
            Self::Job => f.write_str("job configuration"),
            Self::Program => f.write_str("set by flott"),
        }
    }
}

/// A setting that cannot be used. The message says where it stands and what is expected instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: unknown configuration key `{key}`{}", hint(nearest))]
    Unknown {
        key: String,
        origin: Origin,
        nearest: Option<&'static str>,
    },
    #[error("{origin}: `{key}: {value}` is not valid, expected {expected}")]
    Invalid {
        key: &'static str,
        value: String,
        origin: Origin,
        expected: &'static str,
    },
    #[error("{origin}: `{key}: {value}` must {rule}")]
    Contradiction {
        key: &'static str,
        value: String,
        origin: Origin,
        rule: String,
    },
    #[error("{origin}: `{key}` is not supported: {advice}")]
    Refused {
        key: String,
        origin: Origin,
        advice: &'static str,
    },
    #[error("{origin}: `{key}` is set twice (first in {first}); keep one of them")]
    Twice {
        key: &'static str,
        origin: Origin,
        first: Origin,
    },
    #[error("{file}: not a configuration: {reason}")]
    Syntax { file: String, reason: String },
    #[error("-D {text}: expected key=value")]
    NotKeyValue { text: String },
    #[error("cannot read the configuration file {file}")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; `flott config` lists all keys".to_owned(),
    }
}
