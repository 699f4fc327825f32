//! Reads the kernel's table back. The reader shares no code with the encoder.
//!
//! [`Ruleset::read`] dumps the table, and [`Ruleset::evaluate`] applies it to a packet as the kernel would. The enforcer
//! reads sets and chains at start. Tests check that the evaluation equals the plan.

mod attributes;
mod change_detector;
mod dump;
mod evaluate;
mod expressions;
mod properties;

pub use dump::{Chain, Element, Ruleset, Set};
pub use evaluate::{Arrival, Evaluation, Packet, State};
pub use expressions::{Operation, Target};
pub use properties::Properties;

pub(crate) use attributes::{Attributes, text};
pub(crate) use change_detector::{ChangeDetector, Observation};
pub(crate) use expressions::operations;
pub(crate) use properties::{chain as chain_properties, set as set_properties, table_flags, user_data};
