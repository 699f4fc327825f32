//! The Kubernetes API server, as Palisade sees it.
//!
//! * [`Access`] says which server, as whom; [`Access::connect`] opens the door.
//! * [`read_blocking`] reads everything that decisions need once, for questions at a terminal.
//! * [`Rights`] are what the server lets an agent do, and which policies it serves.
//! * [`Event`] is what a source of objects tells the agent: first the whole cluster, then every change, and in between
//!   how the watches are doing. [`watch()`] is the source that the API server is.
//! * [`report()`] writes back what is wrong with objects or with a node: Events, and conditions of cluster-wide policies.
//!
//! This crate moves objects and decides nothing. Reading them is `palisade_manifest`'s job, what they mean
//! `palisade_policy`'s. It is the only one that knows a Kubernetes client, and async stays within it and the agent's shell.

#![forbid(unsafe_code)]

mod access;
mod catalogue;
mod event;
mod kind;
pub mod read;
mod report;
pub mod rights;
mod trouble;
mod watch;

pub use access::{Access, AccessError, Connection};
pub use event::{Event, ObjectRef, WatchState};
pub use kind::Kind;
pub use kube::Client;
pub use read::{Live, Missing, read_blocking};
pub use report::{ReportOptions, Reporter, report};
pub use rights::Rights;
pub use trouble::Trouble;
pub use watch::{WatchOptions, watch};
