//! `flott kv lease`.

use super::shapes::{Lease, Leases};
use super::{acknowledged, is_json, print, space};
use crate::args::NamespaceArgs;
use crate::args::kv::{LeaseArgs, LeaseCommand};
use crate::shapes::time;
use crate::{Error, output};

pub(super) async fn run(command: &LeaseCommand) -> Result<(), Error> {
    match command {
        LeaseCommand::Grant { ttl, id, namespace } => {
            let granted = space(namespace)?.grant_lease(id.unwrap_or(0), *ttl).await;
            let granted = acknowledged(namespace, granted)?.value;
            let shape = serde_json::json!({ "id": granted.lease, "ttl_ms": granted.ttl_ms });
            print(namespace, &shape, || granted.lease.to_string());
            Ok(())
        }
        LeaseCommand::Keep(LeaseArgs { id, namespace }) => {
            let patience = namespace.cluster.timeout;
            let kept = space(namespace)?.keep_lease(*id, patience).await;
            let kept = acknowledged(namespace, kept)?.value;
            let shape = serde_json::json!({ "id": id, "ttl_ms": kept.ttl_ms });
            print(namespace, &shape, || format!("{} ms more", kept.ttl_ms));
            Ok(())
        }
        LeaseCommand::Revoke(LeaseArgs { id, namespace }) => {
            let revoked = acknowledged(namespace, space(namespace)?.revoke_lease(*id).await)?;
            let written = super::shapes::Written::at(revoked.header.revision);
            print(namespace, &written, || format!("lease {id} revoked"));
            Ok(())
        }
        LeaseCommand::List { namespace } => list(namespace).await,
    }
}

async fn list(arguments: &NamespaceArgs) -> Result<(), Error> {
    let leases = space(arguments)?.leases().await?.value;
    if is_json(arguments) {
        let leases = leases.iter().map(Lease::from).collect();
        output::json(&Leases { leases });
        return Ok(());
    }
    let rows = leases.iter().map(|lease| {
        let expires = time(lease.expires_at_ms).unwrap_or_else(|| "-".to_owned());
        let numbers = [lease.lease, lease.ttl_ms].map(|number| number.to_string());
        [
            numbers.to_vec(),
            vec![expires, lease.keys.len().to_string()],
        ]
        .concat()
    });
    output::table(
        &["LEASE", "TTL MS", "EXPIRES", "KEYS"],
        rows.collect(),
        "no leases",
    );
    Ok(())
}
