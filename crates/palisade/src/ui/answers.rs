//! Computes answers on threads of their own, so many at a time and no longer than a limit.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

/// The most computations at a time. A computation that takes too long can't be stopped, and counts until it ends.
const AT_A_TIME: usize = 2;
/// How long a request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Computes answers.
pub(super) struct Answers {
    turns: Arc<Semaphore>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The question can't be answered.
    Refused(anyhow::Error),
    /// It takes too long, or too many others do.
    TooLong,
    /// The computation ended by a panic.
    Failed,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Computes an answer.
    ///
    /// # Errors
    /// When it can't be computed, or not in time.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T, NoAnswer> {
        self.within(PATIENCE, work).await
    }

    async fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let deadline = Instant::now() + patience;
        let Ok(Ok(turn)) = timeout(patience, Arc::clone(&self.turns).acquire_owned()).await else {
            return Err(NoAnswer::TooLong);
        };
        let computing = spawn_blocking(move || {
            let answer = work();
            drop(turn);
            answer
        });
        match timeout_at(deadline, computing).await {
            Ok(Ok(answer)) => answer.map_err(NoAnswer::Refused),
            Ok(Err(_)) => Err(NoAnswer::Failed),
            Err(_) => Err(NoAnswer::TooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn computations_that_take_too_long_keep_their_turn_until_they_end() {
        let answers = Answers::new();
        let short = Duration::from_millis(20);
        let (sender, receiver) = mpsc::channel::<()>();
        run(async {
            let receiver = Arc::new(std::sync::Mutex::new(receiver));
            for _ in 0..AT_A_TIME {
                let receiver = Arc::clone(&receiver);
                let wait = move || {
                    _ = receiver.lock().unwrap().recv();
                    Ok(())
                };
                assert!(matches!(answers.within(short, wait).await, Err(NoAnswer::TooLong)));
            }
            assert!(matches!(answers.within(short, || Ok(1)).await, Err(NoAnswer::TooLong)));
            for _ in 0..AT_A_TIME {
                sender.send(()).unwrap();
            }
            assert_eq!(answers.within(Duration::from_secs(60), || Ok(1)).await.unwrap(), 1);
        });
    }

    #[test]
    fn a_panic_is_no_answer() {
        run(async {
            let answers = Answers::new();
            for _ in 0..=AT_A_TIME {
                let work = || -> Result<()> { panic!("as a test") };
                assert!(matches!(answers.compute(work).await, Err(NoAnswer::Failed)));
            }
        });
    }
}
