//! What has to be reported, by whom and when. Decides only, without I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use palisade_manifest::Diagnostic;
use palisade_policy::Name;
use tokio::time::Instant;

use super::{
    conditions::{Condition, Programmed, desired, findings_text, truncate},
    event_log::{EventLog, EventWrite, Problem},
};
use crate::{event::ObjectRef, resource::ResourceKind};

/// The API server refuses longer notes.
const MAX_NOTE: usize = 1024;
/// A change is reported after this time, since a policy is programmed a moment after its findings are known.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// How long the start of a pod without its policies may be reported. Shorter than the repeat interval of Events: it is reported once.
const POD_START_REPORTED: Duration = Duration::from_secs(45);
/// The most starts that wait to be reported.
const MAX_POD_STARTS: usize = 100;
/// The most pods with sources that are not allowed: a tenant may have many.
const MAX_REFUSED_SOURCES: usize = 20;

/// An object in whatever version.
type Key = (ResourceKind, Option<Name>, Name);

/// Whether the kernel enforces the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Enforcement {
    /// It enforces all of them.
    Programmed,
    /// It refused the latest change, for this reason, and enforces the state before it.
    Refused(String),
    /// It does not enforce them, or this is unknown, for this reason.
    NotEnforced(String),
}

/// The state that reports are made from. Its size is bounded by the number of objects with findings and of cluster-wide policies.
#[derive(Debug)]
pub(super) struct ReportQueue {
    node: Name,
    entries: BTreeMap<Key, Entry>,
    /// Why this node's kernel does not enforce everything, and when to report it.
    node_problem: Option<(Enforcement, Instant)>,
    /// Policies that exceed the node's budget: the description, and when to report it.
    over_budget: BTreeMap<ObjectRef, (String, Instant)>,
    /// Pods that started without their policies: the description, and until when it is reported.
    pod_starts: VecDeque<(ObjectRef, String, Instant)>,
    /// Pods that may not use all sources that they ask for: why.
    refused_sources: Vec<(ObjectRef, String)>,
    events: EventLog,
}

#[derive(Debug)]
struct Entry {
    object: ObjectRef,
    findings: Vec<Diagnostic>,
    programmed: Programmed,
    /// When to write its conditions; `None`: they are written.
    due: Option<Instant>,
}

/// The conditions that an object should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusWrite {
    pub(super) object: ObjectRef,
    pub(super) conditions: [Condition; 2],
}

impl ReportQueue {
    pub(super) fn new(node: Name, now: Instant) -> Self {
        Self {
            node,
            entries: BTreeMap::new(),
            node_problem: None,
            over_budget: BTreeMap::new(),
            pod_starts: VecDeque::new(),
            refused_sources: Vec::new(),
            events: EventLog::new(now),
        }
    }

    /// Replaces the findings of an object.
    pub(super) fn findings(&mut self, object: ObjectRef, findings: Vec<Diagnostic>, now: Instant) {
        let key = (object.kind, object.namespace.clone(), object.name.clone());
        let is_deleted = object.uid.is_empty();
        if is_deleted || (findings.is_empty() && !object.kind.is_cluster_wide_policy()) {
            self.entries.remove(&key);
            return;
        }
        let entry = Entry { object, findings, programmed: Programmed::Pending, due: Some(now + DEBOUNCE) };
        self.entries.insert(key, entry);
    }

    /// Sets whether the kernel enforces the objects so far. A problem is reported after `delay`, so that a thousand nodes with the same
    /// problem don't report it at once.
    pub(super) fn set_enforcement(&mut self, enforcement: Enforcement, now: Instant, delay: Duration) {
        for entry in self.entries.values_mut().filter(|e| e.object.kind.is_cluster_wide_policy()) {
            let next = match (&enforcement, &entry.programmed) {
                (Enforcement::Programmed, _) => Programmed::Yes,
                // A refused transaction changes nothing.
                (Enforcement::Refused(_), Programmed::Yes) => continue,
                (Enforcement::Refused(why), _) => Programmed::No(truncate(why, MAX_NOTE)),
                (Enforcement::NotEnforced(why), _) => Programmed::NotEnforced(truncate(why, MAX_NOTE)),
            };
            if entry.programmed != next {
                entry.programmed = next;
                entry.due = Some(now + DEBOUNCE);
            }
        }
        self.node_problem = match (enforcement, self.node_problem.take()) {
            (Enforcement::Programmed, _) => None,
            (problem, Some((_, at))) => Some((problem, at)),
            (problem, None) => Some((problem, now + delay)),
        };
    }

