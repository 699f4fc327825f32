//! What a Kubernetes network policy means.
//!
//! This crate is the one place where a policy has a meaning: the command line, the agent and the lab all ask it.
//! It is pure: no I/O, no clock, no async, no `unsafe`, and no knowledge of YAML or of Kubernetes clients.
//!
//! * [`Cluster`] is what is known of the world, [`Change`] one edit of it.
//! * [`reference::decide`] decides one [`Flow`] the way the specification reads: short, obvious, slow.
//! * [`compile::Compiler`] turns the same cluster into a [`NodePlan`], incrementally, and says what changed as a [`Delta`].
//!
//! Rule sources named in the documentation ("SEMANTICS A.8") are the sections of the project's semantics document.

#![forbid(unsafe_code)]

use std::sync::Arc;

pub mod address;
mod address_set;
mod cluster;
mod compile;
mod flow;
mod intern;
mod labels;
mod near;
mod plan;
mod pods;
mod question;
pub mod reference;
mod rules;
mod traffic;
pub mod walk;

pub use address::{Family, IpRange};
pub use address_set::AddressSet;
pub use cluster::{
    Change, Cluster, ContainerPort, NAMESPACE_NAME_LABEL, Namespace, Node, ObjectKey, Phase, Pod, Service,
    ServicePort, TargetPort, Workload,
};
pub use compile::{Budget, Compiler, EffectiveRules, Limit, OverBudget};
pub use flow::{Decision, Direction, Endpoint, Flow, Missing, NearMiss, Reason, RuleRef, Side, Verdict};
pub use intern::Interner;
pub use labels::{Labels, Requirement, Selector, Test};
pub use plan::{
    AddressChanges, Delta, MemberChanges, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId,
};
pub use pods::Pods;
pub use rules::{
    Action, IpBlock, NamespaceMatch, Origin, Peer, PeerEntry, PodMatch, Policy, PolicyKey, PortEntry,
    PortMatch, Rule, Tier,
};
pub use traffic::{PortSet, Protocol, Traffic};

/// A name, a label key or a label value: shared, immutable text.
pub type Name = Arc<str>;
