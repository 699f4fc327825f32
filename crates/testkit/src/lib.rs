//! Random clusters, changes and flows, designed to collide.
//!
//! One generator serves the property tests, the benchmarks and the lab's fuzzer. It is deterministic: the same seed and
//! [`Shape`] give the same values, so a seed is a bug report.
//!
//! A random cluster is only useful if its parts interact. So the vocabulary is tiny: a few label keys with a few
//! values, the empty value included; a few port names with different numbers on different pods; CIDRs cut around the
//! addresses of pods, nodes and outside hosts. All special cases of the semantics occur: contradictory selectors,
//! undeclared namespaces (SEMANTICS G-22), finished pods whose address another pod has (G-10), host-network pods (G-4),
//! ends without a common family (G-27), addresses of pods that were learned for a name (C39).
//!
//! * [`cluster`] makes a cluster, [`change`] a change of one, [`flows`] connections to decide.
//! * [`shrink`] reduces a cluster that shows a fault, [`describe`] prints it; [`hold`] does both if a property is
//!   violated.
//! * [`seeds`] yields the fixed seeds of a test and a fresh one.
//! * [`runtime`] plays a container runtime for an agent.

pub use fastrand::Rng;

use palisade_policy::Cluster;

mod change;
mod describe;
mod flow;
mod hold;
pub mod hostile;
mod learned;
mod mode;
mod plain;
mod pod;
mod policy;
mod realistic;
#[cfg(unix)]
pub mod runtime;
mod seeds;
mod shape;
mod shrink;
mod vocabulary;

pub use change::change;
pub use describe::describe;
pub use flow::{endpoints, flows, traffic};
pub use hold::hold;
pub use mode::{audit_some, mode_change, without_audited};
pub use plain::running_pod;
pub use realistic::{without_pods, workload_pod};
pub use seeds::{Seeds, seeds};
pub use shape::{Shape, Style};
pub use shrink::shrink;
pub use vocabulary::EXTERNALS;