    /// Sets all policies that exceed the node's budget. A new one is reported after `delay`.
    pub(super) fn over_budget(&mut self, policies: Vec<(ObjectRef, String)>, now: Instant, delay: Duration) {
        let mut before = std::mem::take(&mut self.over_budget);
        for (object, why) in policies {
            let at = before.remove(&object).map_or(now + delay, |(_, at)| at);
            self.over_budget.insert(object, (why, at));
        }
    }

    /// Adds a pod that started without its policies. Of many, the oldest are not reported.
    pub(super) fn refused_sources(&mut self, mut pods: Vec<(ObjectRef, String)>) {
        pods.truncate(MAX_REFUSED_SOURCES);
        self.refused_sources = pods;
    }

    pub(super) fn pod_start(&mut self, pod: ObjectRef, why: String, now: Instant) {
        self.pod_starts.push_back((pod, why, now + POD_START_REPORTED));
        if self.pod_starts.len() > MAX_POD_STARTS {
            self.pod_starts.pop_front();
        }
    }

    /// Makes all conditions due. Another agent has written them so far.
    pub(super) fn become_leader(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.due = Some(now);
        }
    }

    /// Returns the next conditions to write. They count as written unless [`ReportQueue::retry_status`] is called.
    pub(super) fn next_status(&mut self, now: Instant) -> Option<StatusWrite> {
        let is_due =
            |e: &&mut Entry| e.object.kind.is_cluster_wide_policy() && e.due.is_some_and(|due| due <= now);
        let entry = self.entries.values_mut().find(is_due)?;
        entry.due = None;
        let conditions = desired(&entry.findings, &entry.programmed);
        Some(StatusWrite { object: entry.object.clone(), conditions })
    }

    /// Makes the conditions of an object due again at `at`, after a failure.
    pub(super) fn retry_status(&mut self, object: &ObjectRef, at: Instant) {
        let key = (object.kind, object.namespace.clone(), object.name.clone());
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = Some(entry.due.map_or(at, |due| due.max(at)));
        }
    }

    /// Returns the next Event to write. The leader reports problems with objects, each agent the problems of its node.
    pub(super) fn next_event(&mut self, is_leader: bool, now: Instant) -> Option<EventWrite> {
        let mut problems = Vec::new();
        let node_problem = match self.node_problem.as_ref().filter(|(_, at)| *at <= now) {
            Some((Enforcement::Refused(why), _)) => Some(("PoliciesNotProgrammed", why)),
            Some((Enforcement::NotEnforced(why), _)) => Some(("PoliciesNotEnforced", why)),
            Some((Enforcement::Programmed, _)) | None => None,
        };
        if let Some((reason, why)) = node_problem {
            problems.push(Problem {
                about: ObjectRef {
                    kind: ResourceKind::Node,
                    namespace: None,
                    name: self.node.clone(),
                    // As in the kubelet's Events about its node.
                    uid: self.node.clone(),
                    generation: 0,
                },
                reason,
                note: truncate(why, MAX_NOTE),
            });
        }
        let due = self.over_budget.iter().filter(|(_, (_, at))| *at <= now);
        problems.extend(due.map(|(object, (why, _))| Problem {
            about: object.clone(),
            reason: "OverBudget",
            note: truncate(why, MAX_NOTE),
        }));
        self.pod_starts.retain(|(_, _, until)| *until > now);
        problems.extend(self.pod_starts.iter().map(|(pod, why, _)| Problem {
            about: pod.clone(),
            reason: "StartedWithoutPolicies",
            note: truncate(why, MAX_NOTE),
        }));
        problems.extend(self.refused_sources.iter().map(|(pod, why)| Problem {
            about: pod.clone(),
            reason: "SourceNotAllowed",
            note: truncate(why, MAX_NOTE),
        }));
        if is_leader {
            let with_findings = self.entries.values().filter(|e| !e.findings.is_empty());
            problems.extend(with_findings.map(|e| Problem {
                about: e.object.clone(),
                reason: "Unusable",
                note: findings_text(&e.findings, MAX_NOTE),
            }));
        }
        self.events.next(&problems, now)
    }

    /// The Event of this name was written.
    pub(super) fn event_sent(&mut self, problem: Problem, event: String, count: i32, now: Instant) {
        self.events.sent(problem, event, count, now);
    }

    /// The server no longer has the Event of this problem.
    pub(super) fn forget_event(&mut self, problem: &Problem) {
        self.events.forget(problem);
    }
}

