//! Describes a policy: what it selects, which parts of it do nothing, and what would change without it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Direction, IpBlock, Name, NamespaceMatch, ObjectKey, Origin, Peer, PeerEntry, Pod, PodMatch,
    Policy, PolicyKey, PortMatch, Protocol, Rule, Selector,
};

use crate::{
    diff::{Diff, diff},
    end::WorkloadPods,
    exposure::{
        Coverage, CoveredPart, ExposureChange, ExposureOptions, PodSet, RuleAt, RulePart, Subject,
        exposure_change,
    },
};

/// The description of a policy.
#[derive(Clone, Debug)]
pub struct PolicyDescription {
    /// The policy.
    pub policy: std::sync::Arc<Policy>,
    /// The running pods that it selects, by workload, sorted.
    pub selects: Vec<WorkloadPods>,
    /// The host-network pods that its selector would match. It doesn't apply to them.
    pub host_network: Vec<ObjectKey>,
    /// The parts that do nothing: ingress first, by rule.
    pub idle: Vec<IdlePart>,
    /// The peers that stand for a pod only until it is replaced, because they are its address.
    pub pod_addresses: Vec<PodAddress>,
    /// What would change without it: `opened` is what it denies now.
    pub without: Diff,
    /// What would change without it for pods that may exist, for egress and ingress.
    pub exposure_without: [ExposureChange; 2],
}

/// A part of a policy that does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdlePart {
    /// The direction and index of the rule; `None` for the whole policy.
    pub rule: Option<(Direction, usize)>,
    /// The origin of the part.
    pub origin: Option<Origin>,
    /// What it is, and why it does nothing.
    pub reason: IdleReason,
}

/// A peer that is the address of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// The block.
    pub block: IpBlock,
    /// The pod.
    pub pod: ObjectKey,
    /// The origin of the peer.
    pub origin: Option<Origin>,
}

/// Why a part of a policy does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdleReason {
    /// The policy selects no running pod.
    SelectsNoPod,
    /// No pod can match the selector, because it contradicts itself.
    Contradiction(PodMatch),
    /// There is no namespace that the peer selects.
    NoNamespace(PodMatch),
    /// No pod in the namespaces that the peer selects has such labels.
    NoPod {
        /// The peer.
        peer: PodMatch,
        /// The namespaces that it selects and that exist, sorted.
        namespaces: Vec<Name>,
    },
    /// Only pods that use the network of their node have such labels, and selectors never match these (G-4).
    OnlyHostNetwork {
        /// The peer.
        peer: PodMatch,
        /// Such a pod.
        pod: ObjectKey,
    },
    /// There is no node with such labels.
    NoNode(Selector),
    /// No pod to which the name could refer has a port of that name.
    NoSuchPort {
        /// The name.
        name: Name,
        /// The protocol, if the rule states it.
        protocol: Option<Protocol>,
        /// The names of the ports that these pods have, sorted.
        known: Vec<Name>,
    },
    /// The block is the address of a Service: policies see the address of the pod behind it (SEMANTICS A.12, G-1).
    ServiceAddress {
        /// The block.
        block: IpBlock,
        /// The Service.
        service: ObjectKey,
    },
    /// Other rules match everything that the part matches.
    Covered {
        /// The part.
        part: CoveredWhat,
        /// The rules.
        by: Vec<RuleAt>,
    },
}

/// What other rules cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoveredWhat {
    /// The rule.
    Rule,
    /// A peer of it.
    Peer(Peer),
    /// A port of it.
    Port(PortMatch),
}

