//! The edits that may matter for one connection, and the objects on either side of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{
    Cluster, Direction, DomainName, Endpoint, Family, Labels, LearnedName, Name, Namespace, NamespaceMatch,
    Node, Peer, Pod, Policy, PolicyKey, Selector, Workload,
};

use super::change::{Edit, Labeled, PolicyEdit, Presence, WorkloadKey};

/// The edits of a change, some of which are reversed.
#[derive(Clone, Copy)]
pub(super) struct Reversal<'a> {
    pub(super) edits: &'a [Edit],
    pub(super) reversed: &'a [bool],
}

impl Reversal<'_> {
    /// Returns whether an edit that passes a test is reversed.
    pub(super) fn has(self, test: impl Fn(&Edit) -> bool) -> bool {
        self.edits.iter().zip(self.reversed).any(|(edit, reversed)| *reversed && test(edit))
    }

    /// Returns the side of a policy.
    pub(super) fn policy<'c>(self, pair: &PolicyPair<'c>) -> Option<&'c Arc<Policy>> {
        let old = self.has(|edit| matches!((edit, &pair.changed), (Edit::Policy(a), Some(b)) if a == b));
        pair.sides[usize::from(!old)]
    }
}

/// A policy on both sides.
#[derive(Clone, Debug)]
pub(super) struct PolicyPair<'c> {
    /// Its key in [`super::Diff::policies`], if it changed.
    pub(super) changed: Option<PolicyKey>,
    pub(super) sides: [Option<&'c Arc<Policy>>; 2],
}

impl PolicyPair<'_> {
    pub(super) fn applies(&self, direction: Direction) -> bool {
        self.sides.iter().flatten().any(|policy| policy.rules(direction).is_some())
    }

    /// Returns whether some mixture of the labels of both sides is selected. A requirement refers to one key, so each
    /// can be met by either side.
    fn may_select(&self, subject: &PodPair<'_>) -> bool {
        let meets = |selector: &Selector, labels: [Option<&Labels>; 2]| {
            selector
                .requirements()
                .iter()
                .all(|r| labels.iter().any(|l| r.matches(l.unwrap_or(&Labels::default()))))
        };
        let namespaces = subject.namespaces.map(|n| n.map(|n| &n.labels));
        self.sides.iter().flatten().any(|policy| {
            let namespace = match &policy.subject.namespaces {
                NamespaceMatch::Named(name) => subject.pods.iter().any(|pod| pod.key.namespace == *name),
                NamespaceMatch::Selected(selector) => meets(selector, namespaces),
            };
            namespace && meets(&policy.subject.pods, subject.pods.map(|pod| Some(&pod.labels)))
        })
    }
}

/// The policies of two clusters, by the namespaces of their subjects.
pub(super) struct PolicyPairs<'c> {
    by_namespace: HashMap<&'c Name, Vec<PolicyPair<'c>>>,
    cluster_wide: Vec<PolicyPair<'c>>,
}

