//! Keeps the file of the node's state up to date while the agent runs.

use std::{
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use super::{NodeState, StateError, StateFile};

/// How often the state is compared with the file. It changes when the node gets other ranges: almost never.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes the state when it has changed, by a thread of its own: a disk may take seconds.
#[derive(Debug)]
pub(crate) struct Keeper {
    file: StateFile,
    /// The state in the file, as far as is known.
    written: Option<NodeState>,
    /// The state that is being written, and the outcome.
    writing: Option<(NodeState, Receiver<Result<(), StateError>>)>,
    next: Instant,
}

impl Keeper {
    /// `known` is the state in the file.
    pub(crate) fn new(file: StateFile, known: Option<NodeState>, now: Instant) -> Self {
        Self { file, written: known, writing: None, next: now }
    }

    /// Whether [`Keeper::update`] has something to do.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Writes the state that `current` returns for the last one, if it is another. Doesn't wait for the disk.
    ///
    /// # Errors
    /// That of an earlier write. It is tried again.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        current: impl FnOnce(Option<&NodeState>) -> NodeState,
    ) -> Result<(), StateError> {
        self.next = now + INTERVAL;
        if let Some((state, outcome)) = self.writing.take() {
            match outcome.try_recv() {
                Ok(Ok(())) => self.written = Some(state),
                Ok(Err(error)) => return Err(error),
                Err(TryRecvError::Empty) => {
                    self.writing = Some((state, outcome));
                    return Ok(());
                }
                // The thread panicked: tried again below.
                Err(TryRecvError::Disconnected) => {}
            }
        }
        let state = current(self.written.as_ref());
        if self.written.as_ref() == Some(&state) {
            return Ok(());
        }
        let (sender, outcome) = channel();
        let (file, written) = (self.file.clone(), state.clone());
        let write = move || {
            // The worker may be gone.
            _ = sender.send(file.write(&written));
        };
        let spawned = thread::Builder::new().name("palisade-state".into()).spawn(write);
        // Without a thread it is tried again at the next interval.
        if spawned.is_ok() {
            self.writing = Some((state, outcome));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn state(range: &str) -> NodeState {
        let pod_ranges = vec![range.parse().unwrap()];
        NodeState { node: "n1".to_owned(), pod_ranges, addresses_elsewhere: false }
    }

    /// Calls `update` at each interval until it writes nothing more. Returns the errors.
    fn settle(keeper: &mut Keeper, at: &mut Instant, state: &NodeState) -> Vec<StateError> {
        let mut errors = Vec::new();
        loop {
            *at += INTERVAL;
            assert!(keeper.is_due(*at));
            errors.extend(keeper.update(*at, |_| state.clone()).err());
            if keeper.writing.is_none() {
                return errors;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn changes_are_written_and_failures_tried_again() {
        let dir = TempDir::new().unwrap();
        let (file, mut at) = (StateFile::new(&dir.path().join("state")), Instant::now());
        let mut keeper = Keeper::new(file.clone(), None, at);
        assert!(settle(&mut keeper, &mut at, &state("10.0.0.0/24")).is_empty());
        assert_eq!(file.read("n1").unwrap(), Some(state("10.0.0.0/24")));
        assert!(!keeper.is_due(at), "at most once in an interval");
        file.remove().unwrap();
        settle(&mut keeper, &mut at, &state("10.0.0.0/24"));
        assert_eq!(file.read("n1").unwrap(), None, "nothing has changed");
        // A file in place of the directory.
        std::fs::write(dir.path().join("state"), "").unwrap();
        let errors = settle(&mut keeper, &mut at, &state("10.0.1.0/24"));
        assert!(errors[0].to_string().starts_with("cannot create"), "{errors:?}");
        std::fs::remove_file(dir.path().join("state")).unwrap();
        settle(&mut keeper, &mut at, &state("10.0.1.0/24"));
        assert_eq!(file.read("n1").unwrap(), Some(state("10.0.1.0/24")));
    }
}
