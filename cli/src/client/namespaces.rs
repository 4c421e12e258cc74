//! A cluster's namespaces. Every call may be repeated.

use flott_proto::wire;
use flott_proto::wire::namespaces_client::NamespacesClient;
use tonic::Request;
use tonic::transport::Channel;

use super::{ATTEMPT_TIMEOUT, Client, ClientError, MESSAGE_BYTES_MAX, Stub};

type Namespaces = NamespacesClient<Channel>;

impl Stub for Namespaces {
    fn over(channel: Channel) -> Self {
        Self::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Client {
    /// Makes a namespace. One that is there already with the same quota is as good.
    pub async fn create_namespace(
        &self,
        name: &str,
        quota: wire::NamespaceQuota,
    ) -> Result<(), ClientError> {
        let request = wire::CreateNamespaceRequest {
            name: name.to_owned(),
            quota: Some(quota),
        };
        let created = |mut stub: Namespaces, request: Request<_>| async move {
            stub.create_namespace(request).await
        };
        self.call(ATTEMPT_TIMEOUT * 2, request, created)
            .await
            .map(drop)
    }

    /// All namespaces, in order of name.
    pub async fn namespaces(&self) -> Result<Vec<wire::NamespaceInfo>, ClientError> {
        let request = wire::ListNamespacesRequest {};
        let listed = |mut stub: Namespaces, request: Request<_>| async move {
            stub.list_namespaces(request).await
        };
        Ok(self
            .call(ATTEMPT_TIMEOUT, request, listed)
            .await?
            .namespaces)
    }

    /// A namespace with its quota and what it uses.
    pub async fn namespace(&self, name: &str) -> Result<wire::NamespaceInfo, ClientError> {
        let request = wire::DescribeNamespaceRequest {
            name: name.to_owned(),
        };
        let described = |mut stub: Namespaces, request: Request<_>| async move {
            stub.describe_namespace(request).await
        };
        self.call(ATTEMPT_TIMEOUT, request, described).await
    }

    /// Replaces a namespace's quota.
    pub async fn update_namespace(
        &self,
        name: &str,
        quota: wire::NamespaceQuota,
    ) -> Result<(), ClientError> {
        let request = wire::UpdateNamespaceRequest {
            name: name.to_owned(),
            quota: Some(quota),
        };
        let updated = |mut stub: Namespaces, request: Request<_>| async move {
            stub.update_namespace(request).await
        };
        self.call(ATTEMPT_TIMEOUT * 2, request, updated)
            .await
            .map(drop)
    }

    /// Begins the deletion of a namespace with all that is in it. Nobody can stop it afterwards.
    pub async fn delete_namespace(&self, name: &str) -> Result<(), ClientError> {
        let request = wire::DeleteNamespaceRequest {
            name: name.to_owned(),
            confirmation: name.to_owned(),
        };
        let deleted = |mut stub: Namespaces, request: Request<_>| async move {
            stub.delete_namespace(request).await
        };
        self.call(ATTEMPT_TIMEOUT * 2, request, deleted)
            .await
            .map(drop)
    }
}
