//! The labels of the metrics.

use palisade_api::ResourceKind;
use palisade_policy::{Direction, PolicyKey};
use prometheus_client::encoding::EncodeLabelSet;

/// The kind of an object, as in the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// For example `NetworkPolicy`.
    pub kind: &'static str,
}

impl From<ResourceKind> for KindLabel {
    fn from(kind: ResourceKind) -> Self {
        Self { kind: kind.as_str() }
    }
}

/// The scope of a count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScopeLabel {
    /// `cluster` or `local`.
    pub scope: &'static str,
}

/// The direction, seen from the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabel {
    /// `ingress` or `egress`.
    pub direction: &'static str,
}

impl From<Direction> for DirectionLabel {
    fn from(direction: Direction) -> Self {
        Self { direction: direction_name(direction) }
    }
}

/// The result of a commit, or how a pod started.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// `ok` or `refused`; for pods `programmed`, `closed`, `open` …
    pub result: &'static str,
}

/// The part of the agent in which an error occurred.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    /// `source`, `commit`, `connections`, `drift`, …
    pub stage: &'static str,
}

/// The direction of a drop and the policy at fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropLabels {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// The policy's kind.
    pub kind: String,
    /// Its namespace; empty for cluster-wide ones.
    pub namespace: String,
    /// Its name.
    pub policy: String,
}

impl DropLabels {
    /// The labels of a drop by a policy.
    #[must_use]
    pub fn of(direction: Direction, policy: &PolicyKey) -> Self {
        Self {
            direction: direction_name(direction),
            kind: policy.kind.to_string(),
            namespace: policy.namespace.to_string(),
            policy: policy.name.to_string(),
        }
    }

    /// The labels of a drop for which no policy was determined.
    #[must_use]
    pub fn unknown(direction: Direction) -> Self {
        let none = String::new;
        Self { direction: direction_name(direction), kind: none(), namespace: none(), policy: none() }
    }
}

/// The direction of a denied packet, and the workloads at its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkloadLabels {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// The namespace of the sender; empty unless it is a pod.
    pub source_namespace: String,
    /// The sender's workload, such as `Deployment/web`; `node`, `outside`, or `other`.
    pub source_workload: String,
    /// The namespace of the receiver; empty unless it is a pod.
    pub destination_namespace: String,
    /// The receiver's workload, likewise.
    pub destination_workload: String,
}

impl WorkloadLabels {
    /// What the workloads of pairs without series of their own are called.
    const OTHER: &str = "other";

    /// The labels of packets whose pair has no series of its own, or is unknown.
    #[must_use]
    pub fn all_other(direction: Direction) -> Self {
        Self::other_of(direction_name(direction))
    }

    /// The labels of packets of this pair if it has no series of its own.
    #[must_use]
    pub fn other(&self) -> Self {
        Self::other_of(self.direction)
    }

    fn other_of(direction: &'static str) -> Self {
        Self {
            direction,
            source_namespace: String::new(),
            source_workload: Self::OTHER.to_owned(),
            destination_namespace: String::new(),
            destination_workload: Self::OTHER.to_owned(),
        }
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
