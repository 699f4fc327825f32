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
pub mod address_set;
pub mod cluster;
pub mod compile;
pub mod flow;
pub mod intern;
pub mod labels;
pub mod lookup;
pub mod near;
pub mod plan;
pub mod pods;
pub mod random;
pub mod reference;
pub mod regions;
pub mod routes;
pub mod rules;
pub mod traffic;
pub mod walk;

pub use address::{Family, IpRange};
pub use address_set::AddressSet;
pub use cluster::{
    Change, Cluster, ContainerPort, Namespace, Node, ObjectKey, Phase, Pod, Service, Workload,
};
pub use flow::{Decision, Direction, Endpoint, Flow, Side, Verdict};
pub use intern::Interner;
pub use labels::{Labels, Selector};
pub use plan::{Delta, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId};
pub use pods::Pods;
pub use rules::{Action, NamespaceMatch, Origin, Peer, Policy, PolicyKey, PortMatch, Rule, Tier};
pub use traffic::{PortSet, Protocol, Traffic};

/// A name, a label key or a label value: shared, immutable text.
pub type Name = Arc<str>;
