//! `flott local`: a cluster in the foreground, until SIGTERM or Ctrl-C.

use std::path::PathBuf;

use flott_node::config::Configuration;

use super::{LocalCluster, LocalOptions};
use crate::args::LocalArgs;
use crate::role::{StopSignals, start_logging};
use crate::{Error, output};

/// Runs until it is told to stop; then all processes have ended.
pub(crate) async fn run(arguments: &LocalArgs) -> Result<(), Error> {
    let _log = start_logging(&arguments.logging)?;
    let mut signals = StopSignals::listen()?;
    let options = options(arguments)?;
    let dir = options.dir.clone();
    // A signal during the start drops the cluster, which kills its processes.
    let cluster = tokio::select! {
        cluster = LocalCluster::start(options) => cluster?,
        () = signals.next() => return Err(Error::Local("stopped before the cluster was ready".to_owned())),
    };
    output::note(&format!(
        "cluster in {}; use it with:\n  export FLOTT_JOBMANAGER={}",
        dir.display(),
        cluster.jobmanager_addresses().join(",")
    ));
    if let Some(files) = cluster.client_files() {
        output::note(&format!(
            "  export FLOTT_TLS_CA={} FLOTT_TLS_CERT={} FLOTT_TLS_KEY={}",
            files.ca.display(),
            files.certificate.display(),
            files.key.display()
        ));
    }
    output::line("ready");
    signals.next().await;
    tokio::select! {
        () = cluster.stop() => Ok(()),
        () = signals.next() => Err(Error::Local("killed the processes instead of waiting for them".to_owned())),
    }
}

fn options(arguments: &LocalArgs) -> Result<LocalOptions, Error> {
    let overrides =
        Configuration::from_overrides(&arguments.overrides.overrides).map_err(Error::Override)?;
    for warning in overrides.warnings() {
        output::note(&format!("warning: {warning}"));
    }
    let executable =
        std::env::current_exe().map_err(Error::file("cannot find", PathBuf::from("flott")))?;
    Ok(LocalOptions {
        dir: arguments.dir.clone(),
        jobmanagers: arguments.jobmanagers.unwrap_or(0),
        taskmanagers: arguments.taskmanagers,
        slots: arguments.slots,
        overrides: overrides.to_map(),
        tls: arguments.tls,
        respawn: arguments.respawn,
        executable,
    })
}