#[cfg(test)]
mod tests {
    use palisade_manifest::{Code, Severity};

    use super::*;

    fn object(kind: ResourceKind, name: &str, generation: i64) -> ObjectRef {
        ObjectRef { kind, namespace: None, name: name.into(), uid: "u".into(), generation }
    }

    fn broken() -> Vec<Diagnostic> {
        vec![Diagnostic::new(Severity::Error, Code::Invalid, "no known tier")]
    }

    fn queue() -> (ReportQueue, Instant) {
        let now = Instant::now();
        (ReportQueue::new("node-1".into(), now), now)
    }

    #[test]
    fn a_policy_is_written_once_it_is_programmed_and_again_when_that_changes() {
        let (mut queue, start) = queue();
        let guard = object(ResourceKind::ClusterNetworkPolicy, "guard", 1);
        queue.findings(guard.clone(), vec![], start);
        queue.set_enforcement(Enforcement::Programmed, start, Duration::ZERO);
        assert_eq!(queue.next_status(start), None, "it may change again");
        let write = queue.next_status(start + DEBOUNCE).unwrap();
        assert_eq!((write.conditions[0].status, write.conditions[1].status), ("True", "True"));
        queue.set_enforcement(Enforcement::Programmed, start + DEBOUNCE * 2, Duration::ZERO);
        assert_eq!(queue.next_status(start + DEBOUNCE * 9), None, "nothing changed");
        queue.retry_status(&guard, start + DEBOUNCE * 20);
        assert_eq!(queue.next_status(start + DEBOUNCE * 19), None);
        assert!(queue.next_status(start + DEBOUNCE * 20).is_some());
        queue.become_leader(start + DEBOUNCE * 21);
        assert!(queue.next_status(start + DEBOUNCE * 21).is_some());
    }

    #[test]
    fn a_refused_change_affects_new_policies_only() {
        let (mut queue, start) = queue();
        queue.findings(object(ResourceKind::ClusterNetworkPolicy, "old", 1), vec![], start);
        queue.set_enforcement(Enforcement::Programmed, start, Duration::ZERO);
        queue.findings(object(ResourceKind::ClusterNetworkPolicy, "new", 1), vec![], start);
        queue.set_enforcement(Enforcement::Refused("no memory".to_owned()), start, Duration::ZERO);
        let later = start + DEBOUNCE;
        let writes: Vec<StatusWrite> = std::iter::from_fn(|| queue.next_status(later)).collect();
        let of = |name: &str| writes.iter().find(|w| *w.object.name == *name).unwrap().conditions[1].status;
        assert_eq!((of("old"), of("new")), ("True", "False"));
    }

    /// A policy whose earlier version was programmed is not reported as programmed while it is unknown whether anything is enforced.
    #[test]
    fn without_enforcement_no_policy_is_programmed() {
        let (mut queue, start) = queue();
        queue.findings(object(ResourceKind::ClusterNetworkPolicy, "old", 1), vec![], start);
        queue.set_enforcement(Enforcement::Programmed, start, Duration::ZERO);
        queue.set_enforcement(Enforcement::NotEnforced("owned".to_owned()), start, Duration::ZERO);
        let write = queue.next_status(start + DEBOUNCE).unwrap();
        assert_eq!((write.conditions[1].status, write.conditions[1].reason), ("False", "NotEnforced"));
        let Some(EventWrite::Create(own)) = queue.next_event(false, start) else { panic!("no Event") };
        assert_eq!((own.reason, &*own.note), ("PoliciesNotEnforced", "owned"));
        // The kernel has the earlier state again and still refuses the latest change.
        queue.set_enforcement(Enforcement::Refused("no memory".to_owned()), start, Duration::ZERO);
        queue.set_enforcement(Enforcement::Programmed, start, Duration::ZERO);
        assert_eq!(queue.next_status(start + DEBOUNCE).unwrap().conditions[1].status, "True");
    }

