//! From a SQL file to what is submitted: the JobGraph with absolute paths, and the job's configuration.
//!
//! The servers run elsewhere, in other directories. So every relative path is made absolute here: paths of filesystem
//! tables from the SQL file's directory, so that a job means the same wherever it is submitted from; paths given on the
//! command line from the working directory.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flott_node::config::{ConfigError, Configuration, options};
use flott_proto::job_graph::{JobGraph, OperatorKind, Sink, Source};
use flott_sql::{Compiled, PlanOptions};

use crate::Error;

/// What a script became.
#[derive(Debug)]
pub(super) enum Script {
    Job {
        graph: JobGraph,
        configuration: BTreeMap<String, String>,
    },
    Explain {
        text: String,
    },
}

/// Compiles the script in `file` (`-`: standard input). `overrides` are the `-D` flags, over which a `SET` in the script
/// wins.
pub(super) fn compile(
    file: &Path,
    parallelism: Option<u32>,
    name: Option<&str>,
    overrides: &Configuration,
) -> Result<Script, Error> {
    let script = read(file)?;
    let overrides = resolve_directories(overrides.clone(), None)?;
    let name = name
        .map(str::to_owned)
        .or_else(|| overrides.get(&options::PIPELINE_NAME).ok());
    let plan_options = PlanOptions {
        default_parallelism: parallelism
            .map_or_else(|| overrides.get(&options::PARALLELISM), Ok)?,
        max_parallelism: overrides.get(&options::MAX_PARALLELISM)?,
        job_name: name.filter(|name| !name.is_empty()),
    };
    let sql_error = |source| Error::Sql {
        path: file.to_owned(),
        source,
    };
    match flott_sql::compile(&script, &plan_options).map_err(sql_error)? {
        Compiled::Explain { text } => Ok(Script::Explain { text }),
        Compiled::Job {
            mut graph,
            configuration,
        } => {
            let base = directory_of(file)?;
            make_absolute(&mut graph, &base);
            // Checked here, so that a slip in a SET is told before anything is submitted.
            let set = Configuration::from_map(&configuration)?;
            set.validate()?;
            let merged = overrides.merge(resolve_directories(set, Some(&base))?);
            merged.validate()?;
            Ok(Script::Job {
                graph,
                configuration: merged.to_map(),
            })
        }
    }
}

fn read(file: &Path) -> Result<String, Error> {
    if file == Path::new("-") {
        let mut script = String::new();
        std::io::stdin()
            .read_to_string(&mut script)
            .map_err(Error::file("cannot read", "standard input"))?;
        return Ok(script);
    }
    std::fs::read_to_string(file).map_err(Error::file("cannot read", file))
}

/// From where the script's relative paths are meant.
fn directory_of(file: &Path) -> Result<PathBuf, Error> {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty() && file != Path::new("-"));
    std::path::absolute(parent.unwrap_or(Path::new(".")))
        .map_err(Error::file("cannot resolve", file))
}

fn make_absolute(graph: &mut JobGraph, base: &Path) {
    for operator in graph
        .vertices
        .iter_mut()
        .flat_map(|vertex| &mut vertex.chain)
    {
        match &mut operator.kind {
            OperatorKind::Source(Source::Filesystem(source)) => {
                source.path = absolute(&source.path, base)
            }
            OperatorKind::Sink(Sink::Filesystem(sink)) => sink.path = absolute(&sink.path, base),
            _ => {}
        }
    }
}

/// A URL and an absolute path stay as they are.
fn absolute(path: &str, base: &Path) -> String {
    if path.is_empty() || path.contains("://") || Path::new(path).is_absolute() {
        return path.to_owned();
    }
    let joined = base.join(path);
    std::path::absolute(&joined)
        .unwrap_or(joined)
        .display()
        .to_string()
}

/// A path or URL for the servers; relative to `base`, or else to the working directory.
pub(super) fn absolute_location(path: &str, base: Option<&Path>) -> Result<String, Error> {
    let base = match base {
        Some(base) => base.to_owned(),
        None => std::env::current_dir().map_err(Error::file("cannot resolve", path))?,
    };
    Ok(absolute(path, &base))
}

