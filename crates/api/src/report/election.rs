//! Elects the agent that writes status, by a Lease. Decides only, without I/O.
//!
//! The rules are those of client-go: a lease has expired if it has not been renewed for its duration, by *our* clock since *we* saw
//! it change, so clocks that differ or jump don't matter. All agents would write the same status, so two writers at a time do no harm.

use std::time::Duration;

use tokio::time::Instant;

/// How long a lease is valid without being renewed.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(30);
/// How often the leader renews it.
pub(super) const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// How often the other agents read it, on average. 5,000 agents read one small object about eighty times a second, from the server's
/// cache.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(60);

/// A lease as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObservedLease {
    pub(super) holder: String,
    /// Its resource version, which changes with each renewal.
    pub(super) version: String,
}

/// What to do with the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    /// It doesn't exist: create it with our name.
    Create,
    /// We hold it, or it has expired: write our name and the time to this version of it.
    Acquire,
    /// Another agent holds it.
    Wait,
}

/// The state of the election.
#[derive(Debug)]
pub(super) struct Election {
    own_name: String,
    /// The lease, and when this version of it was first observed.
    observed: Option<(ObservedLease, Instant)>,
    /// When we last acquired or renewed it.
    acquired: Option<Instant>,
}

impl Election {
    pub(super) fn new(own_name: String) -> Self {
        Self { own_name, observed: None, acquired: None }
    }

    /// Takes note of the lease and returns what to do with it.
    pub(super) fn observe(&mut self, lease: Option<ObservedLease>, now: Instant) -> LeaseAction {
        let Some(lease) = lease else {
            self.observed = None;
            return LeaseAction::Create;
        };
        let is_ours = lease.holder == self.own_name;
        let is_released = lease.holder.is_empty();
        match &self.observed {
            Some((observed, since)) if *observed == lease => {
                if is_ours || is_released || now.saturating_duration_since(*since) >= LEASE_DURATION {
                    return LeaseAction::Acquire;
                }
            }
            _ => {
                self.observed = Some((lease, now));
                if is_ours || is_released {
                    return LeaseAction::Acquire;
                }
            }
        }
        self.acquired = None;
        LeaseAction::Wait
    }

    /// The server accepted our name in a request that was sent at `sent`.
    pub(super) fn acquired(&mut self, sent: Instant) {
        self.acquired = Some(sent);
    }

    /// Another agent was faster.
    pub(super) fn lost(&mut self) {
        self.acquired = None;
    }

    /// Whether this agent writes status. A leader that can't renew stops before the lease expires.
    pub(super) fn is_leader(&self, now: Instant) -> bool {
        self.acquired.is_some_and(|acquired| now.saturating_duration_since(acquired) < LEASE_DURATION * 2 / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: u32) -> Option<ObservedLease> {
        Some(ObservedLease { holder: holder.to_owned(), version: version.to_string() })
    }

    #[test]
    fn a_lease_that_is_not_renewed_is_acquired() {
        let start = Instant::now();
        let mut election = Election::new("own".to_owned());
        assert_eq!(election.observe(lease("other", 1), start), LeaseAction::Wait);
        assert_eq!(
            election.observe(lease("other", 2), start + LEASE_DURATION),
            LeaseAction::Wait,
            "it was renewed"
        );
        assert_eq!(
            election.observe(lease("other", 2), start + LEASE_DURATION * 2 - Duration::from_secs(1)),
            LeaseAction::Wait
        );
        assert_eq!(election.observe(lease("other", 2), start + LEASE_DURATION * 2), LeaseAction::Acquire);
        assert_eq!(election.observe(lease("", 3), start), LeaseAction::Acquire, "released");
        assert_eq!(election.observe(None, start), LeaseAction::Create);
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_may_start() {
        let start = Instant::now();
        let mut election = Election::new("own".to_owned());
        assert!(!election.is_leader(start));
        election.acquired(start);
        assert!(election.is_leader(start + RENEW_INTERVAL));
        assert!(!election.is_leader(start + LEASE_DURATION - Duration::from_secs(5)));
        election.acquired(start);
        assert_eq!(election.observe(lease("other", 9), start), LeaseAction::Wait);
        assert!(!election.is_leader(start), "another agent holds the lease");
    }
}
