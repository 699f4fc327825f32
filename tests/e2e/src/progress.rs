//! Lines on standard error about what takes long.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::Result;

fn begin() -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now)
}

/// Prints a line with the seconds since the first one.
pub fn say(text: &str) {
    eprintln!("[{:>4} s] {text}", begin().elapsed().as_secs());
}

/// Runs a part, and prints how long it took.
///
/// # Errors
/// Those of the part.
pub fn part<T>(name: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("{name} …"));
    let start = Instant::now();
    let result = f();
    let how = if result.is_ok() { "" } else { ", failed" };
    say(&format!("{name}: {}{how}", seconds(start.elapsed())));
    result
}

/// A duration as text.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
