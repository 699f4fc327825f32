//! Typed messages to netlink bytes.
//!
//! Written by hand and for exactly what we send; the reader ([`crate::reader`]) shares no code with it.

pub(crate) mod attributes;
mod expressions;
#[cfg(all(test, target_endian = "little", target_pointer_width = "64"))]
mod golden;
mod messages;

pub(crate) use messages::{
    Encoded, attributes_of, batch_begin, batch_end, element_at, encode, encode_in, finish, first_half,
    header, rule_expressions, rules_digest, shortened,
};
