//! Lets each page try one thing at a time: a newer attempt replaces the older ones of the same page.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The most pages that are known. Those that wait for nothing are forgotten first.
const MOST_PAGES: usize = 32;
/// The longest name of a page, in bytes.
const LONGEST_NAME: usize = 64;

/// The pages that try something.
#[derive(Default)]
pub(super) struct Turns {
    pages: Mutex<HashMap<String, Arc<Page>>>,
}

#[derive(Default)]
struct Page {
    newest: AtomicU64,
    running: Arc<AsyncMutex<()>>,
}

/// An attempt of a page.
pub(super) struct Attempt {
    page: Arc<Page>,
    number: u64,
}

impl Turns {
    /// Begins an attempt of the page with this name; the older ones of the page are over. `None`: too many pages try
    /// something at this moment.
    pub(super) fn begin(&self, name: &str) -> Option<Attempt> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if !pages.contains_key(name) && pages.len() >= MOST_PAGES {
            pages.retain(|_, page| Arc::strong_count(page) > 1);
            if pages.len() >= MOST_PAGES {
                return None;
            }
        }
        let page = Arc::clone(pages.entry(name.to_owned()).or_default());
        let number = page.newest.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Attempt { page, number })
    }
}

impl Attempt {
    /// Whether there is no newer one.
    pub(super) fn is_newest(&self) -> bool {
        self.page.newest.load(Ordering::Relaxed) == self.number
    }

    /// Waits until no other attempt of the page is being evaluated.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.page.running).lock_owned().await
    }
}

/// Whether a page may have this name: pages make theirs of random digits.
pub(super) fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_attempt_ends_older_ones_of_its_page() {
        let turns = Turns::default();
        let (first, other) = (turns.begin("a").unwrap(), turns.begin("b").unwrap());
        assert!(first.is_newest());
        let second = turns.begin("a").unwrap();
        assert!(!first.is_newest() && second.is_newest() && other.is_newest());
    }

    #[test]
    fn pages_are_bounded() {
        let turns = Turns::default();
        let mut held: Vec<Attempt> = (0..MOST_PAGES).map(|n| turns.begin(&n.to_string()).unwrap()).collect();
        assert!(turns.begin("more").is_none());
        assert!(turns.begin("0").is_some(), "a known page goes on");
        held.pop();
        assert!(turns.begin("more").is_some());
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("a-1") && is_name(&"a".repeat(LONGEST_NAME)));
        assert!(!is_name("") && !is_name("a b") && !is_name(&"a".repeat(LONGEST_NAME + 1)));
    }
}
