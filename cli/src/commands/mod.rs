//! The client's verbs, each a function of its arguments.
//!
//! - [`cluster`]: all about the group of JobManagers. [`run`]: run, explain; [`sql`] gets a JobGraph from a script, [`progress`] follows a job.
//! - [`jobs`]: list, info, savepoint, stop, cancel, forget; [`resolve`] finds the job that is meant. [`checkpoints`]: list,
//!   verify, gc. [`state`]: what is in a savepoint.
//! - [`namespace`]: create, list, describe, update, delete.
//! - [`kv`]: the key-value space. [`bench`]: measuring. [`certs`]: certificates. [`reference`](mod@reference): config.

pub(crate) mod bench;
pub(crate) mod certs;
pub(crate) mod checkpoints;
pub(crate) mod cluster;
pub(crate) mod jobs;
pub(crate) mod kv;
pub(crate) mod namespace;
pub(crate) mod progress;
pub(crate) mod reference;
mod resolve;
pub(crate) mod run;
mod sql;
pub(crate) mod state;

use flott_node::config::Configuration;
use flott_node::tls::{Files, Role};
use flott_node::{SystemClock, Transport};

use crate::args::{ClusterArgs, NamespaceArgs, Overrides, SecurityArgs};
use crate::client::Client;
use crate::{Error, output};

/// A client of the cluster that the arguments name.
fn connect(arguments: &ClusterArgs) -> Result<Client, Error> {
    let members = arguments
        .jobmanager
        .iter()
        .map(|member| member.trim().to_owned())
        .collect();
    let client = Client::new(
        members,
        arguments.timeout,
        transport(&arguments.security)?,
        SystemClock::shared(),
    )?;
    if let Some(cluster) = &arguments.cluster_id {
        client.speak_only_with(cluster.clone());
    }
    Ok(client)
}

/// How the arguments say to connect.
fn transport(arguments: &SecurityArgs) -> Result<Transport, Error> {
    let named = [&arguments.tls_ca, &arguments.tls_cert, &arguments.tls_key];
    match named.map(Option::as_ref) {
        [Some(ca), Some(certificate), Some(key)] => Ok(Transport::tls(Files {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        })?),
        [None, None, None] => match &arguments.client_config {
            Some(file) => {
                let configuration = Configuration::load(file)?;
                configuration.validate()?;
                Ok(Transport::from_configuration(&configuration, Role::Client)?)
            }
            None if arguments.insecure => Ok(Transport::insecure()),
            None => Ok(Transport::loopback()),
        },
        _ => Err(Error::Usage(
            "TLS needs all of --tls-ca, --tls-cert and --tls-key (or FLOTT_TLS_CA, FLOTT_TLS_CERT and FLOTT_TLS_KEY)"
                .to_owned(),
        )),
    }
}

/// A client, after a look at what else was given: a malformed `-D` or namespace is refused also where it has no effect.
fn connect_namespace(arguments: &NamespaceArgs) -> Result<Client, Error> {
    check_namespace(arguments)?;
    connect(&arguments.cluster)
}

fn check_namespace(arguments: &NamespaceArgs) -> Result<(), Error> {
    overrides(&arguments.cluster.overrides)?;
    let namespace = arguments.namespace.parse::<flott_proto::ids::Namespace>();
    namespace.map_err(|error| Error::Usage(format!("-z {}: {error}", arguments.namespace)))?;
    Ok(())
}

/// The `-D` flags, checked; with their warnings told.
fn overrides(arguments: &Overrides) -> Result<Configuration, Error> {
    let configuration =
        Configuration::from_overrides(&arguments.overrides).map_err(Error::Override)?;
    configuration.validate().map_err(Error::Override)?;
    for warning in configuration.warnings() {
        output::note(&format!("warning: {warning}"));
    }
    Ok(configuration)
}
