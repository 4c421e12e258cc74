//! `flott state inspect|read`: what is in a savepoint or retained checkpoint. Needs no cluster.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use flott_coordinator::{FilesError, Found};
use flott_worker::saved_state::{self, Wanted, summary};

use super::sql::absolute_location;
use crate::args::OutputFormat;
use crate::args::state::{InspectArgs, ReadArgs, RecordFormat, StateCommand};
use crate::shapes::SavedState;
use crate::{Error, output};

pub(crate) async fn run(command: &StateCommand) -> Result<(), Error> {
    match command {
        StateCommand::Inspect(arguments) => inspect(arguments).await,
        StateCommand::Read(arguments) => read(arguments).await,
    }
}

async fn inspect(arguments: &InspectArgs) -> Result<(), Error> {
    let found = open(&arguments.path).await?;
    let operators = summary::operators(&found.metadata).map_err(|error| refused(&error))?;
    let state = SavedState::new(found, operators);
    match arguments.output {
        OutputFormat::Json => output::json(&state),
        OutputFormat::Table => {
            output::line(&state.headline());
            output::line("");
            let none = "Nobody has state in it.";
            output::table(&SavedState::COLUMNS, state.rows(), none);
        }
    }
    Ok(())
}

async fn read(arguments: &ReadArgs) -> Result<(), Error> {
    if arguments.output == RecordFormat::Parquet && std::io::stdout().is_terminal() {
        let what = "a Parquet file is not for a terminal; direct the output into a file";
        return Err(Error::Refused(what.to_owned()));
    }
    let found = open(&arguments.path).await?;
    let scratch = tempfile::tempdir().map_err(Error::file("cannot make", std::env::temp_dir()))?;
    let wanted = Wanted {
        operator: &arguments.operator,
        state: arguments.state.as_deref(),
        limit: arguments.limit,
        format: match arguments.output {
            RecordFormat::Csv => saved_state::RecordFormat::Csv,
            RecordFormat::Json => saved_state::RecordFormat::Json,
            RecordFormat::Parquet => saved_state::RecordFormat::Parquet,
        },
    };
    let mut print = |lines: &[u8]| {
        if output::is_read_whole(lines) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let done = saved_state::read(&found.metadata, wanted, scratch.path(), &mut print).await;
    let done = done.map_err(|error| refused(&error))?;
    if done.is_raw {
        output::note(
            "the types of this state are not recorded: entries are given as hexadecimal digits",
        );
    }
    output::note(&format!("{} entries", done.entries));
    Ok(())
}

async fn open(path: &str) -> Result<Found, Error> {
    let path = absolute_location(path, None)?;
    let found = flott_coordinator::read_metadata(&path).await;
    found.map_err(|error| match error {
        FilesError::Storage(flott_node::storage::Error::NotFound { .. }) => Error::Refused(
            format!("{path} is no savepoint: there is no _metadata in it"),
        ),
        error => refused(&error),
    })
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::Refused(crate::error::with_causes(error))
}
