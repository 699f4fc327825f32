//! Which problems become Events, and when: each once, repeated at long intervals, and limited in rate.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::event::ObjectRef;

/// How many Events are remembered. The oldest is forgotten first; if its problem occurs again it becomes a new Event.
const MAX_SENT: usize = 1000;
/// How often the Event of a problem that persists is repeated: the API server deletes Events after an hour.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// The Event of a problem that was resolved and occurs again is not repeated sooner.
const MIN_REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// How many Events may be sent at once.
const BURST: f64 = 25.0;
/// How often one may be sent after that.
const REFILL_INTERVAL: Duration = Duration::from_secs(10);

/// A problem with an object, to be reported as an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) about: ObjectRef,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// A request that reports a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EventWrite {
    /// Creates an Event.
    Create(Problem),
    /// Increases the count of the Event with this name.
    Repeat { problem: Problem, event: String, count: i32 },
}

/// The Events that were sent, and how many more may be sent now (token bucket).
#[derive(Debug)]
pub(super) struct EventLog {
    sent: BTreeMap<Key, SentEvent>,
    tokens: f64,
    refilled: Instant,
}

type Key = (ObjectRef, &'static str);

#[derive(Debug)]
struct SentEvent {
    note: String,
    event: String,
    count: i32,
    at: Instant,
    /// Whether the problem has persisted since.
    persists: bool,
}

impl EventLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: BTreeMap::new(), tokens: BURST, refilled: now }
    }

    /// Returns the next request, given all current problems. It counts against the rate limit; call [`EventLog::sent`] if it succeeds.
    pub(super) fn next(&mut self, problems: &[Problem], now: Instant) -> Option<EventWrite> {
        let elapsed = now.saturating_duration_since(self.refilled);
        self.tokens = (self.tokens + elapsed.as_secs_f64() / REFILL_INTERVAL.as_secs_f64()).min(BURST);
        self.refilled = now;
        let mut next = None;
        // Those beyond the limit would be new each time, since they can't be remembered.
        let problems = &problems[..problems.len().min(MAX_SENT)];
        let current: BTreeSet<(&ObjectRef, &str)> = problems.iter().map(|n| (&n.about, n.reason)).collect();
        for ((about, reason), sent) in &mut self.sent {
            sent.persists &= current.contains(&(about, *reason));
        }
        for problem in problems {
            let write = match self.sent.get(&(problem.about.clone(), problem.reason)) {
                None => Some(EventWrite::Create(problem.clone())),
                Some(sent) if sent.note != problem.note => {
                    (now >= sent.at + Duration::from_secs(1)).then(|| EventWrite::Create(problem.clone()))
                }
                Some(sent) => {
                    let due = sent.at + if sent.persists { REPEAT_INTERVAL } else { MIN_REPEAT_INTERVAL };
                    let repeat = || EventWrite::Repeat {
                        problem: problem.clone(),
                        event: sent.event.clone(),
                        count: sent.count.saturating_add(1),
                    };
                    (now >= due).then(repeat)
                }
            };
            if write.is_some() {
                next = write;
                break;
            }
        }
        if next.is_none() || self.tokens < 1.0 {
            return None;
        }
        self.tokens -= 1.0;
        next
    }

    /// The Event of this name was written.
    pub(super) fn sent(&mut self, problem: Problem, event: String, count: i32, now: Instant) {
        let sent = SentEvent { note: problem.note, event, count, at: now, persists: true };
        self.sent.insert((problem.about, problem.reason), sent);
        if self.sent.len() > MAX_SENT
            && let Some(oldest) = self.sent.iter().min_by_key(|(_, s)| s.at).map(|(k, _)| k.clone())
        {
            self.sent.remove(&oldest);
        }
    }

    /// The server has deleted the Event of a problem.
    pub(super) fn forget(&mut self, problem: &Problem) {
        self.sent.remove(&(problem.about.clone(), problem.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ResourceKind;

    fn problem(name: &str, note: &str) -> Problem {
        let about = ObjectRef {
            kind: ResourceKind::NetworkPolicy,
            namespace: Some("shop".into()),
            name: name.into(),
            uid: "u".into(),
            generation: 1,
        };
        Problem { about, reason: "Unusable", note: note.to_owned() }
    }

    #[test]
    fn a_problem_is_reported_once_and_repeated_after_half_an_hour() {
        let start = Instant::now();
        let mut log = EventLog::new(start);
        let problems = [problem("a", "broken")];
        let Some(EventWrite::Create(first)) = log.next(&problems, start) else { panic!("no Event") };
        log.sent(first, "event-1".to_owned(), 1, start);
        assert_eq!(log.next(&problems, start + Duration::from_secs(1799)), None);
        let repeat = log.next(&problems, start + REPEAT_INTERVAL);
        assert!(matches!(repeat, Some(EventWrite::Repeat { event, count: 2, .. }) if event == "event-1"));
    }

    #[test]
    fn a_problem_that_recurs_is_the_same_event() {
        let start = Instant::now();
        let mut log = EventLog::new(start);
        let problems = [problem("a", "broken")];
        log.sent(problems[0].clone(), "event-1".to_owned(), 4, start);
        assert_eq!(log.next(&[], start + Duration::from_secs(1)), None);
        assert_eq!(log.next(&problems, start + Duration::from_secs(59)), None, "too soon");
        let repeat = log.next(&problems, start + MIN_REPEAT_INTERVAL);
        assert!(matches!(repeat, Some(EventWrite::Repeat { count: 5, .. })), "{repeat:?}");
    }

    #[test]
    fn many_problems_are_rate_limited_and_memory_is_bounded() {
        let start = Instant::now();
        let mut log = EventLog::new(start);
        let problems: Vec<Problem> = (0..1500).map(|n| problem(&format!("p{n}"), "broken")).collect();
        let mut sent = 0;
        while let Some(EventWrite::Create(problem)) = log.next(&problems, start) {
            log.sent(problem, "e".to_owned(), 1, start);
            sent += 1;
        }
        assert_eq!(sent, 25);
        for n in 0..1200u32 {
            let now = start + REFILL_INTERVAL * (n + 1);
            if let Some(EventWrite::Create(problem)) = log.next(&problems, now) {
                log.sent(problem, "e".to_owned(), 1, now);
            }
        }
        assert!(log.sent.len() <= MAX_SENT);
    }
}
