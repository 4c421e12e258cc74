//! A snapshot to one follower, in chunks.
//!
//! Reading the file and waiting for the answer go on at the same time: the answer comes only after the last chunk was
//! taken, so whoever first waits for it waits for ever. Memory is bounded by the chunks in the queue.

use std::time::Duration;

use flott_proto::wire;
use openraft::RPCTypes;
use openraft::errors::{NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::codec;
use super::super::snapshot::SnapshotFile;
use super::super::types::{Ballot, LogId, TypeConfig};
use super::Lane;
use super::client::{MemberClient, required};

const CHUNK_BYTES: usize = 256 << 10;

/// Chunks between the file and the connection.
const CHUNKS_QUEUED_MAX: usize = 4;

type Failure = StreamingError<TypeConfig>;

/// Sends the snapshot, or what is missing of it from an earlier attempt; returns when the follower has installed it, or has refused it for a higher vote.
pub(super) async fn send(
    member: &mut MemberClient,
    vote: Ballot,
    last_log_id: Option<LogId>,
    snapshot: SnapshotFile,
) -> Result<SnapshotResponse<TypeConfig>, Failure> {
    let mut client = member.client(Lane::Snapshot)?;
    let timing = member.network.timing;
    let last_log_id = last_log_id.as_ref().map(codec::log_id_to_wire);
    let prepare = wire::RaftPrepareSnapshotRequest {
        identity: Some(member.identity()),
        last_log_id,
        total_bytes: snapshot.length(),
    };
    let prepared = tokio::time::timeout(timing.snapshot_idle, client.prepare_snapshot(prepare))
        .await
        .map_err(|_| member.timeout(RPCTypes::InstallSnapshot, timing.snapshot_idle))?
        .map_err(|status| member.failure(&status))?;
    let header = wire::RaftSnapshotHeader {
        identity: Some(member.identity()),
        vote: Some(codec::ballot_to_wire(&vote)),
        total_bytes: snapshot.length(),
        last_log_id,
        offset: prepared.into_inner().offset,
    };
    let (chunks, outgoing) = mpsc::channel(CHUNKS_QUEUED_MAX);
    let feed = feed(snapshot, header, chunks, timing.snapshot_idle);
    let call = client.install_snapshot(ReceiverStream::new(outgoing));
    let (feed, mut call) = (std::pin::pin!(feed), std::pin::pin!(call));
    let answer = tokio::select! { biased;
        // The follower may answer before it has everything: it refuses, or its connection broke.
        answer = &mut call => answer,
        fed = feed => {
            fed.map_err(|stalled| match stalled {
                FeedError::Idle => Failure::from(member.timeout(RPCTypes::InstallSnapshot, timing.snapshot_idle)),
                FeedError::Read(error) => NetworkError::new(&error).into(),
            })?;
            match tokio::time::timeout(timing.snapshot_install, call).await {
                Ok(answer) => answer,
                Err(_) => return Err(member.timeout(RPCTypes::InstallSnapshot, timing.snapshot_install).into()),
            }
        }
    };
    let response = answer
        .map_err(|status| member.failure(&status))?
        .into_inner();
    Ok(SnapshotResponse::new(required(response.vote.as_ref())?))
}

enum FeedError {
    /// The follower took nothing for too long.
    Idle,
    Read(std::io::Error),
}

async fn feed(
    snapshot: SnapshotFile,
    header: wire::RaftSnapshotHeader,
    chunks: mpsc::Sender<wire::RaftSnapshotChunk>,
    idle_max: Duration,
) -> Result<(), FeedError> {
    let mut offset = header.offset;
    let mut next = wire::RaftSnapshotChunk {
        header: Some(header),
        data: Default::default(),
    };
    loop {
        match tokio::time::timeout(idle_max, chunks.send(next)).await {
            Ok(Ok(())) => {}
            // The call has ended, and has an answer.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(FeedError::Idle),
        }
        let data = snapshot
            .read_at(offset, CHUNK_BYTES)
            .map_err(FeedError::Read)?;
        if data.is_empty() {
            return Ok(());
        }
        offset += data.len() as u64;
        next = wire::RaftSnapshotChunk {
            header: None,
            data: data.into(),
        };
    }
}
