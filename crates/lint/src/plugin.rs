//! What network plugins don't enforce.
//!
//! Only what a plugin's own documentation or issues say is here. A plugin that is not here is not known to ignore anything, which
//! is not the same as enforcing everything.

use std::fmt;

/// A network plugin of which it is known what it ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// Flannel without a policy controller beside it: "Flannel is focused on networking. For network policy, other projects
    /// such as Calico can be used" (README).
    Flannel,
    /// Weave Net 2.8.1, the last release, of January 2021: before `endPort` (Kubernetes 1.21) and cluster-wide policies; named
    /// ports make its controller fail (weaveworks/weave issues 3032 and 3785).
    Weave,
    /// Cilium: blocks match only what it does not manage (docs.cilium.io, "Caveats": differences from Kubernetes Network Policies).
    Cilium,
    /// The Amazon VPC CNI: "Network policies only apply either IPv4 or IPv6 addresses, but not both" (EKS user guide).
    AwsVpcCni,
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flannel => "Flannel",
            Self::Weave => "Weave Net",
            Self::Cilium => "Cilium",
            Self::AwsVpcCni => "Amazon VPC CNI",
        })
    }
}
