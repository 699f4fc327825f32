//! Assertions and waiting in tests.

use std::{
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;

/// A test and its name. It runs in the sandbox.
pub(crate) type Test = (&'static str, fn(&Sandbox) -> Result<(), Failed>);

/// Fails with `what` unless `condition` holds.
pub(crate) fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// Calls `poll` every 5 ms until it returns a value. Returns `None` after `timeout`.
pub(crate) fn until<T>(
    timeout: Duration,
    mut poll: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<Option<T>, Failed> {
    let start = Instant::now();
    loop {
        if let Some(value) = poll()? {
            return Ok(Some(value));
        }
        if start.elapsed() > timeout {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}
