//! The time by which addresses expire.

use std::time::{Instant, SystemTime};

use palisade_dns::Seconds;

use super::core::Moment;

/// A clock that starts with the wall clock, and that nothing sets afterwards: otherwise a wall clock that is set back would keep addresses
/// allowed for longer than their answers said, and one that is set forward would remove all at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    /// The wall clock when it started.
    wall: Seconds,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self::with_wall(wall())
    }

    /// As if the wall clock were this.
    pub(super) fn with_wall(wall: Seconds) -> Self {
        Self { started: Instant::now(), wall }
    }

    pub(super) fn now(&self) -> Moment {
        let since = self.started.elapsed();
        Moment {
            milliseconds: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            seconds: self.wall.saturating_add(since.as_secs()),
        }
    }

    /// Returns by how many seconds the wall clock is ahead of this one, for the file: only the wall clock outlives the process.
    pub(super) fn ahead(&self) -> i64 {
        wall().cast_signed().saturating_sub(self.now().seconds.cast_signed())
    }
}

/// The wall clock: seconds since 1970.
fn wall() -> Seconds {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