impl<'c> PolicyPairs<'c> {
    pub(super) fn new(clusters: [&'c Cluster; 2], edits: &BTreeMap<PolicyKey, PolicyEdit>) -> Self {
        let mut out = Self { by_namespace: HashMap::new(), cluster_wide: Vec::new() };
        let [before, after] = clusters.map(|c| &c.policies);
        let is_old_name = |key: &PolicyKey| edits.values().any(|e| e.before.as_ref() == Some(key));
        let unchanged = after.iter().filter(|(key, _)| !edits.contains_key(*key) && !is_old_name(key));
        // An unchanged policy is the same on both sides, except for positions.
        for (_, policy) in unchanged {
            out.add(PolicyPair { changed: None, sides: [Some(policy), Some(policy)] });
        }
        for (key, edit) in edits {
            let old = edit.before.as_ref().and_then(|key| before.get(key));
            let new = edit.after.as_ref().and_then(|key| after.get(key));
            out.add(PolicyPair { changed: Some(key.clone()), sides: [old, new] });
        }
        out
    }

    fn add(&mut self, pair: PolicyPair<'c>) {
        match pair.sides.into_iter().flatten().next().map(|p| &p.subject.namespaces) {
            Some(NamespaceMatch::Named(name)) => self.by_namespace.entry(name).or_default().push(pair),
            Some(NamespaceMatch::Selected(_)) => self.cluster_wide.push(pair),
            None => {}
        }
    }

    /// Returns the policies that may select a pod with the labels of either side, or of both mixed.
    pub(super) fn of(&self, subject: &PodPair<'_>) -> impl Iterator<Item = &PolicyPair<'c>> {
        let own = self.by_namespace.get(&subject.pods[0].key.namespace).into_iter().flatten();
        own.chain(&self.cluster_wide).filter(move |pair| pair.may_select(subject))
    }

    /// Returns the policies that may select a pod, all cluster-wide ones, and those of some namespaces.
    pub(super) fn of_pod_and_namespaces<'p>(
        &'p self,
        subject: &PodPair<'_>,
        namespaces: impl Iterator<Item = &'p Name>,
    ) -> Vec<&'p PolicyPair<'c>> {
        let own = &subject.pods[0].key.namespace;
        let namespaces: BTreeSet<&Name> = namespaces.filter(|name| *name != own).collect();
        let others = namespaces.into_iter().filter_map(|name| self.by_namespace.get(name)).flatten();
        let own = self.by_namespace.get(own).into_iter().flatten().filter(|pair| pair.may_select(subject));
        own.chain(others).chain(&self.cluster_wide).collect()
    }
}

/// Returns what `cluster` has learned about the addresses of some ends, if a policy has a rule by name. Rules by name look up
/// nothing else. `O(rules + learned names)`.
pub(super) fn learned_about(
    cluster: &Cluster,
    ends: &[EndPair<'_>],
    policies: &[&PolicyPair<'_>],
) -> BTreeMap<DomainName, LearnedName> {
    let policies = policies.iter().flat_map(|pair| pair.sides.iter().flatten());
    let rules = policies.flat_map(|policy| Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)));
    let mut peers = rules.flatten().flat_map(|rule| rule.peers.iter().flatten());
    if !peers.any(|entry| matches!(entry.peer, Peer::DomainName(_))) {
        return BTreeMap::new();
    }
    let of_ends = || ends.iter().flat_map(EndPair::addresses);
    let about = |learned: &LearnedName| LearnedName {
        name: learned.name.clone(),
        addresses: of_ends().filter(|address| learned.addresses.contains(address)).collect(),
    };
    let names = cluster.learned.iter().map(|(name, learned)| (name.clone(), about(learned)));
    names.filter(|(_, learned)| !learned.addresses.is_empty()).collect()
}

/// The keys of labels that policies of either side refer to.
#[derive(Default)]
pub(super) struct SelectedKeys {
    pods: BTreeSet<Name>,
    namespaces: BTreeSet<Name>,
    nodes: BTreeSet<Name>,
}

impl SelectedKeys {
    pub(super) fn new(clusters: [&Cluster; 2]) -> Self {
        fn add(keys: &mut BTreeSet<Name>, selector: &Selector) {
            for requirement in selector.requirements() {
                if !keys.contains(&requirement.key) {
                    keys.insert(requirement.key.clone());
                }
            }
        }
        let mut out = Self::default();
        for policy in clusters.into_iter().flat_map(|c| c.policies.values()) {
            let rules = Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten();
            let peers = rules.filter_map(|rule| rule.peers.as_ref()).flatten().map(|entry| &entry.peer);
            let mut choices = vec![&policy.subject];
            for peer in peers {
                match peer {
                    Peer::Pods(choice) => choices.push(choice),
                    Peer::Nodes(selector) => add(&mut out.nodes, selector),
                    Peer::Block(_) | Peer::DomainName(_) => {}
                }
            }
            for choice in choices {
                add(&mut out.pods, &choice.pods);
                if let NamespaceMatch::Selected(selector) = &choice.namespaces {
                    add(&mut out.namespaces, selector);
                }
            }
        }
        out
    }
}

/// A pod on both sides: the same one, or two that represent the same end.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodPair<'c> {
    pub(super) pods: [&'c Arc<Pod>; 2],
    pub(super) namespaces: [Option<&'c Namespace>; 2],
    pub(super) addresses: [IpAddr; 2],
}

/// One end of a connection on both sides.
#[derive(Clone, Copy, Debug)]
pub(super) enum EndPair<'c> {
    Pod(PodPair<'c>),
    Node([&'c Node; 2], IpAddr),
    External(IpAddr),
}

impl<'c> EndPair<'c> {
    /// Returns an end as it is on both sides; `None` if a cluster lacks the object.
    pub(super) fn new(clusters: [&'c Cluster; 2], at: [&Endpoint; 2]) -> Option<Self> {
        Some(match at {
            [Endpoint::Pod { key: a, address: x }, Endpoint::Pod { key: b, address: y }] => {
                let pods = [clusters[0].pods.get_shared(a)?, clusters[1].pods.get_shared(b)?];
                let of = |side: usize, name| clusters[side].namespaces.get(name);
                let namespaces = [of(0, &a.namespace), of(1, &b.namespace)];
                Self::Pod(PodPair { pods, namespaces, addresses: [*x, *y] })
            }
            [Endpoint::Node { name: a, .. }, Endpoint::Node { name: b, address }] => {
                Self::Node([clusters[0].nodes.get(a)?, clusters[1].nodes.get(b)?], *address)
            }
            [Endpoint::External(_), Endpoint::External(address)] => Self::External(*address),
            _ => return None,
        })
    }

    /// Returns its addresses on both sides.
    fn addresses(&self) -> [IpAddr; 2] {
        match self {
            Self::Pod(pair) => pair.addresses,
            Self::Node(_, address) | Self::External(address) => [*address; 2],
        }
    }

    /// Adds the edits of this end that policies may notice.
    pub(super) fn edits(&self, keys: &SelectedKeys, out: &mut Vec<Edit>) {
        let mut add = |edit: Edit| {
            if !out.contains(&edit) {
                out.push(edit);
            }
        };
        match self {
            Self::Pod(pair) => {
                let [before, after] = pair.pods;
                let workload = workload_of(after);
                if let [Some(a), Some(b)] = pair.namespaces {
                    let object = Labeled::Namespace(b.name.clone());
                    labels(&object, &keys.namespaces, [&a.labels, &b.labels], &mut add);
                } else if let Some(presence) = presence(pair.namespaces) {
                    add(Edit::Namespace(after.key.namespace.clone(), presence));
                }
                let object = Labeled::Pods(workload.clone());
                labels(&object, &keys.pods, [&before.labels, &after.labels], &mut add);
                if before.ports != after.ports {
                    add(Edit::Ports(workload.clone()));
                }
                if pair.addresses[0] != pair.addresses[1] {
                    add(Edit::Addresses(workload));
                }
            }
            Self::Node([before, after], _) => {
                let object = Labeled::Node(after.name.clone());
                labels(&object, &keys.nodes, [&before.labels, &after.labels], &mut add);
            }
            Self::External(_) => {}
        }
    }

    /// Adds the end to a cluster as it is after the change, with some edits reversed. Returns its endpoint.
    pub(super) fn place(&self, cluster: &mut Cluster, reversal: Reversal<'_>) -> Endpoint {
        match self {
            Self::External(address) => Endpoint::External(*address),
            Self::Node([before, after], address) => {
                let object = Labeled::Node(after.name.clone());
                let labels = restored(&object, [&before.labels, &after.labels], reversal);
                cluster.nodes.insert(after.name.clone(), Node { labels, ..(*after).clone() });
                Endpoint::Node { name: after.name.clone(), address: *address }
            }
            Self::Pod(pair) => {
                pair.place_namespace(cluster, reversal);
                let [before, after] = pair.pods;
                let mut pod = Pod::clone(after);
                let workload = workload_of(after);
                let object = Labeled::Pods(workload.clone());
                pod.labels = restored(&object, [&before.labels, &after.labels], reversal);
                if reversal.has(|edit| matches!(edit, Edit::Ports(w) if *w == workload)) {
                    pod.ports = before.ports.clone();
                }
                let mut address = pair.addresses[1];
                if reversal.has(|edit| matches!(edit, Edit::Addresses(w) if *w == workload)) {
                    pod.addresses.clone_from(&before.addresses);
                    address = pair.addresses[0];
                }
                let key = pod.key.clone();
                cluster.pods.insert(pod);
                Endpoint::Pod { key, address }
            }
        }
    }
}

impl PodPair<'_> {
    fn place_namespace(&self, cluster: &mut Cluster, reversal: Reversal<'_>) {
        let name = &self.pods[1].key.namespace;
        let namespace = match self.namespaces {
            [Some(before), Some(after)] => {
                let object = Labeled::Namespace(after.name.clone());
                let labels = restored(&object, [&before.labels, &after.labels], reversal);
                Some(Namespace { labels, ..after.clone() })
            }
            [before, after] => {
                let reversed = reversal.has(|edit| matches!(edit, Edit::Namespace(n, _) if n == name));
                if reversed { before.cloned() } else { after.cloned() }
            }
        };
        cluster.namespaces.extend(namespace.map(|n| (n.name.clone(), n)));
    }
}

/// Returns the workload of a pod.
pub(super) fn workload_of(pod: &Pod) -> WorkloadKey {
    let own = Workload { kind: "Pod".into(), name: pod.key.name.clone() };
    let Workload { kind, name } = pod.workload.clone().unwrap_or(own);
    WorkloadKey { kind, key: palisade_policy::ObjectKey { namespace: pod.key.namespace.clone(), name } }
}

fn presence(sides: [Option<&Namespace>; 2]) -> Option<Presence> {
    match sides {
        [Some(_), None] => Some(Presence::Removed),
        [None, Some(_)] => Some(Presence::Added),
        _ => None,
    }
}

/// Adds an edit for each of these keys whose value differs.
fn labels(object: &Labeled, keys: &BTreeSet<Name>, sides: [&Labels; 2], add: &mut impl FnMut(Edit)) {
    if sides[0] == sides[1] {
        return;
    }
    for key in keys {
        let [before, after] = sides.map(|labels| labels.get(key).map(Name::from));
        if before != after {
            add(Edit::Label { object: object.clone(), key: key.clone(), before, after });
        }
    }
}

/// Returns the labels after the change, with some edits reversed.
fn restored(object: &Labeled, [before, after]: [&Labels; 2], reversal: Reversal<'_>) -> Labels {
    if before == after {
        return after.clone();
    }
    let back = |name: &Name| {
        reversal.has(|edit| matches!(edit, Edit::Label { object: o, key, .. } if o == object && key == name))
    };
    let kept = after.iter().filter(|(key, _)| !back(key));
    let restored = before.iter().filter(|(key, _)| back(key));
    kept.chain(restored).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Returns an address family's pair of representative endpoints as ends of both sides.
pub(super) fn pair_of<'c>(
    clusters: [&'c Cluster; 2],
    [before, after]: [(Endpoint, Endpoint); 2],
) -> Option<[EndPair<'c>; 2]> {
    let from = EndPair::new(clusters, [&before.0, &after.0])?;
    let to = EndPair::new(clusters, [&before.1, &after.1])?;
    (Family::of(after.0.address()) == Family::of(after.1.address())).then_some([from, to])
}
