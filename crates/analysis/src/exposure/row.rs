//! Sets of pods with what they get.

use super::{pod_set::PodSet, pod_traffic::PodTraffic};

/// What the pods of a set get.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reached {
    /// What all of them get.
    pub all: PodTraffic,
    /// What at least one of them may get.
    pub some: PodTraffic,
}

/// Pods that may exist, and what they get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposureRow {
    /// The pods.
    pub set: PodSet,
    /// Whether there is a running pod of the set, other than the subject.
    pub exists: bool,
    /// What they get.
    pub reached: Reached,
    /// What those of them get that other rows contain, too.
    pub more: Vec<MoreTraffic>,
}

/// Traffic that some pods of a set get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoreTraffic {
    /// What they have beyond the set.
    pub condition: PodSet,
    /// The traffic that all of those get beyond the set.
    pub traffic: PodTraffic,
}