    #[test]
    fn a_pod_that_started_without_its_policies_is_reported_once_and_not_forever() {
        let (mut queue, start) = queue();
        for n in 0..MAX_POD_STARTS + 5 {
            let pod = object(ResourceKind::Pod, &format!("pod-{n}"), 0);
            queue.pod_start(pod, "starts closed".to_owned(), start);
        }
        assert_eq!(queue.pod_starts.len(), MAX_POD_STARTS);
        let Some(EventWrite::Create(problem)) = queue.next_event(false, start) else { panic!("no Event") };
        assert_eq!((&*problem.about.name, problem.reason), ("pod-5", "StartedWithoutPolicies"));
        queue.event_sent(problem, "e".to_owned(), 1, start);
        let Some(EventWrite::Create(next)) = queue.next_event(false, start) else { panic!("no Event") };
        assert_eq!(&*next.about.name, "pod-6");
        assert_eq!(queue.next_event(false, start + POD_START_REPORTED), None);
    }

    #[test]
    fn the_leader_reports_objects_and_each_agent_its_node() {
        let (mut queue, start) = queue();
        queue.findings(object(ResourceKind::NetworkPolicy, "bad", 1), broken(), start);
        queue.set_enforcement(Enforcement::Refused("no memory".to_owned()), start, Duration::from_secs(9));
        assert_eq!(queue.next_event(false, start), None, "reported later if it persists");
        let Some(EventWrite::Create(own)) = queue.next_event(false, start + Duration::from_secs(9)) else {
            panic!("no Event")
        };
        assert_eq!(
            (own.about.kind, own.reason, &*own.note),
            (ResourceKind::Node, "PoliciesNotProgrammed", "no memory")
        );
        queue.set_enforcement(Enforcement::Programmed, start, Duration::ZERO);
        let Some(EventWrite::Create(theirs)) = queue.next_event(true, start) else { panic!("no Event") };
        assert_eq!((&*theirs.about.name, &*theirs.note), ("bad", "error: no known tier"));
    }

    #[test]
    fn every_node_reports_a_policy_that_exceeds_its_budget() {
        let (mut queue, start) = queue();
        let greedy = object(ResourceKind::NetworkPolicy, "greedy", 0);
        let policies = || vec![(greedy.clone(), "2 pods are closed".to_owned())];
        queue.over_budget(policies(), start, Duration::from_secs(9));
        assert_eq!(queue.next_event(false, start), None, "not all nodes report at once");
        queue.over_budget(policies(), start + Duration::from_secs(5), Duration::from_secs(9));
        let Some(EventWrite::Create(problem)) = queue.next_event(false, start + Duration::from_secs(9))
        else {
            panic!("no Event")
        };
        assert_eq!((problem.reason, &*problem.note), ("OverBudget", "2 pods are closed"));
        queue.event_sent(problem, "event-1".to_owned(), 1, start + Duration::from_secs(9));
        queue.over_budget(vec![], start, Duration::ZERO);
        assert_eq!(queue.next_event(false, start + Duration::from_secs(9000)), None, "it is smaller now");
        assert!(queue.over_budget.is_empty());
    }

    #[test]
    fn deleted_and_valid_objects_are_forgotten() {
        let (mut queue, start) = queue();
        queue.findings(object(ResourceKind::NetworkPolicy, "bad", 1), broken(), start);
        queue.findings(object(ResourceKind::NetworkPolicy, "bad", 2), vec![], start);
        queue.findings(object(ResourceKind::ClusterNetworkPolicy, "guard", 1), vec![], start);
        let deleted = ObjectRef { uid: "".into(), ..object(ResourceKind::ClusterNetworkPolicy, "guard", 0) };
        queue.findings(deleted, vec![], start);
        assert!(queue.entries.is_empty());
    }
}
