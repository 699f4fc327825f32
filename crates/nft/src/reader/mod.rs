//! What the kernel holds, read back by a reader that shares no code with the encoder.
//!
//! [`Ruleset::read`] dumps the table; [`Ruleset::evaluate`] takes a packet through it as the kernel would. The enforcer
//! reads sets and chains at start; the tests hold the evaluation equal to the plan.

mod attributes;
mod dump;
mod evaluate;
mod expressions;
mod properties;
mod witness;

pub use dump::{Chain, Element, Ruleset, Set};
pub use evaluate::{Arrival, Judgement, Packet, State};
pub use expressions::{Operation, Target};
pub use properties::Properties;

pub(crate) use attributes::{Attributes, text};
pub(crate) use dump::address;
pub(crate) use expressions::operations;
pub(crate) use properties::user_data;
pub(crate) use properties::{
    CHAIN_BINDING, DORMANT, SET_ANONYMOUS, chain as chain_properties, set as set_properties, table_flags,
};
pub(crate) use witness::Witness;
