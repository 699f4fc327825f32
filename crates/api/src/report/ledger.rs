//! What there is to report, and to whom. Decides, and talks to nobody.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use palisade_manifest::Diagnostic;
use palisade_policy::Name;

use super::{
    conditions::{Condition, Programmed, cut, desired, words},
    notices::{Book, Notice, Post},
};
use crate::{Kind, ObjectRef};

/// Longer notes are refused by the API server.
const LONGEST_NOTE: usize = 1024;
/// What changes is let settle for so long: a policy is known a moment before it is programmed.
const SETTLING: Duration = Duration::from_millis(500);

/// Identity of an object here.
pub(super) type Key = (Kind, Option<Name>, Name);

/// What the kernel has made of what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds all of it.
    Taken,
    /// It refused the latest, for this reason; what it held before it holds.
    Refused(String),
    /// It does not enforce what it should, or nobody knows.
    NotEnforced(String),
}

/// Everything that is known to be reported. Bounded by the number of objects with findings and of cluster-wide policies.
#[derive(Debug)]
pub(super) struct Ledger {
    node: Name,
    entries: BTreeMap<Key, Entry>,
    /// Why this node's kernel isn't as it should be, and when that is told.
    trouble: Option<(Outcome, Instant)>,
    /// Policies that ask for more than this node gives, in words, and when that is told.
    over_budget: BTreeMap<ObjectRef, (String, Instant)>,
    book: Book,
}

#[derive(Debug)]
struct Entry {
    object: ObjectRef,
    findings: Vec<Diagnostic>,
    programmed: Programmed,
    /// When its conditions are to be looked at; `None`: they are written.
    due: Option<Instant>,
}

/// The conditions that an object should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusWrite {
    pub(super) object: ObjectRef,
    pub(super) conditions: [Condition; 2],
}

impl Ledger {
    pub(super) fn new(node: Name, now: Instant) -> Self {
        Self {
            node,
            entries: BTreeMap::new(),
            trouble: None,
            over_budget: BTreeMap::new(),
            book: Book::new(now),
        }
    }

    /// What is wrong with an object now.
    pub(super) fn findings(&mut self, object: ObjectRef, findings: Vec<Diagnostic>, now: Instant) {
        let key = (object.kind, object.namespace.clone(), object.name.clone());
        let is_gone = object.uid.is_empty();
        if is_gone || (findings.is_empty() && !object.kind.is_optional()) {
            self.entries.remove(&key);
            return;
        }
        let entry = Entry { object, findings, programmed: Programmed::Pending, due: Some(now + SETTLING) };
        self.entries.insert(key, entry);
    }

    /// What the kernel has made of what is known so far. `spread`: how long to wait before telling of trouble, so that a
    /// thousand nodes with the same don't tell at once.
    pub(super) fn programmed(&mut self, outcome: Outcome, now: Instant, spread: Duration) {
        for entry in self.entries.values_mut().filter(|e| e.object.kind.is_optional()) {
            let next = match (&outcome, &entry.programmed) {
                (Outcome::Taken, _) => Programmed::Yes,
                // A refused transaction changes nothing of what is in force.
                (Outcome::Refused(_), Programmed::Yes) => continue,
                (Outcome::Refused(why), _) => Programmed::No(cut(why, LONGEST_NOTE)),
                (Outcome::NotEnforced(why), _) => Programmed::NotEnforced(cut(why, LONGEST_NOTE)),
            };
            if entry.programmed != next {
                entry.programmed = next;
                entry.due = Some(now + SETTLING);
            }
        }
        self.trouble = match (outcome, self.trouble.take()) {
            (Outcome::Taken, _) => None,
            (outcome, Some((_, at))) => Some((outcome, at)),
            (outcome, None) => Some((outcome, now + spread)),
        };
    }

    /// All policies that ask for more than this node gives. `spread` as for [`Ledger::programmed`].
    pub(super) fn over_budget(&mut self, policies: Vec<(ObjectRef, String)>, now: Instant, spread: Duration) {
        let mut before = std::mem::take(&mut self.over_budget);
        for (object, why) in policies {
            let at = before.remove(&object).map_or(now + spread, |(_, at)| at);
            self.over_budget.insert(object, (why, at));
        }
    }

