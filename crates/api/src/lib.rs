//! The Kubernetes API server: objects are read or watched, and results are reported back.
//!
//! * [`Access`] selects the server and the credentials; [`Access::connect`] makes a client.
//! * [`read_blocking`] reads everything that decisions need once, for the command line.
//! * [`watch()`] lists and watches what the agent needs and sends it as [`Event`]s: first the whole cluster, then each change, and in
//!   between the states of the watches.
//! * [`report()`] writes problems with objects or with a node back to the cluster, as Events and as conditions of cluster-wide policies.
//! * [`Rights`] queries which requests of the agent the server would allow, and which policy kinds it serves.
//!
//! This crate moves objects and decides nothing. `palisade_manifest` decodes them, and `palisade_policy` decides what they mean. No
//! other crate has a Kubernetes client. Async code stays in this crate and in the agent's shell.

#![forbid(unsafe_code)]

mod access;
mod api_groups;
mod backoff;
mod client;
mod error;
mod event;
mod list;
pub mod read;
mod report;
mod request;
mod resource;
pub mod rights;
mod transport;
mod watch;

pub use access::{Access, AccessError, ClusterConnection};
pub use error::{ApiError, ApiErrorKind};
pub use event::{Event, ObjectRef, WatchState};
pub use kube::Client;
pub use read::{ClusterSnapshot, Missing, ReadOptions, read_blocking};
pub use report::{ReportOptions, Reporter, report};
pub use resource::{NeededFor, ResourceKind};
pub use rights::Rights;
pub use watch::{WatchOptions, watch};
