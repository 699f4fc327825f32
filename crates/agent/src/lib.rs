//! The Palisade node agent: what runs on each node and keeps its kernel at what the policies say.
//!
//! * [`Reconciler`] is the pure half: inputs and time in, actions out, no I/O. What we want lives there.
//! * [`DataPlane`] is the seam to the kernel; what is programmed lives behind it. [`NftDataPlane`] is the real one.
//! * [`NodeAgent`] joins them: the only place that performs an action.
//! * [`stale`] says which connections a change may have made illegal.
//! * [`closed`] is what is programmed instead when the kernel refuses a plan: the pods concerned are cut off, loudly.

#![forbid(unsafe_code)]

pub mod closed;
mod data_plane;
mod nftables;
mod node;
mod reconcile;
mod review;
pub mod stale;

pub use data_plane::{Connection, DataPlane, DataPlaneError, Programmed};
pub use nftables::NftDataPlane;
pub use node::{NodeAgent, Report};
pub use reconcile::{Action, Input, Reconciler};
