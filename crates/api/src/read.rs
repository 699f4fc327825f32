//! Reads everything that decisions need once.
//!
//! All kinds are listed concurrently, in pages. Each list is one state of the server, but the states of two lists may be moments apart.
//! A kind that the cluster doesn't serve has no objects. A kind that is forbidden or fails is [`Missing`], and an answer that needs it
//! has to report that.

#[cfg(feature = "client")]
mod lists;
#[cfg(feature = "client")]
mod prune;
#[cfg(feature = "client")]
mod reader;
#[cfg(feature = "client")]
mod served;
mod snapshot;

#[cfg(feature = "client")]
pub use lists::{Progress, ReadError, ReadOptions, TIMEOUT, read, read_blocking};
pub use snapshot::{ClusterSnapshot, Missing, Object};
