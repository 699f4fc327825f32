//! Who writes: one agent, by a Lease. Decides, and talks to nobody.
//!
//! The rules are client-go's: a lease is free when nobody has renewed it for as long as it lasts, by *our* clock since *we*
//! saw it change, so that clocks that differ or jump don't matter. What is written under it is the same whoever writes it,
//! so two writers for a moment do no harm.

use std::time::{Duration, Instant};

/// How long a lease lasts without being renewed.
pub(super) const LASTS: Duration = Duration::from_secs(30);
/// How often the leader renews it.
pub(super) const RENEWED: Duration = Duration::from_secs(10);
/// How often the others look, on average: 5,000 agents ask for one small object about eighty times a second, which is
/// answered from the server's cache.
pub(super) const LOOKED_AT: Duration = Duration::from_secs(60);

/// A lease as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) holder: String,
    /// The server's version of it, which changes with each renewal.
    pub(super) version: String,
}

/// What to do with the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It doesn't exist: create it as ours.
    Create,
    /// It is ours, or free: put our name and the time on this version of it.
    Take,
    /// It is somebody else's.
    Wait,
}

/// What is known of the election.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    /// The lease, and when it was first seen in this version.
    seen: Option<(Seen, Instant)>,
    /// When we last got it.
    held: Option<Instant>,
}

impl Election {
    pub(super) fn new(me: String) -> Self {
        Self { me, seen: None, held: None }
    }

    /// What to do, now that the lease is seen like this.
    pub(super) fn look(&mut self, lease: Option<Seen>, now: Instant) -> Act {
        let Some(lease) = lease else {
            self.seen = None;
            return Act::Create;
        };
        let is_mine = lease.holder == self.me;
        let is_released = lease.holder.is_empty();
        match &self.seen {
            Some((seen, since)) if *seen == lease => {
                if is_mine || is_released || now.saturating_duration_since(*since) >= LASTS {
                    return Act::Take;
                }
            }
            _ => {
                self.seen = Some((lease, now));
                if is_mine || is_released {
                    return Act::Take;
                }
            }
        }
        self.held = None;
        Act::Wait
    }

    /// The server has put our name on it, asked at `asked`.
    pub(super) fn got(&mut self, asked: Instant) {
        self.held = Some(asked);
    }

    /// Somebody was faster.
    pub(super) fn lost(&mut self) {
        self.held = None;
    }

    /// Whether we are the writer. A leader that can't renew stops before the lease ends.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| now.saturating_duration_since(held) < LASTS * 2 / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: u32) -> Option<Seen> {
        Some(Seen { holder: holder.to_owned(), version: version.to_string() })
    }

    #[test]
    fn a_lease_is_taken_when_nobody_renews_it() {
        let start = Instant::now();
        let mut election = Election::new("me".to_owned());
        assert_eq!(election.look(lease("other", 1), start), Act::Wait);
        assert_eq!(election.look(lease("other", 2), start + LASTS), Act::Wait, "it was renewed");
        assert_eq!(election.look(lease("other", 2), start + LASTS * 2 - Duration::from_secs(1)), Act::Wait);
        assert_eq!(election.look(lease("other", 2), start + LASTS * 2), Act::Take);
        assert_eq!(election.look(lease("", 3), start), Act::Take, "given back");
        assert_eq!(election.look(None, start), Act::Create);
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_may_begin() {
        let start = Instant::now();
        let mut election = Election::new("me".to_owned());
        assert!(!election.leads(start));
        election.got(start);
        assert!(election.leads(start + RENEWED));
        assert!(!election.leads(start + LASTS - Duration::from_secs(5)));
        election.got(start);
        assert_eq!(election.look(lease("other", 9), start), Act::Wait);
        assert!(!election.leads(start), "the lease is somebody else's");
    }
}
