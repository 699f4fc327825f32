//! Records of connections that policies decided.
//!
//! ```text
//!   agent: dropped packet + the engine's reason ─► Record ─► buffer of the node ─► Filter ─► `palisade flows`
//!                                                                                    └─ JSON lines, or Hubble's JSON
//! ```

#![forbid(unsafe_code)]

mod filter;
mod hubble;
mod record;

pub use filter::{Filter, FilterError, Peer, PolicyName, Port};
pub use hubble::hubble;
pub use record::{Direction, End, Object, Record, Rule, Verdict, Workload};
