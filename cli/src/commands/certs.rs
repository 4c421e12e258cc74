//! `flott certs`: a development CA and its certificates.

use flott_node::SystemClock;
use flott_node::config::options;
use flott_node::tls::authority::{Authority, Issued, Validity};
use flott_node::tls::{Role, host_of};
use jiff::Timestamp;
use serde::Serialize;

use crate::args::{CertsArgs, CertsCommand, InitArgs, IssueArgs, OutputFormat};
use crate::{Error, output};

/// What `init` prints as JSON.
#[derive(Debug, Serialize)]
struct Made {
    cluster: String,
    ca: String,
    ca_key: String,
}

/// What `issue` prints as JSON.
#[derive(Debug, Serialize)]
struct Certificate {
    identity: String,
    hosts: Vec<String>,
    expires: String,
    ca: String,
    cert: String,
    key: String,
}

pub(crate) fn run(arguments: &CertsArgs) -> Result<(), Error> {
    match &arguments.command {
        CertsCommand::Init(init) => make(arguments, init),
        CertsCommand::Issue(issue) => issue_one(arguments, issue),
    }
}

fn validity(days: u32) -> Validity {
    let now_ms = SystemClock::shared().now_ms();
    Validity { now_ms, days }
}

fn make(arguments: &CertsArgs, init: &InitArgs) -> Result<(), Error> {
    let authority = Authority::create(&arguments.dir, &init.cluster, validity(init.days))?;
    let made = Made {
        cluster: authority.cluster().to_owned(),
        ca: authority.certificate().display().to_string(),
        ca_key: authority.key().display().to_string(),
    };
    match arguments.output {
        OutputFormat::Json => output::json(&made),
        OutputFormat::Table => output::line(&format!(
            "made a CA for cluster {}: {} is to be trusted, {} to be kept: whoever has it can be anybody",
            made.cluster, made.ca, made.ca_key
        )),
    }
    Ok(())
}

fn issue_one(arguments: &CertsArgs, issue: &IssueArgs) -> Result<(), Error> {
    let authority = Authority::open(&arguments.dir)?;
    let role = Role::from(issue.role);
    let hosts = hosts(role, &issue.name, &issue.host)?;
    let validity = validity(issue.days);
    let issued = if issue.renew {
        authority.renew(role, &issue.name, &hosts, validity)?
    } else {
        authority.issue(role, &issue.name, &hosts, validity)?
    };
    let certificate = shape(issued);
    match arguments.output {
        OutputFormat::Json => output::json(&certificate),
        OutputFormat::Table => output::line(&describe(role, &certificate)),
    }
    Ok(())
}

/// Under which names its holder will be dialled.
fn hosts(role: Role, name: &str, given: &[String]) -> Result<Vec<String>, Error> {
    if !given.is_empty() || role == Role::Client {
        return Ok(given.to_vec());
    }
    if name.parse::<u64>().is_ok() || name.contains('*') {
        return Err(Error::Usage(format!(
            "{name} names no host; say by --host under which names or addresses this {role} is reached"
        )));
    }
    Ok(vec![host_of(name).to_owned()])
}

fn shape(issued: Issued) -> Certificate {
    let expires = Timestamp::from_second(issued.expires).map_or_else(
        |_| issued.expires.to_string(),
        |expires| expires.to_string(),
    );
    Certificate {
        identity: issued.identity.to_string(),
        hosts: issued.hosts,
        expires,
        ca: issued.files.ca.display().to_string(),
        cert: issued.files.certificate.display().to_string(),
        key: issued.files.key.display().to_string(),
    }
}

/// With what to do next.
fn describe(role: Role, certificate: &Certificate) -> String {
    let Certificate {
        identity,
        hosts,
        expires,
        ca,
        cert,
        key,
    } = certificate;
    let use_it = match role {
        Role::Client => format!(
            "export FLOTT_TLS_CA={ca}\nexport FLOTT_TLS_CERT={cert}\nexport FLOTT_TLS_KEY={key}"
        ),
        Role::JobManager | Role::TaskManager => format!(
            "{}: true\n{}: {ca}\n{}: {cert}\n{}: {key}",
            options::SSL_ENABLED.key(),
            options::SSL_CA.key(),
            options::SSL_CERT.key(),
            options::SSL_KEY.key()
        ),
    };
    let hosts = match hosts.as_slice() {
        [] => String::new(),
        hosts => format!(", at {}", hosts.join(", ")),
    };
    format!("{identity}{hosts}, until {expires}; to use it:\n\n{use_it}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_dialled_by_the_host_in_its_name_unless_others_are_given() {
        for (role, name, given, expected) in [
            (Role::JobManager, "h1:6123", None, Some(vec!["h1"])),
            (Role::JobManager, "[::1]:6123", None, Some(vec!["::1"])),
            (Role::TaskManager, "h2", None, Some(vec!["h2"])),
            (Role::JobManager, "3", None, None),
            (Role::TaskManager, "*", None, None),
            (Role::JobManager, "3", Some("h3"), Some(vec!["h3"])),
            (Role::Client, "ada", None, Some(vec![])),
        ] {
            let given: Vec<String> = given.map(str::to_owned).into_iter().collect();
            match (hosts(role, name, &given), expected) {
                (Ok(hosts), Some(expected)) => assert_eq!(hosts, expected, "{name}"),
                (Err(error), None) => assert!(error.to_string().contains("--host"), "{error}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}
