//! The gRPC service for tenants: creating, showing, changing and deleting namespaces.

use flott_proto::ids::Namespace;
use flott_proto::wire::{self, command::Decision, namespaces_server::Namespaces};
use tonic::{Request, Response, Status};

use super::{Answer, Dispatcher, known_namespace};
use crate::core::ClusterState;
use crate::core::namespace::NamespaceState;

#[tonic::async_trait]
impl Namespaces for Dispatcher {
    async fn create_namespace(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Answer<wire::CreateNamespaceResponse> {
        let wire::CreateNamespaceRequest { name, quota } = request.into_inner();
        let create = wire::CreateNamespace { name, quota };
        self.decide(Decision::CreateNamespace(create)).await?;
        Ok(Response::new(wire::CreateNamespaceResponse {}))
    }

    async fn list_namespaces(
        &self,
        _: Request<wire::ListNamespacesRequest>,
    ) -> Answer<wire::ListNamespacesResponse> {
        let state = self.state().await?;
        let namespaces = state.namespaces.iter();
        let namespaces = namespaces.map(|(name, namespace)| info(&state, name, namespace));
        Ok(Response::new(wire::ListNamespacesResponse {
            namespaces: namespaces.collect(),
        }))
    }

    async fn describe_namespace(
        &self,
        request: Request<wire::DescribeNamespaceRequest>,
    ) -> Answer<wire::NamespaceInfo> {
        let state = self.state().await?;
        let name = known_namespace(&state, &request.into_inner().name)?;
        Ok(Response::new(info(&state, &name, &state.namespaces[&name])))
    }

    async fn update_namespace(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Answer<wire::UpdateNamespaceResponse> {
        let wire::UpdateNamespaceRequest { name, quota } = request.into_inner();
        known_namespace(&*self.state().await?, &name)?;
        let update = wire::UpdateNamespace { name, quota };
        self.decide(Decision::UpdateNamespace(update)).await?;
        Ok(Response::new(wire::UpdateNamespaceResponse {}))
    }

    async fn delete_namespace(
        &self,
        request: Request<wire::DeleteNamespaceRequest>,
    ) -> Answer<wire::DeleteNamespaceResponse> {
        let wire::DeleteNamespaceRequest { name, confirmation } = request.into_inner();
        let parsed: Namespace = name.parse()?;
        if confirmation != parsed.as_str() {
            return Err(Status::invalid_argument(format!(
                "to delete namespace {name} and all that is in it, repeat its name as the confirmation"
            )));
        }
        known_namespace(&*self.state().await?, &name)?;
        let delete = wire::DeleteNamespace { name };
        self.decide(Decision::DeleteNamespace(delete)).await?;
        Ok(Response::new(wire::DeleteNamespaceResponse {}))
    }
}

fn info(state: &ClusterState, name: &Namespace, namespace: &NamespaceState) -> wire::NamespaceInfo {
    let used = wire::NamespaceQuota {
        jobs: namespace.used.jobs,
        slots: namespace.used.slots,
        kv_bytes: state.kv.get(name).map_or(0, |space| space.bytes()),
        checkpoint_bytes: namespace.used.checkpoint_bytes,
    };
    wire::NamespaceInfo {
        name: name.to_string(),
        state: if namespace.deleting {
            "DELETING"
        } else {
            "ACTIVE"
        }
        .to_owned(),
        created_at_ms: namespace.created_at_ms,
        quota: Some(namespace.quota.into()),
        used: Some(used),
    }
}