/// Describes a policy; `None` if the cluster has none of this key. Costs two computations of all connections.
#[must_use]
pub fn describe_policy(cluster: &Cluster, key: &PolicyKey) -> Option<PolicyDescription> {
    let policy = cluster.policies.get(key)?;
    let mut without = cluster.clone();
    without.policies.remove(key);
    let subjects = [Subject::Pods(policy.subject.clone()), Subject::Pods(policy.subject.clone())];
    let exposure_without = Direction::BOTH.map(|direction| {
        exposure_change([cluster, &without], &subjects, direction, &ExposureOptions::default())
    });
    let subject = &policy.subject;
    let host_network =
        candidates(cluster, subject).filter(|pod| pod.host_network && matches(cluster, subject, pod));
    Some(PolicyDescription {
        selects: selected_workloads(cluster, policy),
        host_network: host_network.map(|pod| pod.key.clone()).collect(),
        idle: IdleFinder::new(cluster).of(policy),
        pod_addresses: pod_addresses(cluster, policy),
        without: diff(cluster, &without),
        exposure_without,
        policy: policy.clone(),
    })
}

/// Finds the parts of policies that do nothing. What it needs of the cluster is found once for all policies.
pub struct IdleFinder<'c> {
    cluster: &'c Cluster,
    coverage: Coverage<'c>,
    /// Peers of several policies are often equal, and each may cost a look at all pods.
    unmatched: RefCell<HashMap<PodMatch, Option<IdleReason>>>,
}

impl<'c> IdleFinder<'c> {
    /// Makes a finder for the policies of a cluster. `O(namespaces)`; the first policy costs `O(policies)` more.
    #[must_use]
    pub fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, coverage: Coverage::new(cluster), unmatched: RefCell::default() }
    }

    /// Returns the parts of a policy of the cluster that do nothing: ingress first, by rule.
    #[must_use]
    pub fn of(&self, policy: &Policy) -> Vec<IdlePart> {
        IdleParts { cluster: self.cluster, policy, finder: self }.find()
    }
}

fn matches(cluster: &Cluster, choice: &PodMatch, pod: &Pod) -> bool {
    let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    choice.matches(&pod.key.namespace, labels, &pod.labels)
}

/// Iterates over the pods among which are all that a selector matches, sorted.
fn candidates<'c>(cluster: &'c Cluster, choice: &'c PodMatch) -> Box<dyn Iterator<Item = &'c Pod> + 'c> {
    match &choice.namespaces {
        NamespaceMatch::Named(name) => Box::new(cluster.pods.in_namespace(name)),
        NamespaceMatch::Selected(_) => Box::new(cluster.pods.values()),
    }
}

/// Returns the running pods that a policy selects, by workload.
pub(super) fn selected_workloads(cluster: &Cluster, policy: &Policy) -> Vec<WorkloadPods> {
    workloads_of(cluster, &policy.subject)
}

/// Returns the running pods that a selector matches, by workload, sorted. `O(pods)`; of a namespace if it names one.
#[must_use]
pub fn workloads_of(cluster: &Cluster, choice: &PodMatch) -> Vec<WorkloadPods> {
    type Workload = (Name, Name, Name);
    let workload_of = |pod: &Pod| -> Workload {
        let (name, kind) = match &pod.workload {
            Some(workload) => (workload.name.clone(), workload.kind.clone()),
            None => (pod.key.name.clone(), "Pod".into()),
        };
        (pod.key.namespace.clone(), name, kind)
    };
    let mut found: BTreeMap<Workload, (Vec<Name>, bool)> = BTreeMap::new();
    for pod in candidates(cluster, choice).filter(|p| p.is_running()) {
        let selected = matches(cluster, choice, pod);
        let (pods, whole) = found.entry(workload_of(pod)).or_insert_with(|| (Vec::new(), true));
        *whole &= selected;
        pods.extend(selected.then(|| pod.key.name.clone()));
    }
    let selected = found.into_iter().filter(|(_, (pods, _))| !pods.is_empty());
    let workload =
        |((namespace, name, kind), (pods, whole))| WorkloadPods { namespace, name, kind, pods, whole };
    selected.map(workload).collect()
}

