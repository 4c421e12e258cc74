//! `flott config`: the reference of all configuration keys, from the table that the program itself reads.

use flott_node::config::{OptionInfo, options};
use serde::Serialize;

use crate::args::{ConfigArgs, OutputFormat};
use crate::output;

#[derive(Debug, Serialize)]
struct Reference {
    options: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    key: &'static str,
    default: &'static str,
    expected: &'static str,
    aliases: &'static [&'static str],
    description: &'static str,
}

impl From<&OptionInfo> for Entry {
    fn from(info: &OptionInfo) -> Self {
        Self {
            key: info.key,
            default: info.default,
            expected: info.expected,
            aliases: info.aliases,
            description: info.doc.trim(),
        }
    }
}

pub(crate) fn run(arguments: &ConfigArgs) {
    let wanted = |info: &&OptionInfo| {
        arguments
            .filter
            .as_ref()
            .is_none_or(|filter| info.key.contains(filter.as_str()))
    };
    let options: Vec<_> = options::ALL
        .iter()
        .filter(wanted)
        .map(Entry::from)
        .collect();
    match arguments.output {
        OutputFormat::Json => output::json(&Reference { options }),
        OutputFormat::Table => {
            let row = |entry: Entry| {
                vec![
                    entry.key.to_owned(),
                    entry.default.to_owned(),
                    entry.description.to_owned(),
                ]
            };
            let rows = options.into_iter().map(row).collect();
            output::table(
                &["KEY", "DEFAULT", "MEANING"],
                rows,
                "no key contains this text",
            );
        }
    }
}
