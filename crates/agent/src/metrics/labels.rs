//! The labels of the metrics.

use palisade_api::ResourceKind;
use palisade_policy::{Direction, PolicyKey};
use prometheus_client::encoding::EncodeLabelSet;

/// The kind of an object, in the API's spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// `NetworkPolicy`.
    pub kind: &'static str,
}

impl From<ResourceKind> for KindLabel {
    fn from(kind: ResourceKind) -> Self {
        Self { kind: kind.as_str() }
    }
}

/// Where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScopeLabel {
    /// `cluster` or `local`.
    pub scope: &'static str,
}

/// Which way, seen from the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabel {
    /// `ingress` or `egress`.
    pub direction: &'static str,
}

impl From<Direction> for DirectionLabel {
    fn from(direction: Direction) -> Self {
        Self { direction: direction_word(direction) }
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// `ok` or `refused`.
    pub result: &'static str,
}

/// Where something went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    /// `source`, `commit`, `connections`, `drift`, …
    pub stage: &'static str,
}

/// Who is to blame for a drop.
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
    /// For a drop that this policy is to blame for.
    #[must_use]
    pub fn of(direction: Direction, policy: &PolicyKey) -> Self {
        Self {
            direction: direction_word(direction),
            kind: policy.kind.to_string(),
            namespace: policy.namespace.to_string(),
            policy: policy.name.to_string(),
        }
    }

    /// For a drop of which nobody knows why.
    #[must_use]
    pub fn unknown(direction: Direction) -> Self {
        let none = String::new;
        Self { direction: direction_word(direction), kind: none(), namespace: none(), policy: none() }
    }
}

fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
