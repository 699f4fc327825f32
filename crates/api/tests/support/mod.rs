//! An API server in this process. It keeps objects, versions and a log of events, serves lists and watches as a real one does, and
//! fails on request. Clients reach it through pipes in memory, so that tests run in virtual time.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]
#![expect(dead_code, reason = "each test program uses a part of the module")]

pub(crate) mod follower;
pub(crate) mod objects;
mod serve;
pub(crate) mod server;
mod write;
