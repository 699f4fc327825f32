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
    // A file may have changed since the world was read.
    let mut read = board.shown().world.stamp.clone();
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

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::ui::UiArguments;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: UiArguments,
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n";

    #[test]
    fn what_changed_after_the_first_reading_and_before_following_is_read() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::write(dir.path().join("pod.yaml"), POD).unwrap();
        let cli = Cli::try_parse_from(["ui", "-f", dir.path().to_str().unwrap()]).unwrap();
        let source = Arc::new(Source::new(cli.arguments));
        let board = Arc::new(Board::new(source.read().unwrap()));
        fs::write(dir.path().join("broken.yaml"), "kind: [\n").unwrap();

        start(source, Arc::clone(&board)).unwrap();

        let began = Instant::now();
        while board.shown().problem.is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "the broken file is not noticed");
            thread::sleep(PERIOD);
        }
    }
}
