//! Placeholders for the addresses that manifests don't give, and what is known about them.
//!
//! A Deployment doesn't say which addresses its pods get. Its pods get placeholders, one in each family of the cluster:
//! addresses that identify them and that no rule may decide by ([`palisade_policy::Addressing`]). The addresses that
//! they may really get come from `--pod-cidr` or from the nodes' `spec.podCIDRs`, else they may be any.

mod assign;
mod families;
mod hosts;
mod possible;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use palisade_policy::{Family, Name, ObjectKey};

pub use assign::assign_addresses;
pub use families::{FamilySource, FamilyWitness};

/// What a user says about the addresses of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPlan {
    /// The families of the cluster; `None`: those that the manifests show, or both if they show none.
    pub families: Option<Vec<Family>>,
    /// The ranges from which pods get their addresses, if they are known.
    pub pod_cidrs: Vec<IpNet>,
}

/// What manifests say about addresses, apart from the addresses that objects report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressEvidence {
    /// Pods whose status says that they have no address yet. They get no placeholder.
    pub awaiting: BTreeSet<ObjectKey>,
    /// The ranges of the pods of each node (`spec.podCIDRs`).
    pub pod_cidrs: BTreeMap<Name, Vec<IpNet>>,
    /// The families that Services name.
    pub service_families: BTreeSet<Family>,
}

/// The name of the node of host-network pods if there is no Node object.
pub const MADE_UP_NODE: &str = "made-up-node";