    /// Somebody else has written the conditions so far: all of them are looked at.
    pub(super) fn take_over(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.due = Some(now);
        }
    }

    /// The next object whose conditions are to be looked at. It counts as done; [`Ledger::later`] takes that back.
    pub(super) fn next_status(&mut self, now: Instant) -> Option<StatusWrite> {
        let is_due = |e: &&mut Entry| e.object.kind.is_optional() && e.due.is_some_and(|due| due <= now);
        let entry = self.entries.values_mut().find(is_due)?;
        entry.due = None;
        let conditions = desired(&entry.findings, &entry.programmed);
        Some(StatusWrite { object: entry.object.clone(), conditions })
    }

    /// It could not be written: not before `at`.
    pub(super) fn later(&mut self, object: &ObjectRef, at: Instant) {
        let key = (object.kind, object.namespace.clone(), object.name.clone());
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = Some(entry.due.map_or(at, |due| due.max(at)));
        }
    }

    /// The next Event. What is wrong with objects is the leader's to tell, what is wrong here is ours.
    pub(super) fn next_event(&mut self, leads: bool, now: Instant) -> Option<Post> {
        let mut standing = Vec::new();
        let trouble = match self.trouble.as_ref().filter(|(_, at)| *at <= now) {
            Some((Outcome::Refused(why), _)) => Some(("PoliciesNotProgrammed", why)),
            Some((Outcome::NotEnforced(why), _)) => Some(("PoliciesNotEnforced", why)),
            Some((Outcome::Taken, _)) | None => None,
        };
        if let Some((reason, why)) = trouble {
            standing.push(Notice {
                about: ObjectRef {
                    kind: Kind::Node,
                    namespace: None,
                    name: self.node.clone(),
                    // As the kubelet's Events about its node.
                    uid: self.node.clone(),
                    generation: 0,
                },
                reason,
                note: cut(why, LONGEST_NOTE),
            });
        }
        let told = self.over_budget.iter().filter(|(_, (_, at))| *at <= now);
        standing.extend(told.map(|(object, (why, _))| Notice {
            about: object.clone(),
            reason: "OverBudget",
            note: cut(why, LONGEST_NOTE),
        }));
        if leads {
            let with_findings = self.entries.values().filter(|e| !e.findings.is_empty());
            standing.extend(with_findings.map(|e| Notice {
                about: e.object.clone(),
                reason: "Unusable",
                note: words(&e.findings, LONGEST_NOTE),
            }));
        }
        self.book.next(&standing, now)
    }

    /// An Event has been posted under this name.
    pub(super) fn posted(&mut self, notice: Notice, event: String, count: i32, now: Instant) {
        self.book.posted(notice, event, count, now);
    }

    /// The server no longer has the Event of this notice.
    pub(super) fn forget_event(&mut self, notice: &Notice) {
        self.book.forget(notice);
    }
}

#[cfg(test)]
mod tests {
    use palisade_manifest::{Code, Severity};

    use super::*;

    fn object(kind: Kind, name: &str, generation: i64) -> ObjectRef {
        ObjectRef { kind, namespace: None, name: name.into(), uid: "u".into(), generation }
    }

    fn broken() -> Vec<Diagnostic> {
        vec![Diagnostic::new(Severity::Error, Code::Invalid, "no known tier")]
    }

    fn ledger() -> (Ledger, Instant) {
        let now = Instant::now();
        (Ledger::new("node-1".into(), now), now)
    }

    #[test]
    fn a_policy_is_written_once_it_is_programmed_and_again_when_that_changes() {
        let (mut ledger, start) = ledger();
        let guard = object(Kind::ClusterNetworkPolicy, "guard", 1);
        ledger.findings(guard.clone(), vec![], start);
        ledger.programmed(Outcome::Taken, start, Duration::ZERO);
        assert_eq!(ledger.next_status(start), None, "it may change at once");
        let write = ledger.next_status(start + SETTLING).unwrap();
        assert_eq!((write.conditions[0].status, write.conditions[1].status), ("True", "True"));
        ledger.programmed(Outcome::Taken, start + SETTLING * 2, Duration::ZERO);
        assert_eq!(ledger.next_status(start + SETTLING * 9), None, "nothing changed");
        ledger.later(&guard, start + SETTLING * 20);
        assert_eq!(ledger.next_status(start + SETTLING * 19), None);
        assert!(ledger.next_status(start + SETTLING * 20).is_some());
        ledger.take_over(start + SETTLING * 21);
        assert!(ledger.next_status(start + SETTLING * 21).is_some());
    }

