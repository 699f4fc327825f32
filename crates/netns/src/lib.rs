//! Network namespaces, and the links, addresses, routes and neighbors in them.
//!
//! The lab builds a cluster with it; the doctor's self-test builds two pods; the agent reads the addresses of a pod. It starts no program and
//! reads no policy.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod addresses;
pub mod dump;
pub mod namespace;
pub mod rtnetlink;

pub use addresses::addresses_of;
pub use namespace::Namespace;
