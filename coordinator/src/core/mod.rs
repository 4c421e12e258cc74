//! The JobManager's decisions, pure: no clock, no randomness, no I/O, ordered maps only.
//!
//! | question | here |
//! |---|---|
//! | what has been decided? | [`ClusterState::apply`], the same on every JobManager; [`apply`] has a file a family of commands |
//! | what is being observed? | [`Observed`], in the leader's memory only; a new leader starts with an empty one |
//! | what should happen next? | [`plan`], asked after every event; it has no special path for a failover |
//!
//! Read in this order: [`job`], [`history`], [`checkpoint`], [`namespace`], [`state`], [`apply`], [`observed`], [`plan`].
//! [`feature_level`] and [`retired`]: what the members must agree on when some are older, or none any more. [`lineage`]:
//! going on from the state of a cluster that has ended.
//! [`scheduler`] and [`restart`] are the two solvers; [`records`] writes the state to a snapshot and reads it back;
//! [`digest`] makes it a number that members compare. [`orphans`]: which objects nobody will ever need; `storage_model`
//! shows that nothing else is ever deleted. [`compatibility`]: which state a job can go on with.

pub mod apply;
pub mod checkpoint;
pub mod compatibility;
#[cfg(test)]
mod decoder_tests;
pub mod digest;
pub mod feature_level;
pub mod graph_object;
pub mod history;
pub mod job;
pub mod kv;
pub mod lineage;
pub mod namespace;
pub mod observed;
pub mod orphans;
pub mod plan;
pub mod records;
pub mod reported;
pub mod restart;
pub mod retired;
pub mod scheduler;
pub mod settings;
pub mod state;
#[cfg(test)]
mod storage_model;
#[cfg(test)]
pub(crate) mod testing;

pub use digest::Digester;
pub use feature_level::FeatureLevels;
pub use job::{Job, JobStatus};
pub use observed::Observed;
pub use plan::plan;
pub use state::{ClusterState, KvChanges, Record, Response};
