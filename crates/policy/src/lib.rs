//! The meaning of Kubernetes network policies.
//!
//! The meaning of a policy is defined in this crate only; the command line, the agent and the lab use it. The crate is
//! pure: no I/O, no clock, no async, no `unsafe`, and no dependency on YAML or Kubernetes clients.
//!
//! * [`Cluster`] is a snapshot of the objects that policies depend on, [`Change`] one edit of it.
//! * [`reference::decide`] decides one [`Flow`] the way the specification reads: short, obvious, slow.
//! * [`walk::walk`] does the same for sets of ports and reports every rule that it visits.
//! * [`Compiler`] compiles the same cluster to a [`NodePlan`], incrementally, and returns what changed as a [`Delta`].
//!
//! Comments name the source of a rule. "SEMANTICS A.8", or A27 alone, is a statement of the APIs' own documents
//! (docs/specification.md); "SEMANTICS G-5", or G-5 alone, is a choice that they leave open (docs/semantics.md).

#![forbid(unsafe_code)]

use std::sync::Arc;

pub mod address;
mod address_set;
mod addressing;
mod allow_source;
mod cluster;
mod compile;
mod deciding;
mod deny;
mod direction;
mod domain_name;
mod flow;
mod intern;
mod label_sets;
mod labels;
mod mode;
mod near;
mod object_key;
mod plan;
mod pod;
mod pods;
mod question;
pub mod reference;
mod rules;
mod service;
pub mod tiers;
mod traffic;
mod uid;
pub mod walk;

pub use address::{Family, IpRange};
pub use address_set::AddressSet;
pub use addressing::Addressing;
pub use allow_source::{
    ALLOW_SOURCE_KEY, ALLOW_SOURCE_WITHIN_KEY, AnnotatedSources, AnnotatedSourcesError, MAX_ANNOTATED_SOURCES,
};
pub use cluster::{Change, Cluster, NAMESPACE_NAME_LABEL, Namespace, Node};
pub use compile::{Budget, Compiler, EffectiveRules, Limit, OverBudget};
pub use deciding::Deciding;
pub use deny::{DENY_KEY, Deny};
pub use direction::Direction;
pub use domain_name::{DomainName, DomainPattern, LearnedName, MAX_DOMAIN_NAME};
pub use flow::{Decision, Endpoint, Flow, Missing, NearMiss, Reason, RuleRef, Side, Verdict};
pub use intern::Interner;
pub use label_sets::{LabelSet, LabelValues};
pub use labels::{Labels, Requirement, Selector, Test};
pub use mode::{MODE_KEY, Mode};
pub use object_key::ObjectKey;
pub use plan::{
    AddressChanges, AuditChanges, AuditPlan, BrokenPlan, Delta, MemberChanges, NodePlan, PeerSet, PeerSetId,
    PolicyTable, PolicyTableId,
};
pub use pod::{ContainerPort, Phase, Pod, Workload};
pub use pods::Pods;
pub use rules::{
    Action, IpBlock, NamespaceMatch, Origin, Peer, PeerEntry, PodMatch, Policy, PolicyKey, PortEntry,
    PortMatch, Rule, Tier,
};
pub use service::{EndpointPort, Service, ServiceAccess, ServiceEndpoints, ServicePort, TargetPort};
pub use traffic::{PortSet, Protocol, Traffic};
pub use uid::Uid;

/// A name, a label key or a label value: shared, immutable text.
pub type Name = Arc<str>;
