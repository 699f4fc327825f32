//! What a difference consists of: connections, ends, policies, and the edits that cause them.

use std::collections::BTreeMap;

use palisade_policy::{Direction, Name, ObjectKey, PodMatch, PolicyKey, Traffic};

use super::UndecidedChange;
use crate::{
    end::ConnectionEnd,
    exposure::{ExposureRow, PodTraffic},
    families::Families,
};

/// The differences between two clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The pairs of ends that exist on both sides and have different connections, sorted by ends.
    pub changes: Vec<ConnectionChange>,
    /// The workloads and nodes that were added or removed, with their connections, sorted.
    pub ends: Vec<EndChange>,
    /// What changes for pods that don't exist yet, if it was asked for.
    pub exposure: Vec<FutureChange>,
    /// The workloads that can reach the cluster's DNS servers on one side only, sorted.
    pub dns: Vec<DnsChange>,
    /// The policies that differ, whether or not this changes connections, by their keys after the change, or before it
    /// if they were removed.
    pub policies: BTreeMap<PolicyKey, PolicyEdit>,
    /// The traffic that routes require and policies deny after the change, but not before.
    pub blocked: Vec<NewlyBlocked>,
    /// The pairs of ends of which it is not known whether their connections differ, since that depends on addresses that
    /// are not known. Sorted by ends.
    pub undecided: Vec<UndecidedChange>,
    /// Whether a side has running pods. Without any, only pods that don't exist yet are compared.
    pub has_pods: bool,
}

impl Diff {
    /// Returns whether every connection is the same, also those of pods that don't exist yet. Policies may differ all
    /// the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.changes.is_empty() && self.ends.is_empty() && self.exposure.is_empty()
    }

    /// Returns the policies that changed and cause no difference; and those that select no pod, if there are pods, since
    /// they only matter for pods that don't exist yet.
    pub fn policies_without_effect(&self) -> impl Iterator<Item = (&PolicyKey, &PolicyEdit)> {
        let is_cause = |key: &PolicyKey| {
            let causes = self.changes.iter().flat_map(|c| &c.causes).map(|cause| &cause.edit);
            let causes = causes.chain(self.exposure.iter().flat_map(|change| &change.causes));
            causes.into_iter().any(|edit| matches!(edit, Edit::Policy(k) if k == key))
        };
        self.policies.iter().filter(move |(key, edit)| {
            let idle = self.has_pods && edit.pods == [0, 0];
            edit.change != PolicyChange::Renamed && (idle || !is_cause(key))
        })
    }
}

/// A pair of ends with different connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionChange {
    /// The client.
    pub from: ConnectionEnd,
    /// The server.
    pub to: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The traffic that is newly allowed.
    pub opened: Traffic,
    /// The traffic that is no longer allowed.
    pub closed: Traffic,
    /// The edits whose reversal would undo the change: all of them together, and each alone unless several edits have
    /// the same effect. Sorted. Empty if other properties changed, such as the node or the phase of a pod.
    pub causes: Vec<Cause>,
}

/// An end that was added or removed. Its connections are no changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndChange {
    /// The workload, some pods of it, or nodes.
    pub end: ConnectionEnd,
    /// Whether it was added or removed.
    pub change: Presence,
    /// The ends that it can reach, or could reach if it was removed.
    pub sends: Vec<EndTraffic>,
    /// The ends that can or could reach it.
    pub receives: Vec<EndTraffic>,
}

/// Ends with the same traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndTraffic {
    /// The ends, sorted.
    pub ends: Vec<ConnectionEnd>,
    /// The IP families.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
}

/// What some pods may newly exchange with others, or no longer, where one side doesn't exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FutureChange {
    /// The pods to whose policies it is due, sorted.
    pub subjects: Vec<FuturePods>,
    /// The direction: ingress is to the subjects, egress from them.
    pub direction: Direction,
    /// Whether it is newly allowed; else it no longer is.
    pub opened: bool,
    /// The traffic with every pod, whatever its labels and namespace.
    pub any_pod: PodTraffic,
    /// The sets of pods with more traffic. For subjects that exist, only sets without running pods, unless no connection
    /// with the running ones changes.
    pub rows: Vec<ExposureRow>,
    /// The same as the sets that the rules select, of which the rows are parts. Some pods of a set may see no change, since
    /// they were or are allowed by other rules.
    pub sets: Vec<ExposureRow>,
    /// The ends that exist with which the traffic changes: for subjects that don't, external addresses and nodes; for pods
    /// of a namespace with other labels, all.
    pub ends: Vec<EndTraffic>,
    /// Whether the rows are exact, else there were too many sets to tell apart.
    pub exact: bool,
    /// The edits that cause it, sorted.
    pub causes: Vec<Edit>,
}

