//! Typed messages to netlink bytes.
//!
//! Written by hand and for exactly what we send; the reader ([`crate::reader`]) shares no code with it.

pub(crate) mod attributes;
mod expressions;
mod messages;

pub(crate) use messages::{
    Encoded, batch_begin, batch_end, element_at, encode, finish, header, rules_digest,
};
