//! What a running lab waits for.

use std::{os::unix::net::UnixStream, time::Instant};

use super::control::Request;

/// An event of a running lab.
pub(crate) enum Event {
    /// A file changed, at this time.
    Files(Instant),
    /// A client sent a request. The reply goes to the stream.
    Request(Request, UnixStream),
    /// The lab must end.
    Stop,
}
