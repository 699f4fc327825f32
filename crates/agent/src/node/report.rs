//! The outcome of one input.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::Direction;

use crate::{DataPlaneError, Programmed};

/// The outcome of one input of a [`NodeAgent`](crate::NodeAgent).
#[derive(Debug, Default)]
pub struct Report {
    /// What was programmed, one entry for each commit. Empty if nothing had to change.
    pub commits: Vec<Programmed>,
    /// How long compiling took.
    pub compile: Duration,
    /// How long the kernel transactions took.
    pub commit: Duration,
    /// When the last of these commits was complete in the kernel.
    pub committed: Option<Instant>,
    /// How long the review of established connections took that ended with this input, from its beginning. Zero if none ended, or
    /// if there was nothing to list. It is not part of [`Report::commit`].
    pub review: Duration,
    /// Whether a review ended with this input, and has checked everything that was committed before it began.
    pub review_succeeded: bool,
    /// When the review of established connections continues, or may begin. The caller calls
    /// [`NodeAgent::tick`](crate::NodeAgent::tick) then, unless another input comes first. Usually at once or some
    /// milliseconds away, at most a quarter of a second.
    pub review_due: Option<Instant>,
    /// The number of connections that the review revoked because they are now denied.
    pub revoked: usize,
    /// The number of revoked connections that are allowed again.
    pub restored: usize,
    /// The number of revoked connections that can't be remembered, because there are too many.
    pub not_remembered: usize,
    /// The errors, the most serious last. If there are any, enforcement is incomplete: [`Report::cut_off`] and
    /// [`Report::not_enforced`] list the addresses concerned, and a later tick retries.
    pub errors: Vec<DataPlaneError>,
    /// Whether the last error is a failed review of established connections. The kernel has accepted the plan then.
    pub review_failed: bool,
    /// Local addresses that are cut off (fail closed) because their policies can't be programmed.
    pub cut_off: Vec<(Direction, IpAddr)>,
    /// Isolated local addresses that the kernel also refused to cut off, or for which its state is unknown. Their policies are
    /// not enforced.
    pub not_enforced: Vec<(Direction, IpAddr)>,
}

impl Report {
    /// Whether the input was only a step of a review that has not ended: there is nothing to log, count or report.
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        let Self { commits, errors, review, review_succeeded, cut_off, not_enforced, compile: _, .. } = self;
        commits.is_empty()
            && errors.is_empty()
            && review.is_zero()
            && !review_succeeded
            && cut_off.is_empty()
            && not_enforced.is_empty()
    }
}
