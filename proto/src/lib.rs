//! The language that Flott's processes speak.
//!
//! What both ends of any connection must agree on, and nothing that does I/O:
//!
//! - [`ids`]: a type for every identifier.
//! - [`job_graph`]: the JobGraph IR, what a job computes; [`data_type`]: the SQL types of its columns.
//! - [`key_group`]: key → key group → subtask. Stable for ever, with golden vectors.
//! - [`state_handle`]: what a snapshot consists of. [`state_schema`]: what the bytes in it mean.
//! - [`paths`]: every object-store name, and the only place that forms one.
//! - [`fence`]: which leader and which attempt may still speak.
//! - [`convert`]: wire to domain; malformed input stops here.
//! - [`wire`]: the generated protobuf types. [`header`]: what is said beside them.

pub mod convert;
pub mod data_type;
pub mod fence;
pub mod header;
pub mod ids;
pub mod job_graph;
pub mod key_group;
pub mod paths;
pub mod state_handle;
pub mod state_schema;
pub mod wire;

pub use convert::Malformed;
