//! What the kernel holds, read back by a reader that shares no code with the encoder.
//!
//! [`Ruleset::read`] dumps the table; [`Ruleset::evaluate`] takes a packet through it as the kernel would. The enforcer
//! reads sets and chains at start; the tests hold the evaluation equal to the plan.

mod attributes;
mod dump;
mod evaluate;
mod expressions;

pub use dump::{Chain, Element, Ruleset, Set};
pub use evaluate::{Arrival, Judgement, Packet, State};
pub use expressions::{Operation, Target};

pub(crate) use attributes::{Attributes, text};
pub(crate) use dump::address;
pub(crate) use expressions::operations;
