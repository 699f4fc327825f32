//! The Palisade node agent, which runs on each node and enforces policies in its kernel.
//!
//! The core:
//!
//! * [`Reconciler`] is pure: it turns inputs and times into actions, without I/O. It holds the desired state.
//! * [`DataPlane`] is the interface to the kernel, which holds the programmed state. [`NftDataPlane`] is the real one.
//! * [`NodeAgent`] joins them and performs the actions.
//! * [`stale`] finds established connections that a change may deny.
//! * [`fallback`] is the plan to program when the kernel rejects one: pods for which the kernel allows too much fail closed.
//!
//! [`names`] learns addresses from answers of DNS servers (feature `names`).
//!
//! The process around the core (feature `daemon`, except for [`source`]):
//!
//! * [`cni`] is the chained CNI plugin, a process of its own.
//! * [`state`] closes the node's pods after a restart of the node, until their policies are known.
//! * [`config`] has the settings, [`source`] delivers the cluster, [`lock`] ensures that only one agent writes.
//! * [`recorder`] makes the daemon's records of flows for a process without a daemon, such as a lab.
//! * [`daemon`] wires everything. [`metrics`], [`log`] and [`socket`] are the interfaces for operators, [`view`] displays
//!   a plan.

#![forbid(unsafe_code)]

mod allows;
mod changed_addresses;
#[cfg(feature = "daemon")]
pub mod cni;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
mod connections;
#[cfg(feature = "daemon")]
pub mod daemon;
mod data_plane;
#[cfg(feature = "daemon")]
pub mod drops;
mod error_chain;
pub mod fallback;
#[cfg(feature = "daemon")]
mod flow_file;
#[cfg(feature = "daemon")]
mod flow_logs;
#[cfg(feature = "daemon")]
pub mod flows;
#[cfg(all(fuzzing, feature = "daemon"))]
pub mod fuzzing;
mod links;
#[cfg(feature = "daemon")]
pub mod lock;
#[cfg(feature = "daemon")]
pub mod log;
#[cfg(feature = "daemon")]
pub mod metrics;
#[cfg(feature = "names")]
pub mod names;
mod nftables;
mod node;
mod other_pods;
#[cfg(feature = "daemon")]
pub mod otlp;
mod pod_sources;
mod reconcile;
#[cfg(feature = "daemon")]
mod record_parts;
#[cfg(feature = "daemon")]
pub mod recorder;
#[cfg(feature = "names")]
mod replace;
mod review_schedule;
#[cfg(feature = "daemon")]
mod runtime_pods;
#[cfg(feature = "daemon")]
pub mod socket;
pub mod source;
pub mod stale;
#[cfg(feature = "daemon")]
pub mod state;
#[cfg(feature = "daemon")]
pub mod view;

pub use data_plane::{
    DataPlane, DataPlaneError, FiveTuple, Programmed, ReviewScope, RevocationSummary, TrackedConnection,
};
pub use links::LinkMonitor;
pub use nftables::{MissingFeature, NftDataPlane};
pub use node::{NodeAgent, Report, ReviewState};
pub use reconcile::{Action, Input, Reconciler};
