//! Audit mode: policies that decide nothing, and what they would deny.
//!
//! The *enforced verdict* of a connection leaves policies in audit mode out. Its *audit verdict* is that of the same
//! cluster with every policy enforced. A connection is *audited* if the first allows it and the second denies it.

use crate::{Cluster, Mode, Name, Policy, mode::MODE_KEY};

/// Which policies decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deciding {
    /// Those in [`Mode::Enforce`].
    Enforced,
    /// All, as if none were in audit mode.
    All,
}

impl Cluster {
    /// Returns the mode of a policy: its own, else that of its namespace's label, else [`Cluster::mode`]. A namespace's
    /// label has no effect on cluster-wide policies. `O(log namespaces)`.
    #[must_use]
    pub fn mode_of(&self, policy: &Policy) -> Mode {
        policy.mode.or_else(|| self.namespace_mode(&policy.key.namespace)).unwrap_or(self.mode)
    }

    /// Returns the mode that the label of a namespace sets for its NetworkPolicies.
    #[must_use]
    pub fn namespace_mode(&self, namespace: &Name) -> Option<Mode> {
        self.namespaces.get(namespace)?.labels.get(MODE_KEY).map(Mode::of_value)
    }

    /// Iterates over the policies that decide.
    pub fn deciding(&self, deciding: Deciding) -> impl Iterator<Item = &std::sync::Arc<Policy>> {
        self.policies
            .values()
            .filter(move |policy| deciding == Deciding::All || self.mode_of(policy) == Mode::Enforce)
    }

    /// Returns the cluster with every policy enforced. `O(policies)`; pods are shared.
    #[must_use]
    pub fn all_enforced(&self) -> Self {
        let mut out = self.clone();
        out.mode = Mode::Enforce;
        for policy in out.policies.values_mut() {
            if self.mode_of(policy) == Mode::Audit {
                std::sync::Arc::make_mut(policy).mode = Some(Mode::Enforce);
            }
        }
        out
    }

    /// Iterates over the policies in audit mode.
    pub fn audited(&self) -> impl Iterator<Item = &std::sync::Arc<Policy>> {
        self.policies.values().filter(|policy| self.mode_of(policy) == Mode::Audit)
    }
}
