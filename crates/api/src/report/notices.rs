//! What becomes an Event, and when: each notice once, again only from time to time, never many at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::ObjectRef;

/// How many notices are remembered. The oldest is forgotten first; should it come up again it is told as a new one.
const REMEMBERED: usize = 1000;
/// A notice that stands is told again so often: the API server forgets Events after an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// One that went and came back is not told again sooner.
const SOONEST: Duration = Duration::from_secs(60);
/// So many may be told at once …
const BURST: f64 = 25.0;
/// … and then one in this time.
const EACH: Duration = Duration::from_secs(10);

/// Something to tell about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) about: ObjectRef,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Post {
    /// A new Event.
    Create(Notice),
    /// The Event of this name has happened so many times.
    Again { notice: Notice, event: String, count: i32 },
}

/// The Events that were sent.
#[derive(Debug)]
pub(super) struct Book {
    sent: BTreeMap<Key, Sent>,
    allowance: f64,
    counted: Instant,
}

type Key = (ObjectRef, &'static str);

#[derive(Debug)]
struct Sent {
    note: String,
    event: String,
    count: i32,
    at: Instant,
    stands: bool,
}

impl Book {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: BTreeMap::new(), allowance: BURST, counted: now }
    }

    /// The next thing to post, given all notices that stand now. What is returned counts as allowed; call
    /// [`Book::posted`] when it has been.
    pub(super) fn next(&mut self, standing: &[Notice], now: Instant) -> Option<Post> {
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() / EACH.as_secs_f64();
        self.allowance = (self.allowance + earned).min(BURST);
        self.counted = now;
        let mut next = None;
        // Beyond what can be remembered each would be new each time.
        let standing = &standing[..standing.len().min(REMEMBERED)];
        let stands: BTreeSet<(&ObjectRef, &str)> = standing.iter().map(|n| (&n.about, n.reason)).collect();
        for ((about, reason), sent) in &mut self.sent {
            sent.stands &= stands.contains(&(about, *reason));
        }
        for notice in standing {
            let post = match self.sent.get(&(notice.about.clone(), notice.reason)) {
                None => Some(Post::Create(notice.clone())),
                Some(sent) if sent.note != notice.note => {
                    (now >= sent.at + Duration::from_secs(1)).then(|| Post::Create(notice.clone()))
                }
                Some(sent) => {
                    let due = sent.at + if sent.stands { AGAIN } else { SOONEST };
                    let again = || Post::Again {
                        notice: notice.clone(),
                        event: sent.event.clone(),
                        count: sent.count.saturating_add(1),
                    };
                    (now >= due).then(again)
                }
            };
            if post.is_some() {
                next = post;
                break;
            }
        }
        if next.is_none() || self.allowance < 1.0 {
            return None;
        }
        self.allowance -= 1.0;
        next
    }

    /// A notice has become the Event of this name.
    pub(super) fn posted(&mut self, notice: Notice, event: String, count: i32, now: Instant) {
        let sent = Sent { note: notice.note, event, count, at: now, stands: true };
        self.sent.insert((notice.about, notice.reason), sent);
        if self.sent.len() > REMEMBERED
            && let Some(oldest) = self.sent.iter().min_by_key(|(_, s)| s.at).map(|(k, _)| k.clone())
        {
            self.sent.remove(&oldest);
        }
    }

    /// The server has forgotten the Event of a notice.
    pub(super) fn forget(&mut self, notice: &Notice) {
        self.sent.remove(&(notice.about.clone(), notice.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn notice(name: &str, note: &str) -> Notice {
        let about = ObjectRef {
            kind: Kind::NetworkPolicy,
            namespace: Some("shop".into()),
            name: name.into(),
            uid: "u".into(),
            generation: 1,
        };
        Notice { about, reason: "Unusable", note: note.to_owned() }
    }

    #[test]
    fn a_notice_is_told_once_and_again_after_half_an_hour() {
        let start = Instant::now();
        let mut book = Book::new(start);
        let standing = [notice("a", "broken")];
        let Some(Post::Create(first)) = book.next(&standing, start) else { panic!("nothing to tell") };
        book.posted(first, "event-1".to_owned(), 1, start);
        assert_eq!(book.next(&standing, start + Duration::from_secs(1799)), None);
        let again = book.next(&standing, start + AGAIN);
        assert!(matches!(again, Some(Post::Again { event, count: 2, .. }) if event == "event-1"));
    }

    #[test]
    fn one_that_went_and_came_back_is_the_same_event() {
        let start = Instant::now();
        let mut book = Book::new(start);
        let standing = [notice("a", "broken")];
        book.posted(standing[0].clone(), "event-1".to_owned(), 4, start);
        assert_eq!(book.next(&[], start + Duration::from_secs(1)), None);
        assert_eq!(book.next(&standing, start + Duration::from_secs(59)), None, "not so soon");
        let again = book.next(&standing, start + SOONEST);
        assert!(matches!(again, Some(Post::Again { count: 5, .. })), "{again:?}");
    }

    #[test]
    fn many_at_once_are_spread_and_memory_stays_bounded() {
        let start = Instant::now();
        let mut book = Book::new(start);
        let standing: Vec<Notice> = (0..1500).map(|n| notice(&format!("p{n}"), "broken")).collect();
        let mut told = 0;
        while let Some(Post::Create(notice)) = book.next(&standing, start) {
            book.posted(notice, "e".to_owned(), 1, start);
            told += 1;
        }
        assert_eq!(told, 25);
        for n in 0..1200u32 {
            let now = start + EACH * (n + 1);
            if let Some(Post::Create(notice)) = book.next(&standing, now) {
                book.posted(notice, "e".to_owned(), 1, now);
            }
        }
        assert!(book.sent.len() <= REMEMBERED);
    }
}
