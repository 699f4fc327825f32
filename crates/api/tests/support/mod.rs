//! An API server in this process, on 127.0.0.1: it keeps objects, versions and a log of events, lists and watches as the real
//! one does, and fails as it is told to.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![expect(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod follower;
mod serve;
pub(crate) mod server;
mod write;
