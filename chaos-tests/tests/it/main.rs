//! Real processes, driven as an outside user would: `flott local`, the command line and its JSON.
//!
//! - [`life`]: a job from submission to its committed result. [`kills`]: whoever dies, the result is exact, and the
//!   leader's death restarts nothing. [`failpoints`]: the same at every step of a checkpoint. [`rescale`]: and while the
//!   parallelism changes. [`unaligned`]: and while rows wait that belong to a checkpoint. [`key_value`]: keys outlive the leader too. [`damage`]: checkpoints that cannot be restored, and
//!   files that nobody needs. [`savepoints`]: going on elsewhere. [`bad_input`]: what a user or a machine gets wrong is said
//!   and survived. [`object_storage`]: what S3 does is survived, too; [`objects`] counts what is in it. [`namespaces`]: tenants.
//!   [`operations`]: JobManagers are restarted, replaced and asked to hand over while a job runs. [`recovery`]: they are
//!   lost, and the job goes on from a backup or from what survives.
//!   [`security`]: the same over TLS, and who is not let in.
//! - [`chaos`]: the replicated state alone, in namespaces where networks are cut and disks lose power. [`campaign`]: `chaos run`:
//!   everything at once, from a seed. [`netns`]: the same where frames are lost. [`remote`]: on a cluster of others, by shells.
//!   [`preload`]: the library by which it changes clocks and disks. [`reference`]: queries whose rows faults must not change.
//!
//! The nextest profile runs these one at a time; [`alone`] does the same under plain `cargo test`.

mod bad_input;
mod campaign;
mod chaos;
mod damage;
mod failpoints;
mod job;
mod key_value;
mod kills;
mod life;
mod namespaces;
mod netns;
mod object_storage;
mod objects;
mod operations;
mod preload;
mod program;
mod recovery;
mod reference;
mod remote;
mod rescale;
mod savepoints;
mod scenarios;
mod security;
mod unaligned;

use tokio::sync::{Mutex, MutexGuard};

/// Held by each test that starts a cluster: two at once on a small machine time each other out.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    ONE_AT_A_TIME.lock().await
}
