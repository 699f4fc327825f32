//! The places of connections. Other users of this machine can connect too, so connections are counted by how far they have come, and where places
//! are short, the oldest of the same stage is closed: a flood at one stage closes none at another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

/// The most connections whose request has not arrived. A browser sends its request within milliseconds: it is closed only if so many others are
/// opened meanwhile.
pub(super) const MOST_SILENT: usize = 512;
/// The most connections whose request had no token, and whose answer is not sent yet: the pages themselves, and what is refused.
pub(super) const MOST_STRANGERS: usize = 64;
/// The most connections with the token. More wait. A page has one that waits for changes, and some for moments.
pub(super) const MOST_KNOWN: usize = 64;

/// The connections of a stage in which they may be closed, by the order in which they reached it.
#[derive(Default)]
struct Stage(BTreeMap<u64, AbortHandle>);

impl Stage {
    /// Closes the oldest if there are more than `most`.
    fn bound(&mut self, most: usize) {
        if self.0.len() > most
            && let Some((_, oldest)) = self.0.pop_first()
        {
            oldest.abort();
        }
    }
}

/// The connections that may be closed.
#[derive(Default)]
struct Open {
    next: u64,
    silent: Stage,
    strangers: Stage,
}

/// Gives places to connections.
#[derive(Clone)]
pub(super) struct Places {
    open: Arc<Mutex<Open>>,
    known: Arc<Semaphore>,
}

/// The place of a connection, which its end frees.
pub(super) struct Place {
    places: Places,
    number: u64,
    /// One of those with the token.
    permit: OnceLock<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { open: Arc::default(), known: Arc::new(Semaphore::new(MOST_KNOWN)) }
    }

    /// Begins a connection. `start` starts its task.
    pub(super) fn begin(&self, start: impl FnOnce(Place) -> AbortHandle) {
        // The lock is held until the connection is known, whenever its task begins.
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        let connection = start(Place { places: self.clone(), number, permit: OnceLock::new() });
        open.silent.0.insert(number, connection);
        open.silent.bound(MOST_SILENT);
    }

    /// Closes the connection that has waited longest for its request. Returns whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        self.lock().silent.0.pop_first().is_some_and(|(_, oldest)| {
            oldest.abort();
            true
        })
    }

    /// Ignores poisoning: each change is a single one.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The request has arrived, without the token.
    pub(super) fn without_token(&self) {
        let mut open = self.places.lock();
        let Some(connection) = open.silent.0.remove(&self.number) else { return };
        open.strangers.0.insert(self.number, connection);
        open.strangers.bound(MOST_STRANGERS);
    }

    /// The request has arrived, with the token: the connection is not closed for others. Waits until there are fewer of these.
    pub(super) async fn with_token(&self) {
        self.leave();
        // The semaphore is never closed, and a connection has one request.
        if let Ok(permit) = Arc::clone(&self.places.known).acquire_owned().await {
            _ = self.permit.set(permit);
        }
    }

    fn leave(&self) {
        let mut open = self.places.lock();
        open.silent.0.remove(&self.number);
        open.strangers.0.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::yield_now;

    use super::*;

    fn begin(places: &Places) -> Arc<Mutex<Option<Arc<Place>>>> {
        let kept = Arc::<Mutex<Option<Arc<Place>>>>::default();
        let of_task = Arc::clone(&kept);
        places.begin(move |place| {
            let place = Arc::new(place);
            *of_task.lock().unwrap() = Some(Arc::clone(&place));
            tokio::spawn(async move {
                let _kept = place;
                pending::<()>().await;
            })
            .abort_handle()
        });
        kept
    }

    /// Lets all tasks run, which the runtime does some at a time.
    async fn settle() {
        for _ in 0..100 {
            yield_now().await;
        }
    }

    fn counts(places: &Places) -> (usize, usize) {
        let open = places.lock();
        (open.silent.0.len(), open.strangers.0.len())
    }

    #[tokio::test]
    async fn a_flood_at_one_stage_closes_none_at_another() {
        let places = Places::new();
        let stranger = begin(&places).lock().unwrap().take().unwrap();
        stranger.without_token();
        let known = begin(&places).lock().unwrap().take().unwrap();
        known.with_token().await;
        assert_eq!(places.known.available_permits(), MOST_KNOWN - 1);
        for _ in 0..3 * MOST_SILENT {
            drop(begin(&places).lock().unwrap().take());
        }
        settle().await;
        assert_eq!(counts(&places), (MOST_SILENT, 1));
        // The task of each still holds its place beside the test.
        assert_eq!((Arc::strong_count(&stranger), Arc::strong_count(&known)), (2, 2));
        for _ in 0..2 * MOST_STRANGERS {
            let place = begin(&places).lock().unwrap().take().unwrap();
            place.without_token();
        }
        settle().await;
        assert_eq!(counts(&places).1, MOST_STRANGERS);
        assert_eq!((Arc::strong_count(&stranger), Arc::strong_count(&known)), (1, 2));
    }

    #[tokio::test]
    async fn the_silent_one_that_waited_longest_makes_room_for_what_fails_to_be_accepted() {
        let places = Places::new();
        assert!(!places.close_oldest());
        let place = begin(&places).lock().unwrap().take().unwrap();
        assert!(places.close_oldest());
        settle().await;
        assert_eq!(Arc::strong_count(&place), 1);
    }
}
