//! Places recorded ends in a cluster.

use std::{collections::HashMap, net::IpAddr};

use palisade_names::service_at;
use palisade_policy::{
    Cluster, Endpoint, IpRange, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch, ObjectKey,
    Peer, Phase, Pod, PodMatch, Policy, Selector, Service, Workload,
};

use super::{
    record::{NotJudged, RecordedEnd, RecordedOwner, RecordedPod},
    services,
};
use crate::edit::stable_labels;

/// An end that was placed.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) endpoint: Endpoint,
    pub(super) by_recorded_labels: bool,
    /// Whether the ports that the pod declares are not known.
    pub(super) ports_unknown: bool,
}

impl From<Endpoint> for Placed {
    fn from(endpoint: Endpoint) -> Self {
        Self { endpoint, by_recorded_labels: false, ports_unknown: false }
    }
}

/// A cluster to which pods that are gone are added.
pub(super) struct Stage<'c> {
    /// The cluster as it is.
    pub(super) today: &'c Cluster,
    /// The cluster with the pods that are gone.
    pub(super) cluster: Cluster,
    /// A running pod of each workload, by namespace.
    of_workload: HashMap<(&'c Name, &'c Workload), &'c Pod>,
    /// The workload of the running pods with these labels, apart from those that differ between pods of a workload; `None` if there are several.
    alike: HashMap<(&'c Name, Labels), Option<&'c Workload>>,
    /// For each family the lowest and the highest address of services.
    services: Vec<IpRange>,
    /// What was placed already.
    placed: HashMap<RecordedEnd, Result<Placed, NotJudged>>,
    /// Whether policies distinguish namespaces by other labels than the name.
    by_namespace_labels: bool,
    /// Whether policies have nodes as peers.
    by_nodes: bool,
    /// How many pods were added.
    added: usize,
}

impl<'c> Stage<'c> {
    pub(super) fn new(today: &'c Cluster) -> Self {
        let (mut of_workload, mut alike) = (HashMap::new(), HashMap::new());
        for pod in today.pods.values().filter(|pod| pod.is_running()) {
            if let Some(workload) = &pod.workload {
                of_workload.entry((&pod.key.namespace, workload)).or_insert(pod);
                alike
                    .entry((&pod.key.namespace, stable_labels(&pod.labels)))
                    .and_modify(|known: &mut Option<&Workload>| {
                        *known = known.filter(|other| *other == workload);
                    })
                    .or_insert(Some(workload));
            }
        }
        Self {
            today,
            cluster: today.clone(),
            of_workload,
            alike,
            services: services::spans(today),
            placed: HashMap::new(),
            by_namespace_labels: today.policies.values().any(|policy| matches(policy).any(asks_for_labels)),
            by_nodes: today
                .policies
                .values()
                .any(|policy| peers(policy).any(|p| matches!(p, Peer::Nodes(_)))),
            added: 0,
        }
    }

