//! Records of connections that policies decided.
//!
//! ```text
//!   agent: packet or connection + the engine's reason ─► Record ─► buffer of the node ─► Filter ─► FlowPage ─► `palisade flows`
//!                                                                                                └─ JSON lines, or Hubble's JSON
//! ```

#![forbid(unsafe_code)]

mod filter;
mod hubble;
mod page;
mod record;

pub use filter::{Filter, FilterError, Peer, PolicyName, Port};
pub use hubble::hubble;
pub use page::{FlowPage, FlowRequest};
pub use record::{Direction, End, Ended, Object, OpenedTo, Record, Rule, Verdict, Workload};
