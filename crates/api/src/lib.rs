//! The Kubernetes API server: objects are read or watched, and results are reported back.
//!
//! * [`Access`] selects the server and the credentials; [`Access::connect`] makes a client.
//! * [`read_blocking`] reads everything that decisions need once, for the command line.
//! * [`watch()`] lists and watches what the agent needs and sends it as [`Event`]s: first the whole cluster, then each change, and in
//!   between the states of the watches.
//! * [`report()`] writes problems with objects or with a node back to the cluster, as Events and as conditions of cluster-wide policies.
//! * [`remove_startup_taint`] lets pods be scheduled to a node whose agent is ready.
//! * [`pod_command`] (feature `exec`) runs a command in many pods at once.
//! * [`ephemeral`] runs a command in ephemeral containers of pods.
//! * [`Rights`] queries which requests of the agent the server would allow, and which policy kinds it serves.
//!
//! This crate moves objects and decides nothing. `palisade_manifest` decodes them, and `palisade_policy` decides what they mean. No
//! other crate has a Kubernetes client. Async code stays in this crate and in the agent's shell.
//!
//! Without the feature `client` the crate sends no requests: it has the catalog of kinds ([`ResourceKind`]) and the types of
//! what is read ([`ClusterSnapshot`], [`Event`], [`ApiError`]), and needs neither a TLS library nor an async runtime.

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod access;
#[cfg(feature = "client")]
mod api_groups;
#[cfg(feature = "client")]
mod backoff;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
pub mod ephemeral;
mod error;
mod event;
#[cfg(feature = "client")]
mod list;
#[cfg(feature = "exec")]
pub mod pod_command;
pub mod read;
#[cfg(feature = "client")]
mod report;
#[cfg(feature = "client")]
mod request;
mod resource;
#[cfg(feature = "client")]
pub mod rights;
#[cfg(feature = "client")]
mod startup_taint;
#[cfg(feature = "client")]
mod transport;
#[cfg(feature = "client")]
mod watch;

#[cfg(feature = "client")]
pub use access::{Access, AccessError, ClusterConnection};
pub use error::{ApiError, ApiErrorKind};
pub use event::{Event, ObjectRef, WatchState};
#[cfg(feature = "client")]
pub use kube::Client;
pub use read::{ClusterSnapshot, Missing};
#[cfg(feature = "client")]
pub use read::{ReadOptions, read_blocking};
#[cfg(feature = "client")]
pub use report::{ReportOptions, Reporter, report};
pub use resource::{NeededFor, ResourceKind};
#[cfg(feature = "client")]
pub use rights::Rights;
#[cfg(feature = "client")]
pub use startup_taint::{STARTUP_TAINT, remove_startup_taint};
#[cfg(feature = "client")]
pub use watch::{WatchOptions, watch};