    /// Returns the service at an end whose owner was not recorded.
    pub(super) fn service(&self, end: &RecordedEnd) -> Option<&'c Service> {
        let unknown = end.owner == RecordedOwner::Unknown;
        service_at(self.today, end.address).filter(|_| unknown)
    }

    /// Returns what stands for an end.
    pub(super) fn place(&mut self, end: &RecordedEnd) -> Result<Placed, NotJudged> {
        if let Some(known) = self.placed.get(end) {
            return known.clone();
        }
        let placed = match &end.owner {
            RecordedOwner::Pod(pod) => self.pod(pod, end.address),
            RecordedOwner::Unknown => self.address(end.address).map(Placed::from),
            RecordedOwner::Node(name) => self.node(name.as_ref(), end.address).map(Placed::from),
            RecordedOwner::OwnNode => self.node(None, end.address).map(Placed::from),
            RecordedOwner::Outside => Ok(Endpoint::External(end.address).into()),
        };
        self.placed.insert(end.clone(), placed.clone());
        placed
    }

    fn pod(&mut self, recorded: &RecordedPod, address: IpAddr) -> Result<Placed, NotJudged> {
        let key = &recorded.key;
        let at = |key: ObjectKey| Endpoint::Pod { key, address };
        match self.today.pods.get(key) {
            Some(pod) if pod.is_running() => return Ok(at(key.clone()).into()),
            Some(pod) if pod.host_network => {
                let name = pod.node.clone().filter(|name| self.today.nodes.contains_key(name));
                return self.node(name.as_ref(), address).map(Placed::from);
            }
            // It finished or has no address yet: judged as it is while it runs.
            Some(pod) => {
                let key = self.add(Pod { phase: Phase::Running, addresses: vec![address], ..pod.clone() });
                return Ok(at(key).into());
            }
            None => {}
        }
        let workload = recorded.workload.as_ref();
        if let Some(sibling) = workload.and_then(|w| self.of_workload.get(&(&key.namespace, w)).copied()) {
            let pod = Pod { key: key.clone(), addresses: vec![address], node: None, ..sibling.clone() };
            return Ok(at(self.add(pod)).into());
        }
        let labels = recorded.labels.clone().ok_or_else(|| NotJudged::PodGone(key.clone()))?;
        if !self.today.namespaces.contains_key(&key.namespace) {
            if self.by_namespace_labels {
                return Err(NotJudged::NamespaceGone(key.namespace.clone()));
            }
            let namespace = Namespace::new(key.namespace.clone(), &Labels::default());
            self.cluster.namespaces.insert(namespace.name.clone(), namespace);
        }
        // Pods that selectors can't tell apart are one workload, whatever its name was.
        let alike = self.alike.get(&(&key.namespace, stable_labels(&labels))).copied().flatten();
        let workload = alike.or(workload).cloned();
        let pod = Pod { workload, ..Pod::new(key.clone(), labels, vec![address]) };
        let endpoint = at(self.add(pod));
        Ok(Placed { endpoint, by_recorded_labels: true, ports_unknown: true })
    }

    /// Adds a pod; returns its key. Two records of a pod may differ in its labels, as when a StatefulSet changed: then the
    /// second has a name that no object can have.
    fn add(&mut self, mut pod: Pod) -> ObjectKey {
        if let Some(other) = self.cluster.pods.get(&pod.key)
            && !self.today.pods.contains_key(&pod.key)
            && (&other.labels, &other.workload) != (&pod.labels, &pod.workload)
        {
            pod.key.name = self.unused_name(&pod.key);
        }
        let key = pod.key.clone();
        self.cluster.pods.insert(pod);
        key
    }

    fn unused_name(&mut self, key: &ObjectKey) -> Name {
        loop {
            self.added += 1;
            let key = ObjectKey::new(key.namespace.clone(), format!("{}#{}", key.name, self.added));
            // A record may have any name.
            if !self.cluster.pods.contains_key(&key) {
                return key.name;
            }
        }
    }

    fn node(&self, name: Option<&Name>, address: IpAddr) -> Result<Endpoint, NotJudged> {
        let by_name = name.and_then(|name| self.today.nodes.get(name));
        match by_name.or_else(|| self.today.node_at(address)) {
            Some(node) => Ok(Endpoint::Node { name: node.name.clone(), address }),
            None if self.by_nodes => Err(NotJudged::NodeGone(address)),
            None => Ok(Endpoint::External(address)),
        }
    }

    fn address(&self, address: IpAddr) -> Result<Endpoint, NotJudged> {
        let endpoint = self.today.endpoint(address);
        if !matches!(endpoint, Endpoint::External(_)) {
            return Ok(endpoint);
        }
        let addressing = &self.today.addressing;
        match self.today.is_in_pod_range(address) {
            true if addressing.has_placeholders() => Err(NotJudged::AddressUnknown(address)),
            true => Err(NotJudged::AddressGone(address)),
            // Manifests without ranges: any address may be one of their pods.
            false if addressing.has_placeholders() && addressing.pod_ranges.is_empty() => {
                Err(NotJudged::AddressUnknown(address))
            }
            // Outside, it would be allowed by a CIDR, and the pods behind the service by nothing.
            false if self.services.iter().any(|span| span.contains(address)) => {
                Err(NotJudged::ServiceGone(address))
            }
            false => Ok(endpoint),
        }
    }
}

fn peers(policy: &Policy) -> impl Iterator<Item = &Peer> {
    let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
    rules.filter_map(|rule| rule.peers.as_ref()).flatten().map(|entry| &entry.peer)
}

/// Returns the pods that a policy names: its subject, and its peers.
fn matches(policy: &Policy) -> impl Iterator<Item = &PodMatch> {
    let peers = peers(policy).filter_map(|peer| match peer {
        Peer::Pods(choice) => Some(choice),
        Peer::Nodes(_) | Peer::Block(_) | Peer::DomainName(_) => None,
    });
    std::iter::once(&policy.subject).chain(peers)
}

fn asks_for_labels(choice: &PodMatch) -> bool {
    let other_key = |selector: &Selector| {
        selector.requirements().iter().any(|requirement| *requirement.key != *NAMESPACE_NAME_LABEL)
    };
    matches!(&choice.namespaces, NamespaceMatch::Selected(selector) if other_key(selector))
}
