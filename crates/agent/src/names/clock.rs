//! The time by which addresses expire.

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use palisade_dns::Seconds;

use super::core::Moment;

/// A clock that starts with the wall clock, and that nothing sets afterwards: otherwise a wall clock that is set back would keep addresses
/// allowed for longer than their answers said, and one that is set forward would remove all at once. Time in which the node is suspended counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Reading,
    /// The wall clock when it started.
    wall: Seconds,
}

/// What two clocks show at a moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Since the node started, with the time in which it was suspended; zero if the kernel doesn't say.
    boot: Duration,
    /// Without that time.
    awake: Instant,
}

impl Reading {
    fn now() -> Self {
        // Only a filter of system calls could refuse it. Without it, time in which the node is suspended doesn't count.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Self { boot, awake: Instant::now() }
    }

    /// Returns how long ago another reading was.
    fn since(&self, earlier: &Self) -> Duration {
        self.boot.saturating_sub(earlier.boot).max(self.awake.saturating_duration_since(earlier.awake))
    }
}

impl Clock {
    pub(super) fn start() -> Self {
        Self::with_wall(wall())
    }

    /// As if the wall clock were this.
    pub(super) fn with_wall(wall: Seconds) -> Self {
        Self { started: Reading::now(), wall }
    }

    pub(super) fn now(&self) -> Moment {
        self.at(&Reading::now())
    }

    fn at(&self, reading: &Reading) -> Moment {
        let since = reading.since(&self.started);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_long_it_has_been_up() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let boot = Reading::now().boot.as_secs_f64();
        assert!((seconds..seconds + 60.0).contains(&(boot + 1.0)), "{boot} of {seconds}");
    }

    #[test]
    fn time_in_which_the_node_is_suspended_counts() {
        let clock = Clock::with_wall(5_000);
        let Reading { boot, awake } = clock.started;
        let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
        let after = |boot, awake| clock.at(&Reading { boot, awake }).seconds;
        assert_eq!(after(boot + second, awake + second), 5_001);
        assert_eq!(after(boot + hour + second, awake + second), 8_601, "an hour of sleep");
        assert_eq!(after(Duration::ZERO, awake + second), 5_001, "the kernel refuses it");
    }
}
