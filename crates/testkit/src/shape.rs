//! What a random cluster is like: how large, and of which kind.

use std::ops::RangeInclusive;

/// The size and kind of a random cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of declared namespaces. One more occurs in pods and policies without being declared.
    pub namespaces: RangeInclusive<usize>,
    /// The number of pods, running or not.
    pub pods: RangeInclusive<usize>,
    /// The number of nodes.
    pub nodes: RangeInclusive<usize>,
    /// The number of policies.
    pub policies: RangeInclusive<usize>,
    /// The number of names for which addresses were learned. Only with some do rules have domain names.
    pub learned: RangeInclusive<usize>,
    /// The kind.
    pub style: Style,
}

/// The kind of a random cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Everything that the types can express: two running pods with one address, pods without address or node.
    Strange,
    /// As [`Self::Strange`], but it can be built: each running pod has its own addresses and a declared node.
    Buildable,
    /// As [`Self::Strange`], with cluster-wide policies before and after the NetworkPolicies.
    Tiered,
    /// As [`Self::Buildable`], with cluster-wide policies: for the lab.
    BuildableTiered,
    /// Like production: workloads of about fifty pods, a default deny in each namespace, selectors mostly within it.
    Realistic,
}

impl Style {
    /// Whether it may have what can't be built.
    pub(crate) fn is_strange(self) -> bool {
        matches!(self, Self::Strange | Self::Tiered)
    }

    /// Whether every running pod has a node and its own addresses.
    pub(crate) fn is_buildable(self) -> bool {
        matches!(self, Self::Buildable | Self::BuildableTiered)
    }

    /// Whether it has cluster-wide policies.
    pub(crate) fn is_tiered(self) -> bool {
        matches!(self, Self::Tiered | Self::BuildableTiered)
    }
}

impl Shape {
    /// A cluster that the lab builds quickly: two or three namespaces, four to eight pods, two nodes.
    #[must_use]
    pub fn small() -> Self {
        Self {
            namespaces: 2..=3,
            pods: 4..=8,
            nodes: 2..=2,
            policies: 1..=6,
            learned: 0..=0,
            style: Style::Buildable,
        }
    }

    /// The same size with cluster-wide policies of every kind, and a few more of them, so that tiers interact.
    #[must_use]
    pub fn small_tiered() -> Self {
        Self { policies: 2..=8, style: Style::BuildableTiered, ..Self::small() }
    }

    /// The same size with everything strange: for properties, where thousands of cases matter more than size.
    #[must_use]
    pub fn strange() -> Self {
        Self {
            namespaces: 1..=3,
            pods: 3..=9,
            nodes: 1..=3,
            policies: 0..=7,
            learned: 0..=0,
            style: Style::Strange,
        }
    }

    /// The same with cluster-wide policies.
    #[must_use]
    pub fn tiered() -> Self {
        Self { style: Style::Tiered, ..Self::strange() }
    }

    /// The same with rules that have domain names, and addresses that were learned for names.
    #[must_use]
    pub fn with_domain_names() -> Self {
        Self { policies: 2..=7, learned: 1..=5, ..Self::tiered() }
    }

    /// Enough of everything that most pairs of objects interact.
    #[must_use]
    pub fn medium() -> Self {
        Self {
            namespaces: 2..=5,
            pods: 10..=30,
            nodes: 1..=4,
            policies: 4..=25,
            learned: 0..=0,
            style: Style::Strange,
        }
    }

    /// A production cluster of this size, with a node for every hundred pods.
    #[must_use]
    pub fn realistic(pods: usize, policies: usize) -> Self {
        let nodes = pods.div_ceil(100).max(1);
        Self {
            namespaces: 50..=100,
            pods: pods..=pods,
            nodes: nodes..=nodes,
            policies: policies..=policies,
            learned: 0..=0,
            style: Style::Realistic,
        }
    }
}
