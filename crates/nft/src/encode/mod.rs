//! Encodes typed messages as netlink bytes.
//!
//! It covers exactly the messages that the agent sends. The reader ([`crate::reader`]) shares no code with it.

mod attributes;
mod expressions;
#[cfg(all(test, target_endian = "little", target_pointer_width = "64"))]
mod golden;
mod messages;

pub(crate) use attributes::AttributeWriter;
pub(crate) use messages::{
    Encoded, attributes_of, batch_begin, batch_end, element_at, encode, encode_in, finish, first_half,
    header, port_key, port_range_keys, rule_expressions, rules_digest, shortened,
};
