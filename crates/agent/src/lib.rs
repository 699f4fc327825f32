//! The Palisade node agent: what runs on each node and keeps its kernel at what the policies say.
//!
//! * [`Reconciler`] is the pure half: inputs and time in, actions out, no I/O. What we want lives there.
//! * [`DataPlane`] is the seam to the kernel; what is programmed lives behind it. [`NftDataPlane`] is the real one.
//! * [`NodeAgent`] joins them: the only place that performs an action.
//! * [`stale`] says which connections a change may have made illegal.
//! * [`closed`] is what is programmed instead when the kernel refuses a plan: pods that it leaves too open are cut off, loudly.
//!
//! Round this core lies the process that runs on a node:
//!
//! * [`config`] has the settings, [`source`] where the cluster comes from, [`lock`] that one agent alone writes.
//! * [`daemon`] puts it all together; [`metrics`], [`log`] and [`socket`] are what an operator sees, [`view`] how a plan
//!   is shown.

#![forbid(unsafe_code)]

mod allows;
pub mod closed;
pub mod config;
pub mod daemon;
mod data_plane;
pub mod drops;
mod links;
pub mod lock;
pub mod log;
pub mod metrics;
mod nftables;
mod node;
mod reconcile;
mod review;
pub mod socket;
pub mod source;
pub mod stale;
pub mod view;
mod words;

pub use data_plane::{Connection, DataPlane, DataPlaneError, FiveTuple, Programmed, Revoked};
pub use nftables::NftDataPlane;
pub use node::{NodeAgent, Report};
pub use reconcile::{Action, Input, Reconciler};