/// Pods whose policies change what they may exchange with pods that don't exist yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FuturePods {
    /// A workload that exists on both sides.
    Existing(ConnectionEnd),
    /// All pods that a selector selects. There are none yet.
    Selected(PodMatch),
}

/// Whether an end was added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// It exists only after the change.
    Added,
    /// It exists only before the change.
    Removed,
}

/// A workload that can reach DNS servers on one side only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsChange {
    /// The workload.
    pub end: ConnectionEnd,
    /// Whether it can reach them after the change; else it could before.
    pub opened: bool,
}

/// Traffic that routes require and policies deny after the change, but not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewlyBlocked {
    /// The destination.
    pub to: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
    /// The routes: indexes into the routes after the change.
    pub through: Vec<usize>,
}

/// A policy that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEdit {
    /// How it changed.
    pub change: PolicyChange,
    /// Its key before the change; `None` if it was added.
    pub before: Option<PolicyKey>,
    /// Its key after the change; `None` if it was removed.
    pub after: Option<PolicyKey>,
    /// The number of running pods that it selects, before and after.
    pub pods: [usize; 2],
}

/// How a policy changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyChange {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
    /// It was edited.
    Edited,
    /// It has another name and is otherwise the same.
    Renamed,
}

/// An edit that causes a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause {
    /// The edit.
    pub edit: Edit,
    /// The directions whose verdict it changes: egress of the source, ingress of the destination. Both are false for
    /// edits of routes and services, which no policy evaluates.
    pub directions: Directions,
}

/// A set of directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Directions {
    /// Egress.
    pub egress: bool,
    /// Ingress.
    pub ingress: bool,
}

impl Directions {
    /// Adds a direction.
    pub(crate) fn add(&mut self, direction: Direction) {
        match direction {
            Direction::Egress => self.egress = true,
            Direction::Ingress => self.ingress = true,
        }
    }
}

/// The smallest edit that can change a verdict: of one object, or of one label of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edit {
    /// A policy changed: a key of [`Diff::policies`].
    Policy(PolicyKey),
    /// A label was added, removed or changed.
    Label {
        /// The object.
        object: Labeled,
        /// The key.
        key: Name,
        /// The value before the change.
        before: Option<Name>,
        /// The value after the change.
        after: Option<Name>,
    },
    /// A namespace was added or removed.
    Namespace(Name, Presence),
    /// The ports of a workload's pods changed.
    Ports(WorkloadKey),
    /// The addresses of a workload's pods changed.
    Addresses(WorkloadKey),
    /// A service was added, removed or edited.
    Service(ObjectKey, ObjectChange),
    /// A route was added, removed or edited: its kind and key.
    Route(Name, ObjectKey, ObjectChange),
}

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectChange {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
    /// It was edited.
    Edited,
}

impl ObjectChange {
    /// Returns how an object changed that exists on these sides; `None` on no side.
    pub(crate) fn of<T>(before: Option<T>, after: Option<T>) -> Option<Self> {
        match (before, after) {
            (None, None) => None,
            (None, Some(_)) => Some(Self::Added),
            (Some(_), None) => Some(Self::Removed),
            (Some(_), Some(_)) => Some(Self::Edited),
        }
    }
}

/// An object whose labels policies refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Labeled {
    /// A namespace.
    Namespace(Name),
    /// The pods of a workload: its pod template, or a bare pod.
    Pods(WorkloadKey),
    /// A node.
    Node(Name),
}

/// Identifies a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// The kind, as the API spells it; `Pod` for a bare pod.
    pub kind: Name,
    /// Namespace and name.
    pub key: ObjectKey,
}