/// Returns a random cluster of this shape.
#[must_use]
pub fn cluster(rng: &mut Rng, shape: &Shape) -> Cluster {
    if shape.style == Style::Realistic {
        return realistic::cluster(rng, shape);
    }
    let mut cluster = Cluster::default();
    for index in 0..rng.usize(shape.nodes.clone()) {
        let node = pod::node(rng, index);
        cluster.nodes.insert(node.name.clone(), node);
    }
    for index in 0..rng.usize(shape.namespaces.clone()) {
        let namespace = pod::namespace(rng, index);
        cluster.namespaces.insert(namespace.name.clone(), namespace);
    }
    for index in 0..rng.usize(shape.pods.clone()) {
        let pod = pod::pod(rng, shape.style, &cluster, index);
        cluster.pods.insert(pod);
    }
    // Without domain names, a seed gives the cluster that it gave before there were any.
    let learned = if *shape.learned.end() == 0 { 0 } else { rng.usize(shape.learned.clone()) };
    for _ in 0..learned {
        cluster.learned.extend(learned::learned(rng, &cluster).map(|new| (new.name.clone(), new)));
    }
    for index in 0..rng.usize(shape.policies.clone()) {
        let policy = policy::policy(rng, shape.style, &cluster, index);
        cluster.policies.insert(policy.key.clone(), policy.into());
    }
    // The lab probes services; elsewhere they matter little.
    let services = if shape.style == Style::BuildableTiered { 1..=3 } else { 0..=2 };
    for index in 0..rng.usize(services) {
        let service = pod::service(rng, &cluster, index);
        cluster.services.insert(service.key.clone(), service);
    }
    cluster
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use palisade_policy::{Family, Peer, PortMatch, Protocol, Test, Tier};

    fn clusters(shape: &Shape) -> impl Iterator<Item = Cluster> {
        (0..300).map(move |seed| cluster(&mut Rng::with_seed(seed), shape))
    }

    #[test]
    fn a_seed_determines_the_cluster() {
        for shape in [Shape::small(), Shape::strange(), Shape::medium(), Shape::realistic(200, 120)] {
            let make = |seed| cluster(&mut Rng::with_seed(seed), &shape);
            assert_eq!(make(7), make(7));
            assert_ne!(make(7), make(8));
        }
    }

    #[test]
    fn small_clusters_can_be_built() {
        for c in clusters(&Shape::small()).chain(clusters(&Shape::small_tiered())) {
            let mut taken = BTreeSet::new();
            for p in c.pods.values().filter(|p| p.is_running()) {
                assert!(p.node.as_ref().is_some_and(|n| c.nodes.contains_key(n)), "{}", p.key);
                assert!(p.addresses.iter().all(|a| taken.insert(*a)), "{} shares an address", p.key);
            }
        }
    }

    #[test]
    fn every_kind_of_cluster_wide_policy_occurs_and_priorities_tie() {
        let mut seen = BTreeSet::new();
        for c in clusters(&Shape::small_tiered()) {
            let wide: Vec<_> = c.policies.values().filter(|p| p.tier != Tier::Developer).collect();
            let mut see = |what: &str, when| {
                if when {
                    seen.insert(what.to_owned());
                }
            };
            see("NetworkPolicy beside them", !wide.is_empty() && wide.len() < c.policies.len());
            for p in &wide {
                see(&format!("{} in {:?}", p.key.kind, p.tier), true);
                for other in wide.iter().filter(|o| o.key != p.key && o.tier == p.tier) {
                    let kinds = if other.key.kind == p.key.kind { "one kind" } else { "two kinds" };
                    see(&format!("tie of {kinds}"), other.priority == p.priority);
                }
                for r in [&p.ingress, &p.egress].into_iter().flatten().flatten() {
                    see(&format!("{:?}", r.action), true);
                    see("deny everything", r.peers.is_none());
                    for e in r.peers.iter().flatten() {
                        see("nodes", matches!(e.peer, Peer::Nodes(_)));
                        see("networks", matches!(e.peer, Peer::Block(_)));
                    }
                    for e in r.ports.iter().flatten() {
                        see("port name alone", matches!(e.port, PortMatch::Named { protocol: None, .. }));
                    }
                }
            }
        }
        let baseline =
            |c: &Cluster| c.policies.keys().filter(|k| &*k.kind == "BaselineAdminNetworkPolicy").count();
        assert!(clusters(&Shape::small_tiered()).all(|c| baseline(&c) <= 1), "there is one, named default");
        assert_eq!(seen.len(), 14, "{seen:?}");
    }

    #[test]
    fn everything_that_the_semantics_single_out_occurs() {
        let mut seen = BTreeSet::new();
        for c in clusters(&Shape::medium()) {
            let mut owners = std::collections::BTreeMap::new();
            for p in c.pods.values() {
                let mut see = |what, when| {
                    if when {
                        seen.insert(what);
                    }
                };
                see("host network", p.host_network);
                see("no address", p.addresses.is_empty());
                see("no node", p.node.is_none());
                see("undeclared namespace", !c.namespaces.contains_key(&p.key.namespace));
                see("dual stack", p.addresses.len() == 2);
                see("IPv6 alone", p.addresses.len() == 1 && p.address(Family::V6).is_some());
                see("name given twice", p.named_ports("web", Some(Protocol::Tcp)).count() > 1);
                for a in &p.addresses {
                    let (live, dead) = owners.entry(*a).or_insert((0, 0));
                    *(if p.is_running() { live } else { dead }) += 1;
                }
            }
            let mut see = |what, when| {
                if when {
                    seen.insert(what);
                }
            };
            see("address shared by running pods", owners.values().any(|(live, _)| *live > 1));
            see(
                "address of a finished pod in use",
                owners.values().any(|(live, dead)| *live > 0 && *dead > 0),
            );
            for p in c.policies.values() {
                see("policy in an undeclared namespace", !c.namespaces.contains_key(&p.key.namespace));
                for rules in [&p.ingress, &p.egress].into_iter().flatten() {
                    see("no rules", rules.is_empty());
                    for r in rules {
                        see("no peers", r.peers.is_none());
                        see("no ports", r.ports.is_none());
                        for e in r.peers.iter().flatten() {
                            let Peer::Block(b) = &e.peer else { continue };
                            see("everything", b.cidr.prefix_len() == 0);
                            see("single address", b.cidr.prefix_len() == b.cidr.max_prefix_len());
                            see("exceptions", !b.except.is_empty());
                            see("IPv6 block", Family::of_net(&b.cidr) == Family::V6);
                        }
                        for e in r.ports.iter().flatten() {
                            match &e.port {
                                PortMatch::Named { .. } => see("named port", true),
                                PortMatch::Numbers { first: 0, last: u16::MAX, .. } => {
                                    see("protocol alone", true);
                                }
                                PortMatch::Numbers { first, last, .. } => see("port range", first < last),
                            }
                        }
                    }
                }
                for r in p.subject.pods.requirements() {
                    see("In", matches!(r.test, Test::In(_)));
                    see("NotIn", matches!(r.test, Test::NotIn(_)));
                    see("Exists", matches!(r.test, Test::Exists));
                    see("DoesNotExist", matches!(r.test, Test::DoesNotExist));
                }
            }
        }
        assert_eq!(seen.len(), 24, "{seen:?}");
    }
}
