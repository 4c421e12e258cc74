//! Where a run takes place, and how a cluster of our own is made for it. What it cannot see, it does not judge.

use std::path::Path;

use super::fault::Kind;
use super::plan::Plan;
use crate::target::control::Library;
use crate::target::local::Shape;
use crate::target::remote::inventory::Inventory;
use crate::target::store::Store;

/// Where a run takes place.
#[derive(Clone, Debug)]
pub enum Place {
    /// Processes of our own, joined as the plan says.
    Own,
    /// Somebody's cluster, by the addresses of its JobManagers. Nothing is broken there.
    Observed(Vec<String>),
    /// The same, and its processes are broken through shells on their machines.
    Remote(Vec<String>, Inventory),
}

impl Place {
    /// What a run there cannot see, and so does not judge.
    pub fn not_judged(&self) -> Vec<String> {
        match self {
            Self::Own => Vec::new(),
            Self::Observed(_) | Self::Remote(..) => {
                vec!["whether processes end by themselves, and what they log".to_owned()]
            }
        }
    }
}

/// This machine cannot do what was asked for: nothing was tested.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotRun(pub String);

/// The cluster that the plan wants, with everything that it stores below `directory`, or in `store`. The library is loaded
/// only if the plan has something for it to do.
pub fn shape(plan: &Plan, directory: &Path, store: Option<&Store>, library: &Library) -> Shape {
    let knobs = &plan.knobs;
    let mut settings: Vec<String> = knobs
        .settings
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let checkpoints = match store {
        Some(store) => store.url(),
        None => directory.join("checkpoints").display().to_string(),
    };
    settings.extend([
        format!("execution.checkpointing.dir={checkpoints}"),
        format!(
            "execution.checkpointing.savepoint-dir={}",
            directory.join("savepoints").display()
        ),
        // A job that has ended must be seen to stay so until the end of the run.
        "jobstore.expiration-time=24 h".to_owned(),
    ]);
    Shape {
        jobmanagers: knobs.jobmanagers,
        taskmanagers: knobs.taskmanagers,
        slots: knobs.slots,
        settings,
        environment: store.map(Store::environment).unwrap_or_default(),
        preload: match plan.kinds().into_iter().any(Kind::is_inside) {
            true => library.clone(),
            false => Err("the plan changes no clock and no disk".to_owned()),
        },
    }
}
