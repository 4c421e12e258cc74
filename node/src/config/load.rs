//! How settings enter a [`Configuration`]: from a file, from `-D`, from a map. All pass [`Configuration::insert`], which
//! knows old names, foreign names and unknown ones.

use std::path::Path;

use super::foreign::{self, Foreign};
use super::option::{ConfigError, Origin};
use super::{Configuration, Entry, options, yaml};

impl Configuration {
    /// Reads a YAML file with nested or dotted keys.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_yaml(&text, &file),
            Err(source) => Err(ConfigError::Read { file, source }),
        }
    }

    /// Reads YAML text; `file` is the name that errors mention.
    pub fn from_yaml(text: &str, file: &str) -> Result<Self, ConfigError> {
        let settings = yaml::flatten(text).map_err(|reason| ConfigError::Syntax {
            file: file.to_owned(),
            reason,
        })?;
        let mut configuration = Self::default();
        for setting in settings {
            let origin = Origin::File {
                file: file.to_owned(),
                line: setting.line,
            };
            configuration.insert(&setting.key, setting.value, origin)?;
        }
        Ok(configuration)
    }

    /// Reads the `key=value` of `-D` flags. The last of several for one key wins.
    pub fn from_overrides<S: AsRef<str>>(
        overrides: impl IntoIterator<Item = S>,
    ) -> Result<Self, ConfigError> {
        let mut merged = Self::default();
        for text in overrides {
            let text = text.as_ref();
            let not_key_value = || ConfigError::NotKeyValue {
                text: text.to_owned(),
            };
            let (key, value) = text.split_once('=').ok_or_else(not_key_value)?;
            let mut one = Self::default();
            one.insert(key.trim(), value.trim().to_owned(), Origin::CommandLine)?;
            merged = merged.merge(one);
        }
        Ok(merged)
    }

    /// Reads settings that came as a map, such as those of a job.
    pub fn from_map<K: AsRef<str>, V: AsRef<str>>(
        map: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let mut configuration = Self::default();
        for (key, value) in map {
            configuration.insert(key.as_ref(), value.as_ref().to_owned(), Origin::Job)?;
        }
        Ok(configuration)
    }

    /// Takes in one setting under its present name.
    fn insert(&mut self, key: &str, value: String, origin: Origin) -> Result<(), ConfigError> {
        let Some((info, is_alias)) = options::find(key) else {
            return self.pass_over(key, origin);
        };
        if is_alias {
            self.warnings.push(format!(
                "{origin}: `{key}` is an older name of `{}`; please rename it",
                info.key
            ));
        }
        let entry = Entry {
            value,
            origin: origin.clone(),
        };
        match self.entries.insert(info.key, entry) {
            None => Ok(()),
            Some(first) => Err(ConfigError::Twice {
                key: info.key,
                origin,
                first: first.origin,
            }),
        }
    }

    /// Warns about a setting of Flink's that means nothing here; any other is an error.
    fn pass_over(&mut self, key: &str, origin: Origin) -> Result<(), ConfigError> {
        let key = key.to_owned();
        // A slip of the pen in one of our own keys must not vanish among Flink's.
        let nearest = options::nearest(&key);
        match foreign::find(&key) {
            Some(Foreign::Ignore(why)) => {
                self.warnings
                    .push(format!("{origin}: `{key}` is ignored: {why}"));
                Ok(())
            }
            Some(Foreign::Refuse(advice)) => Err(ConfigError::Refused {
                key,
                origin,
                advice,
            }),
            None => Err(ConfigError::Unknown {
                key,
                origin,
                nearest,
            }),
        }
    }
}
