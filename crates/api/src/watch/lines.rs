//! Splits the body of a watch into lines, and returns as many at a time as have been received.

use std::time::{Duration, Instant};

use futures::FutureExt;
use http_body_util::BodyExt;
use kube::client::Body;

use crate::{
    error::{ApiError, ApiErrorKind},
    transport::connection_lost,
};

/// An object is smaller: etcd accepts 1.5 MiB by default, the API server 3 MiB in a request.
const MAX_LINE: usize = 32 << 20;
/// How much is read at once if more has been received already.
const MAX_BATCH: usize = 256 << 10;
/// An empty buffer keeps no more capacity than this.
const KEPT_CAPACITY: usize = 1 << 20;

/// The lines of a body.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// How many bytes of the buffer have been returned.
    used: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), used: 0 }
    }

    /// Waits until at least one line is complete; [`Lines::next`] then returns all lines that have been received. Returns when their
    /// first byte was received, or `None` at the end of the body. An incomplete line at the end is dropped.
    ///
    /// # Errors
    /// If the connection is lost, or nothing is received for `timeout`.
    pub(super) async fn fill(&mut self, timeout: Duration) -> Result<Option<Instant>, ApiError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer.shrink_to(KEPT_CAPACITY);
        }
        let mut received = None;
        loop {
            let frame = tokio::time::timeout(timeout, self.body.frame()).await;
            let mut frame = frame.map_err(|_| ApiErrorKind::TimedOut(timeout))?;
            let mut complete = false;
            loop {
                let Some(result) = frame else { return Ok(received.filter(|_| complete)) };
                match result {
                    // The lines before the error are returned first.
                    Err(_) if complete => return Ok(received),
                    Err(error) => return Err(connection_lost(error)),
                    Ok(frame) => {
                        if let Ok(data) = frame.into_data() {
                            received.get_or_insert_with(Instant::now);
                            complete |= memchr::memchr(b'\n', &data).is_some();
                            self.buffer.extend_from_slice(&data);
                        }
                    }
                }
                if self.buffer.len() >= MAX_BATCH {
                    break;
                }
                match self.body.frame().now_or_never() {
                    Some(next) => frame = next,
                    None => break,
                }
            }
            if complete {
                return Ok(received);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ApiErrorKind::TooLarge(MAX_LINE).into());
            }
        }
    }

    /// Returns the next received line without its end. Skips empty lines.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.buffer[self.used..];
            let length = memchr::memchr(b'\n', rest)?;
            let start = self.used;
            self.used += length + 1;
            if !self.buffer[start..start + length].trim_ascii().is_empty() {
                return Some(&self.buffer[start..start + length]);
            }
        }
    }
}
