//! All pods that may exist and that policies can tell apart, one by one, as the reference evaluates them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_analysis::exposure::PodSet;
use palisade_policy::{
    Cluster, Direction, Endpoint, Family, IpRange, Labels, NAMESPACE_NAME_LABEL, Name, Namespace,
    NamespaceMatch, ObjectKey, Peer, Pod, Policy, Requirement, Rule, Selector, Test, Traffic,
    address::{from_number, max_number, to_number},
    walk::walk,
};

/// A namespace name and a label value that no policy mentions.
const OTHER: &str = "other";

/// A pod that doesn't exist, in a namespace that exists or is made for it.
#[derive(Clone, Debug)]
pub(crate) struct FuturePod {
    pub(crate) namespace: Namespace,
    pub(crate) pod: Pod,
}

/// The labels that selectors mention, with the values.
#[derive(Default)]
struct Mentioned(BTreeMap<Name, BTreeSet<Name>>);

impl Mentioned {
    fn add(&mut self, selector: &Selector) {
        for Requirement { key, test } in selector.requirements() {
            let values = self.0.entry(key.clone()).or_default();
            if let Test::In(named) | Test::NotIn(named) = test {
                values.extend(named.iter().cloned());
            }
        }
    }

    /// Returns every set of labels that the selectors can tell apart.
    fn label_sets(&self) -> Vec<Labels> {
        self.0.iter().fold(vec![Labels::default()], |sets, (key, values)| {
            let values: Vec<&str> = values.iter().map(|v| &**v).chain([OTHER]).collect();
            let with = |labels: Labels| {
                let absent = labels.clone();
                let present = values.iter().map(move |value| labels.with(key, value));
                std::iter::once(absent).chain(present).collect::<Vec<_>>()
            };
            sets.into_iter().flat_map(with).collect()
        })
    }
}

fn rules<'a>(policies: &'a [&Policy], direction: Direction) -> impl Iterator<Item = &'a Rule> {
    policies.iter().filter_map(move |p| p.rules(direction)).flatten()
}

/// Returns the pods that these policies can tell apart as peers in one direction, or, with `as_subject`, as subjects;
/// `None` if there are more than `most`.
pub(crate) fn future_pods(
    clusters: &[&Cluster],
    policies: &[&Policy],
    direction: Direction,
    as_subject: bool,
    most: usize,
) -> Option<Vec<FuturePod>> {
    let (mut of_pods, mut of_namespaces) = (Mentioned::default(), Mentioned::default());
    let unmentioned = ["100.99.98.97", "2001:db8:ffff::1"];
    let mut addresses: BTreeSet<IpAddr> = unmentioned.iter().filter_map(|a| a.parse().ok()).collect();
    // Subjects and peers are in new namespaces of different names, so that each may have any labels.
    let other = if as_subject { "home" } else { OTHER };
    let mut names = BTreeSet::from([Name::from(other)]);
    let choices = rules(policies, direction).filter_map(|r| r.peers.as_ref()).flatten();
    let mut peers: Vec<Peer> = choices.map(|entry| entry.peer.clone()).collect();
    if as_subject {
        peers = policies.iter().map(|p| Peer::Pods(p.subject.clone())).collect();
    }
    for peer in &peers {
        match peer {
            Peer::Pods(choice) => {
                of_pods.add(&choice.pods);
                match &choice.namespaces {
                    NamespaceMatch::Named(name) => drop(names.insert(name.clone())),
                    NamespaceMatch::Selected(selector) => of_namespaces.add(selector),
                }
            }
            Peer::Block(block) => {
                for net in std::iter::once(&block.cidr).chain(block.except.iter()) {
                    let (family, range) = (Family::of_net(net), IpRange::of_net(net));
                    addresses.insert(range.first);
                    let last = to_number(range.last);
                    addresses.extend((last < max_number(family)).then(|| from_number(family, last + 1)));
                }
            }
            Peer::Nodes(_) | Peer::DomainName(_) => {}
        }
    }
    names.extend(of_namespaces.0.remove(NAMESPACE_NAME_LABEL).into_iter().flatten());
    let known: Vec<Namespace> = clusters.iter().flat_map(|c| c.namespaces.values()).cloned().collect();
    let known_names: BTreeSet<&Name> = known.iter().map(|n| &n.name).collect();
    let new = names.iter().filter(|name| !known_names.contains(name));
    let new = new.flat_map(|name| {
        of_namespaces.label_sets().into_iter().map(move |l| Namespace::new(name.clone(), &l))
    });
    let mut namespaces: Vec<Namespace> = known.iter().cloned().chain(new).collect();
    namespaces.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    namespaces.dedup();
    let pods = of_pods.label_sets();
    if namespaces.len() * pods.len() * addresses.len() > most {
        return None;
    }
    let mut out = Vec::new();
    for namespace in &namespaces {
        for labels in &pods {
            out.extend(addresses.iter().map(|address| FuturePod {
                namespace: namespace.clone(),
                pod: pod(&namespace.name, labels.clone(), *address),
            }));
        }
    }
    Some(out)
}

fn pod(namespace: &Name, labels: Labels, address: IpAddr) -> Pod {
    Pod::new(ObjectKey::new(namespace.clone(), "future"), labels, vec![address])
}

impl FuturePod {
    pub(crate) fn is_in(&self, set: &PodSet) -> bool {
        set.contains(&self.pod, Some(&self.namespace.labels))
    }

    /// Returns the endpoint of the pod.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Pod { key: self.pod.key.clone(), address: self.pod.addresses[0] }
    }

    /// Returns what the policies of `subject` allow with the pod. The cluster gets the pod, for good.
    pub(crate) fn traffic(&self, cluster: &mut Cluster, subject: &Pod, direction: Direction) -> Traffic {
        cluster.namespaces.insert(self.namespace.name.clone(), self.namespace.clone());
        cluster.pods.insert(self.pod.clone());
        let own = Endpoint::Pod { key: subject.key.clone(), address: subject.addresses[0] };
        let (source, target) = match direction {
            Direction::Egress => (own, self.endpoint()),
            Direction::Ingress => (self.endpoint(), own),
        };
        walk(cluster, &source, &target, false, direction, &Traffic::all()).allowed()
    }
}