    #[test]
    fn a_refusal_concerns_what_is_new() {
        let (mut ledger, start) = ledger();
        ledger.findings(object(Kind::ClusterNetworkPolicy, "old", 1), vec![], start);
        ledger.programmed(Outcome::Taken, start, Duration::ZERO);
        ledger.findings(object(Kind::ClusterNetworkPolicy, "new", 1), vec![], start);
        ledger.programmed(Outcome::Refused("no memory".to_owned()), start, Duration::ZERO);
        let later = start + SETTLING;
        let writes: Vec<StatusWrite> = std::iter::from_fn(|| ledger.next_status(later)).collect();
        let of = |name: &str| writes.iter().find(|w| *w.object.name == *name).unwrap().conditions[1].status;
        assert_eq!((of("old"), of("new")), ("True", "False"));
    }

    /// A policy whose earlier version was programmed is not told as programmed while nothing is known to be enforced.
    #[test]
    fn where_nothing_is_enforced_no_policy_is_programmed() {
        let (mut ledger, start) = ledger();
        ledger.findings(object(Kind::ClusterNetworkPolicy, "old", 1), vec![], start);
        ledger.programmed(Outcome::Taken, start, Duration::ZERO);
        ledger.programmed(Outcome::NotEnforced("owned".to_owned()), start, Duration::ZERO);
        let write = ledger.next_status(start + SETTLING).unwrap();
        assert_eq!((write.conditions[1].status, write.conditions[1].reason), ("False", "NotEnforced"));
        let Some(Post::Create(own)) = ledger.next_event(false, start) else { panic!("nothing told") };
        assert_eq!((own.reason, &*own.note), ("PoliciesNotEnforced", "owned"));
        // The kernel holds again what it held before, and still refuses the latest.
        ledger.programmed(Outcome::Refused("no memory".to_owned()), start, Duration::ZERO);
        ledger.programmed(Outcome::Taken, start, Duration::ZERO);
        assert_eq!(ledger.next_status(start + SETTLING).unwrap().conditions[1].status, "True");
    }

    #[test]
    fn objects_are_the_leaders_and_the_node_is_ours() {
        let (mut ledger, start) = ledger();
        ledger.findings(object(Kind::NetworkPolicy, "bad", 1), broken(), start);
        ledger.programmed(Outcome::Refused("no memory".to_owned()), start, Duration::from_secs(9));
        assert_eq!(ledger.next_event(false, start), None, "told later, if it lasts");
        let Some(Post::Create(own)) = ledger.next_event(false, start + Duration::from_secs(9)) else {
            panic!("nothing told")
        };
        assert_eq!(
            (own.about.kind, own.reason, &*own.note),
            (Kind::Node, "PoliciesNotProgrammed", "no memory")
        );
        ledger.programmed(Outcome::Taken, start, Duration::ZERO);
        let Some(Post::Create(theirs)) = ledger.next_event(true, start) else { panic!("nothing told") };
        assert_eq!((&*theirs.about.name, &*theirs.note), ("bad", "error: no known tier"));
    }

    #[test]
    fn a_policy_that_asks_for_too_much_is_told_by_every_node_that_closes_pods_for_it() {
        let (mut ledger, start) = ledger();
        let greedy = object(Kind::NetworkPolicy, "greedy", 0);
        let all = || vec![(greedy.clone(), "2 pods are closed".to_owned())];
        ledger.over_budget(all(), start, Duration::from_secs(9));
        assert_eq!(ledger.next_event(false, start), None, "not all nodes at once");
        ledger.over_budget(all(), start + Duration::from_secs(5), Duration::from_secs(9));
        let Some(Post::Create(notice)) = ledger.next_event(false, start + Duration::from_secs(9)) else {
            panic!("nothing told")
        };
        assert_eq!((notice.reason, &*notice.note), ("OverBudget", "2 pods are closed"));
        ledger.posted(notice, "event-1".to_owned(), 1, start + Duration::from_secs(9));
        ledger.over_budget(vec![], start, Duration::ZERO);
        assert_eq!(ledger.next_event(false, start + Duration::from_secs(9000)), None, "it is smaller now");
        assert!(ledger.over_budget.is_empty());
    }

    #[test]
    fn what_is_gone_or_healed_takes_no_memory() {
        let (mut ledger, start) = ledger();
        ledger.findings(object(Kind::NetworkPolicy, "bad", 1), broken(), start);
        ledger.findings(object(Kind::NetworkPolicy, "bad", 2), vec![], start);
        ledger.findings(object(Kind::ClusterNetworkPolicy, "guard", 1), vec![], start);
        let gone = ObjectRef { uid: "".into(), ..object(Kind::ClusterNetworkPolicy, "guard", 0) };
        ledger.findings(gone, vec![], start);
        assert!(ledger.entries.is_empty());
    }
}