fn single_address(block: &IpBlock) -> Option<IpAddr> {
    (block.cidr.prefix_len() == block.cidr.max_prefix_len()).then(|| block.cidr.addr())
}

/// Returns the peers that are the addresses of pods.
fn pod_addresses(cluster: &Cluster, policy: &Policy) -> Vec<PodAddress> {
    let rules = [Direction::Ingress, Direction::Egress].into_iter().filter_map(|d| policy.rules(d)).flatten();
    let peers = rules.filter_map(|rule| rule.peers.as_ref()).flatten();
    let of = |entry: &PeerEntry| {
        let Peer::Block(block) = &entry.peer else { return None };
        let pod = cluster.pod_at(single_address(block)?)?.key.clone();
        Some(PodAddress { block: block.clone(), pod, origin: entry.origin.clone() })
    };
    peers.filter_map(of).collect()
}

struct IdleParts<'a, 'c> {
    cluster: &'a Cluster,
    policy: &'a Policy,
    finder: &'a IdleFinder<'c>,
}

impl<'a> IdleParts<'a, '_> {
    fn find(&self) -> Vec<IdlePart> {
        let part = |reason| IdlePart { rule: None, origin: self.policy.origin.clone(), reason };
        if PodSet::of(&self.policy.subject).is_none() {
            return vec![part(IdleReason::Contradiction(self.policy.subject.clone()))];
        }
        let mut out = Vec::new();
        if self.selected().next().is_none() {
            out.push(part(IdleReason::SelectsNoPod));
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let rules = self.policy.rules(direction).unwrap_or_default();
            let covered = self.finder.coverage.of(self.policy, direction);
            for (index, rule) in rules.iter().enumerate() {
                let own = covered.iter().filter(|part| part.rule == index);
                out.extend(own.map(|part| covered_part(rule, part)));
                self.unmatched(direction, index, rule, &mut out);
            }
        }
        out
    }

    fn selected(&self) -> impl Iterator<Item = &'a Pod> {
        let (cluster, subject) = (self.cluster, &self.policy.subject);
        candidates(cluster, subject).filter(move |pod| pod.is_running() && matches(cluster, subject, pod))
    }

    /// Adds the peers and ports of a rule that match nothing that exists.
    fn unmatched(&self, direction: Direction, index: usize, rule: &Rule, out: &mut Vec<IdlePart>) {
        for entry in rule.peers.iter().flatten() {
            if let Some(reason) = self.unmatched_peer(&entry.peer) {
                let origin = entry.origin.clone().or_else(|| rule.origin.clone());
                out.push(IdlePart { rule: Some((direction, index)), origin, reason });
            }
        }
        for entry in rule.ports.iter().flatten() {
            if let PortMatch::Named { name, protocol } = &entry.port
                && let Some(known) = self.ports_without(direction, rule, name, *protocol)
            {
                let reason = IdleReason::NoSuchPort { name: name.clone(), protocol: *protocol, known };
                let origin = entry.origin.clone().or_else(|| rule.origin.clone());
                out.push(IdlePart { rule: Some((direction, index)), origin, reason });
            }
        }
    }

    fn unmatched_peer(&self, peer: &Peer) -> Option<IdleReason> {
        match peer {
            Peer::Pods(choice) => {
                let mut known = self.finder.unmatched.borrow_mut();
                known.entry(choice.clone()).or_insert_with(|| self.unmatched_pods(choice)).clone()
            }
            Peer::Nodes(selector) => {
                let found = self.cluster.nodes.values().any(|node| selector.matches(&node.labels));
                // Without Node objects nothing is known about nodes.
                let known = !self.cluster.nodes.is_empty();
                (known && !found).then(|| IdleReason::NoNode(selector.clone()))
            }
            Peer::Block(block) => self.service_address(block),
            Peer::DomainName(_) => None,
        }
    }

    fn unmatched_pods(&self, choice: &PodMatch) -> Option<IdleReason> {
        if PodSet::of(choice).is_none() {
            return Some(IdleReason::Contradiction(choice.clone()));
        }
        let all = || candidates(self.cluster, choice).filter(|pod| matches(self.cluster, choice, pod));
        if all().any(Pod::is_running) {
            return None;
        }
        if let Some(pod) = all().find(|pod| pod.host_network) {
            return Some(IdleReason::OnlyHostNetwork { peer: choice.clone(), pod: pod.key.clone() });
        }
        let namespaces: Vec<Name> = match &choice.namespaces {
            NamespaceMatch::Named(name) => {
                self.cluster.namespaces.keys().filter(|n| *n == name).cloned().collect()
            }
            NamespaceMatch::Selected(selector) => {
                let selected = self.cluster.namespaces.values().filter(|n| selector.matches(&n.labels));
                selected.map(|n| n.name.clone()).collect()
            }
        };
        Some(match namespaces.is_empty() {
            true => IdleReason::NoNamespace(choice.clone()),
            false => IdleReason::NoPod { peer: choice.clone(), namespaces },
        })
    }

    /// Returns the reason if a block is the address of a Service.
    fn service_address(&self, block: &IpBlock) -> Option<IdleReason> {
        let address = single_address(block)?;
        let service = self.cluster.services.values().find(|s| s.addresses.contains(&address))?;
        Some(IdleReason::ServiceAddress { block: block.clone(), service: service.key.clone() })
    }

    /// Returns the names of the ports of the pods to which a port name refers, if none of these pods has it and there
    /// are such pods: the selected pods for ingress, the peers for egress.
    fn ports_without(
        &self,
        direction: Direction,
        rule: &Rule,
        name: &str,
        protocol: Option<Protocol>,
    ) -> Option<Vec<Name>> {
        let pods: Vec<&Pod> = match direction {
            Direction::Ingress => self.selected().collect(),
            Direction::Egress => {
                let is_peer = |pod: &&Pod| {
                    let peer = |peer: &Peer| match peer {
                        Peer::Pods(choice) => matches(self.cluster, choice, pod),
                        Peer::Block(block) => pod.addresses.iter().any(|a| block.contains(*a)),
                        Peer::Nodes(_) | Peer::DomainName(_) => false,
                    };
                    pod.is_running()
                        && rule.peers.as_ref().is_none_or(|all| all.iter().any(|e| peer(&e.peer)))
                };
                self.cluster.pods.values().filter(is_peer).collect()
            }
        };
        let has = |pod: &&&Pod| pod.named_ports(name, protocol).next().is_some();
        if pods.is_empty() || pods.iter().any(|pod| has(&pod)) {
            return None;
        }
        let names = pods.iter().flat_map(|pod| pod.ports.iter()).filter_map(|port| port.name.clone());
        Some(names.collect::<BTreeSet<Name>>().into_iter().collect())
    }
}

fn covered_part(rule: &Rule, part: &CoveredPart) -> IdlePart {
    let peer = |at: usize| rule.peers.as_ref().and_then(|all| all.get(at));
    let port = |at: usize| rule.ports.as_ref().and_then(|all| all.get(at));
    let (what, origin) = match part.part {
        RulePart::Whole => (Some(CoveredWhat::Rule), None),
        RulePart::Peer(at) => {
            (peer(at).map(|e| CoveredWhat::Peer(e.peer.clone())), peer(at).and_then(|e| e.origin.clone()))
        }
        RulePart::Port(at) => {
            (port(at).map(|e| CoveredWhat::Port(e.port.clone())), port(at).and_then(|e| e.origin.clone()))
        }
    };
    let reason = IdleReason::Covered { part: what.unwrap_or(CoveredWhat::Rule), by: part.by.clone() };
    let origin = origin.or_else(|| rule.origin.clone());
    IdlePart { rule: Some((part.direction, part.rule)), origin, reason }
}
