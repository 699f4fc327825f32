//! The lines of an answer's body, as many at a time as have arrived.

use std::time::{Duration, Instant};

use futures::FutureExt;
use http_body_util::BodyExt;
use kube::client::Body;

use super::failure::Failure;

/// No object is longer: etcd takes 1.5 MiB, the API server 3 MiB in a request.
const LONGEST_LINE: usize = 32 << 20;
/// How much is taken at once where more is there already.
const AT_ONCE: usize = 256 << 10;
/// An empty buffer keeps no more than this.
const KEPT: usize = 1 << 20;

/// A body, cut into lines.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// How many bytes of the buffer have been given out.
    used: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), used: 0 }
    }

    /// Waits until at least one line is complete; [`Lines::next`] then gives all that have arrived. When the first byte
    /// of them came, or `None` at the end of the body: what follows the last newline is then lost, as half a line is.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for as long as `patience`.
    pub(super) async fn fill(&mut self, patience: Duration) -> Result<Option<Instant>, Failure> {
        self.buffer.drain(..self.used);
        self.used = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer.shrink_to(KEPT);
        }
        let mut received = None;
        loop {
            let frame = tokio::time::timeout(patience, self.body.frame()).await;
            let mut frame = frame.map_err(|_| Failure::Silent(patience))?;
            let mut complete = false;
            loop {
                let Some(found) = frame else { return Ok(received.filter(|_| complete)) };
                let data = found.map_err(|error| match Failure::of(&error) {
                    Failure::Unreachable(words) => Failure::Broken(words),
                    other => other,
                });
                match data {
                    // What came before the break is good.
                    Err(_) if complete => return Ok(received),
                    Err(failure) => return Err(failure),
                    Ok(frame) => {
                        if let Ok(data) = frame.into_data() {
                            received.get_or_insert_with(Instant::now);
                            complete |= memchr::memchr(b'\n', &data).is_some();
                            self.buffer.extend_from_slice(&data);
                        }
                    }
                }
                if self.buffer.len() >= AT_ONCE {
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
            if self.buffer.len() > LONGEST_LINE {
                return Err(Failure::TooLong(self.buffer.len()));
            }
        }
    }

    /// The next line that has arrived, without its end. Empty lines are passed over.
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

/// The whole of a body, up to `longest` bytes, with at most `patience` between two parts of it.
pub(crate) async fn whole(mut body: Body, longest: usize, patience: Duration) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Failure::Silent(patience))? else { return Ok(all) };
        let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            all.extend_from_slice(&data);
        }
        if all.len() > longest {
            return Err(Failure::TooLong(all.len()));
        }
    }
}
