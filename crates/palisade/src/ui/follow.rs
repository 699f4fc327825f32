//! Reads the files again when they change, and the cluster from time to time.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    state::{Board, Problem},
    world::Source,
};
use crate::inputs::stamp::PERIOD;

/// A page counts as closed if it has not asked for this long. Pages ask at least every 25 s.
const CLOSED_AFTER: Duration = Duration::from_secs(60);

/// Follows the source until the process ends.
///
/// # Errors
/// When no thread can be started.
pub(super) fn start(source: Arc<Source>, board: Arc<Board>) -> Result<()> {
    if source.is_repeatable() {
        let follow = move || follow(&source, &board);
        thread::Builder::new().name("follow".to_owned()).spawn(follow).context("can't start a thread")?;
    }
    Ok(())
}

fn follow(source: &Source, board: &Board) {
    let interval = source.is_cluster().then_some(source.arguments.interval);
    let mut read = source.stamp();
    let mut last = read.clone();
    let mut read_at = Instant::now();
    loop {
        thread::sleep(PERIOD);
        let now = source.stamp();
        // A file that is being written changes from one look to the next.
        let is_settled = now == last;
        last = now.clone();
        let is_due = interval
            .is_some_and(|interval| read_at.elapsed() >= interval && board.idle_time() < CLOSED_AFTER);
        if !is_settled || (now == read && !is_due) {
            continue;
        }
        read = now;
        match source.read() {
            Ok(world) => board.replace(world),
            Err(error) => {
                board.fail(Problem { text: format!("{error:#}"), messages: source.errors() });
            }
        }
        read_at = Instant::now();
    }
}
