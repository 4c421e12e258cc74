//! Who may call what: each service is for certain roles, by the certificate of the connection. Pure but for the log.
//!
//! | service | roles |
//! |---|---|
//! | `RaftService` | jobmanager; and the certificate must be that of the node that the request says it is from |
//! | `TaskManagerGateway` | taskmanager |
//! | `JobManager`, `Namespaces`, `ClusterAdmin`, `KeyValue` | client; jobmanager, since a follower asks the leader |
//!
//! Without TLS everybody may call everything.

use flott_node::tls::{Peer, Role};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tracing::warn;

/// A group of services that the same roles may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Raft,
    TaskManagers,
    Clients,
}

impl Surface {
    fn roles(self) -> &'static [Role] {
        match self {
            Self::Raft => &[Role::JobManager],
            Self::TaskManagers => &[Role::TaskManager],
            Self::Clients => &[Role::Client, Role::JobManager],
        }
    }
}

/// Stands before a service.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    surface: Surface,
    tls: bool,
}

impl Admission {
    /// Puts the service behind the check. `tls`: whether this process has TLS; then a call without a known peer is
    /// refused, however it came in.
    pub(crate) fn to<S>(surface: Surface, tls: bool, service: S) -> InterceptedService<S, Self> {
        InterceptedService::new(service, Self { surface, tls })
    }

    fn check(&self, peer: Option<&Peer>) -> Result<(), String> {
        match peer {
            None | Some(Peer::PlainText) if self.tls => Err("the connection has no TLS".to_owned()),
            None => Ok(()),
            Some(peer) => peer.admit(self.surface.roles()),
        }
    }
}

impl Interceptor for Admission {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match self.check(request.extensions().get::<Peer>()) {
            Ok(()) => Ok(request),
            Err(reason) => {
                warn!(surface = ?self.surface, reason, "call refused");
                Err(Status::permission_denied(reason))
            }
        }
    }
}

/// Whether a JobManager with this certificate may speak as that node. `address`: where the membership says that the
/// node is; None if it is no member as far as is known here.
pub(crate) fn check_member(
    peer: Option<&Peer>,
    node: u64,
    address: Option<&str>,
) -> Result<(), String> {
    let Some(peer) = peer else { return Ok(()) };
    peer.admit(Surface::Raft.roles())?;
    let Some(identity) = peer.identity() else {
        return Ok(());
    };
    let fits = match address {
        Some(address) => identity.names_member(node, address),
        // Bound to an address that nobody has told us yet, or to a node id.
        None => identity.node_id().is_none_or(|own| own == node),
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "the certificate is that of {identity}, and the request says that it is from node {node} at {}",
        address.unwrap_or("an address that is not known here")
    ))
}

#[cfg(test)]
mod tests {
    use flott_node::tls::Identity;

    use super::*;

    fn peer(role: Role, name: &str) -> Peer {
        Peer::Certified(Identity::new("c", role, name).unwrap().into())
    }

    #[test]
    fn each_service_is_for_its_roles_only() {
        use Role::{Client, JobManager, TaskManager};
        for (surface, allowed) in [
            (Surface::Raft, vec![JobManager]),
            (Surface::TaskManagers, vec![TaskManager]),
            (Surface::Clients, vec![JobManager, Client]),
        ] {
            for role in Role::ALL {
                for tls in [true, false] {
                    let admitted = Admission { surface, tls }.check(Some(&peer(role, "n")));
                    assert_eq!(
                        admitted.is_ok(),
                        allowed.contains(&role),
                        "{surface:?} {role}"
                    );
                }
            }
            let unidentified = Peer::Unidentified("no certificate of ours".to_owned());
            for (peer, tls, admitted) in [
                (Some(&unidentified), true, false),
                (Some(&Peer::PlainText), true, false),
                (Some(&Peer::PlainText), false, true),
                (None, true, false),
                (None, false, true),
            ] {
                let checked = Admission { surface, tls }.check(peer);
                assert_eq!(
                    checked.is_ok(),
                    admitted,
                    "{surface:?} {peer:?} {checked:?}"
                );
            }
        }
    }

    #[test]
    fn a_member_may_speak_for_itself_only() {
        use Role::{Client, JobManager};
        let address = Some("h1:6123");
        for (peer, node, address, accepted) in [
            (peer(JobManager, "h1"), 7, address, true),
            (peer(JobManager, "h1:6123"), 7, address, true),
            (peer(JobManager, "7"), 7, address, true),
            (peer(JobManager, "8"), 7, address, false),
            (peer(JobManager, "h2"), 7, address, false),
            (peer(JobManager, "h1:6124"), 7, address, false),
            (peer(JobManager, "h2"), 7, None, true),
            (peer(JobManager, "7"), 7, None, true),
            (peer(JobManager, "8"), 7, None, false),
            (peer(Client, "h1"), 7, address, false),
            (Peer::PlainText, 7, address, true),
        ] {
            let checked = check_member(Some(&peer), node, address);
            assert_eq!(checked.is_ok(), accepted, "{peer:?} {node} {address:?}");
        }
        assert!(check_member(None, 7, address).is_ok());
    }
}