/// The directories among the settings, made absolute.
fn resolve_directories(
    mut configuration: Configuration,
    base: Option<&Path>,
) -> Result<Configuration, Error> {
    for option in [&options::CHECKPOINT_DIR, &options::SAVEPOINT_DIR] {
        if configuration.is_set(option) {
            let path: Result<String, ConfigError> = configuration.get(option);
            configuration.set(option, absolute_location(&path?, base)?);
        }
    }
    Ok(configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
CREATE TABLE t (a BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
CREATE TABLE o (a BIGINT) WITH ('connector' = 'filesystem', 'path' = '/abs/out', 'format' = 'json');
INSERT INTO o SELECT a FROM t WHERE a > 1;
";

    fn job(
        script: &str,
        flags: &[&str],
    ) -> Result<(JobGraph, BTreeMap<String, String>, PathBuf), Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("job.sql");
        std::fs::write(&file, script).unwrap();
        let overrides = Configuration::from_overrides(flags).unwrap();
        match compile(&file, Some(2), Some("named"), &overrides)? {
            Script::Job {
                graph,
                configuration,
            } => Ok((graph, configuration, dir.path().to_owned())),
            Script::Explain { text } => panic!("{text}"),
        }
    }

    #[test]
    fn relative_paths_are_those_of_the_sql_file() {
        let (graph, _, dir) = job(SCRIPT, &[]).unwrap();
        assert_eq!(graph.name, "named");
        let kinds: Vec<_> = graph
            .vertices
            .iter()
            .flat_map(|vertex| &vertex.chain)
            .map(|operator| &operator.kind)
            .collect();
        let source = kinds.iter().find_map(|kind| match kind {
            OperatorKind::Source(Source::Filesystem(source)) => Some(source.path.clone()),
            _ => None,
        });
        assert_eq!(source, Some(dir.join("in.csv").display().to_string()));
        let sink = kinds.iter().find_map(|kind| match kind {
            OperatorKind::Sink(Sink::Filesystem(sink)) => Some(sink.path.clone()),
            _ => None,
        });
        assert_eq!(sink.as_deref(), Some("/abs/out"));
    }

    #[test]
    fn a_set_in_the_script_wins_over_flags() {
        let script = format!("SET 'execution.checkpointing.interval' = '1 s';\n{SCRIPT}");
        let flags = [
            "execution.checkpointing.interval=9 s",
            "state.savepoints.dir=rel",
        ];
        let (_, configuration, _) = job(&script, &flags).unwrap();
        assert_eq!(configuration["execution.checkpointing.interval"], "1 s");
        let expected = std::env::current_dir().unwrap().join("rel");
        assert_eq!(
            Path::new(&configuration["execution.checkpointing.savepoint-dir"]),
            expected
        );
    }

    #[test]
    fn an_unknown_set_is_refused_before_anything_is_submitted() {
        let script = format!("SET 'execution.checkpointing.intervall' = '1 s';\n{SCRIPT}");
        let error = job(&script, &[]).unwrap_err();
        assert!(
            error
                .line()
                .contains("did you mean `execution.checkpointing.interval`"),
            "{}",
            error.line()
        );
    }

    #[test]
    fn urls_and_absolute_paths_stay() {
        for path in ["s3://bucket/in", "file:///x", "/x/y"] {
            assert_eq!(absolute(path, Path::new("/base")), path);
        }
        assert_eq!(absolute("./in.csv", Path::new("/base")), "/base/in.csv");
    }

    #[test]
    fn a_missing_file_and_a_wrong_script_are_named() {
        let error = compile(
            Path::new("/no/such.sql"),
            None,
            None,
            &Configuration::default(),
        )
        .unwrap_err();
        assert!(
            error.line().starts_with("cannot read /no/such.sql"),
            "{}",
            error.line()
        );
        let error = job("SELEKT 1;", &[]).unwrap_err();
        assert!(error.line().contains("job.sql"), "{}", error.line());
        assert_eq!(error.exit_code(), 1);
    }
}
