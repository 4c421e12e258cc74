//! A namespace's jobs. Every call may be repeated: a submission carries a job id of the caller's choice, a savepoint an id
//! of the request, and all others are idempotent by nature.

use std::time::Duration;

use flott_proto::wire;
use flott_proto::wire::job_manager_client::JobManagerClient;
use tonic::transport::Channel;

use super::{ATTEMPT_TIMEOUT, Client, ClientError};

/// Reading all files of large state takes longer than anybody waits; above this the command is to be repeated with less.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A savepoint of large state takes minutes; above this the user should look instead of wait.
const SAVEPOINT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

impl Client {
    /// Submits a job under the id in the request. Repeating it is harmless.
    pub async fn submit(&self, request: wire::SubmitJobRequest) -> Result<String, ClientError> {
        assert!(!request.dry_run, "nothing would be submitted");
        Ok(self.submit_or_look(request).await?.job_id)
    }

    /// What the submission would lead to. Nothing is submitted.
    pub async fn dry_run(
        &self,
        request: wire::SubmitJobRequest,
    ) -> Result<wire::SubmitJobResponse, ClientError> {
        assert!(request.dry_run, "the job would be submitted");
        self.submit_or_look(request).await
    }

    async fn submit_or_look(
        &self,
        request: wire::SubmitJobRequest,
    ) -> Result<wire::SubmitJobResponse, ClientError> {
        let submitted = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.submit_job(request).await
        };
        self.call(ATTEMPT_TIMEOUT * 2, request, submitted).await
    }

    /// The jobs of a namespace.
    pub async fn list(&self, namespace: &str) -> Result<Vec<wire::JobSummary>, ClientError> {
        let request = wire::ListJobsRequest {
            namespace: namespace.to_owned(),
        };
        let listed =
            |mut jm: JobManagerClient<Channel>, request| async move { jm.list_jobs(request).await };
        Ok(self.call(ATTEMPT_TIMEOUT, request, listed).await?.jobs)
    }

    /// All about a job.
    pub async fn describe(
        &self,
        namespace: &str,
        job_id: &str,
    ) -> Result<wire::JobDetails, ClientError> {
        let request = wire::DescribeJobRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
        };
        let described = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.describe_job(request).await
        };
        self.call(ATTEMPT_TIMEOUT, request, described).await
    }

    /// The checkpoints of a job that are under way, kept or lately failed, newest first.
    pub async fn checkpoints(
        &self,
        namespace: &str,
        job_id: &str,
    ) -> Result<Vec<wire::CheckpointInfo>, ClientError> {
        let request = wire::ListCheckpointsRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
        };
        let listed = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.list_checkpoints(request).await
        };
        let mut checkpoints = self
            .call(ATTEMPT_TIMEOUT, request, listed)
            .await?
            .checkpoints;
        checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.id));
        Ok(checkpoints)
    }

    /// Checks the files of the retained checkpoints and of the savepoints; without `contents` they are not read.
    pub async fn verify_checkpoints(
        &self,
        namespace: &str,
        job_id: &str,
        contents: bool,
    ) -> Result<wire::VerifyCheckpointsResponse, ClientError> {
        let request = wire::VerifyCheckpointsRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
            contents,
        };
        let verified = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.verify_checkpoints(request).await
        };
        self.call(VERIFY_TIMEOUT, request, verified).await
    }

    /// Finds objects of a job that nobody needs and nobody ever will; deletes them if that is said.
    pub async fn collect_orphans(
        &self,
        namespace: &str,
        job_id: &str,
        delete: bool,
    ) -> Result<wire::CollectOrphansResponse, ClientError> {
        let request = wire::CollectOrphansRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
            delete,
        };
        let collected = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.collect_orphans(request).await
        };
        self.call(VERIFY_TIMEOUT, request, collected).await
    }

    /// Ends a job without a savepoint.
    pub async fn cancel(&self, namespace: &str, job_id: &str) -> Result<(), ClientError> {
        let request = wire::CancelJobRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
        };
        let cancelled = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.cancel_job(request).await
        };
        self.call(ATTEMPT_TIMEOUT, request, cancelled)
            .await
            .map(drop)
    }

    /// Has a job run at another parallelism, and waits until it does; the attempt's number.
    pub async fn rescale(
        &self,
        namespace: &str,
        job_id: &str,
        parallelism: u32,
    ) -> Result<u32, ClientError> {
        let request = wire::RescaleJobRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
            parallelism,
        };
        let rescaled = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.rescale_job(request).await
        };
        let answer = self.call(SAVEPOINT_TIMEOUT, request, rescaled).await?;
        Ok(answer.attempt)
    }

    /// Drops an ended job from the list, with what it retains.
    pub async fn dismiss(&self, namespace: &str, job_id: &str) -> Result<(), ClientError> {
        let request = wire::DismissJobRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
        };
        let dismissed = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.dismiss_job(request).await
        };
        self.call(ATTEMPT_TIMEOUT, request, dismissed)
            .await
            .map(drop)
    }

    /// Takes a savepoint and waits for it; its path. An empty directory means the configured one. However often the call
    /// has to be repeated, it is one savepoint.
    pub async fn savepoint(
        &self,
        namespace: &str,
        job_id: &str,
        directory: &str,
    ) -> Result<String, ClientError> {
        let request = wire::TriggerSavepointRequest {
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
            target_directory: directory.to_owned(),
            request_id: uuid::Uuid::new_v4().to_string(),
        };
        let taken = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.trigger_savepoint(request).await
        };
        Ok(self.call(SAVEPOINT_TIMEOUT, request, taken).await?.path)
    }

    /// Takes a savepoint, then ends the job, and waits for both; the savepoint's path.
    pub async fn stop(&self, request: wire::StopJobRequest) -> Result<String, ClientError> {
        let stopped =
            |mut jm: JobManagerClient<Channel>, request| async move { jm.stop_job(request).await };
        Ok(self.call(SAVEPOINT_TIMEOUT, request, stopped).await?.path)
    }
}
