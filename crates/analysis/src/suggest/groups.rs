//! Pods that one selector stands for.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use palisade_policy::{
    Cluster, Endpoint, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, ObjectKey, Peer, Pod, PodMatch, Protocol,
    Selector,
};

use super::{SeenEnd, SeenPods, SuggestStyle};
use crate::edit::{DeclaredWorkloads, Selectors, stable_labels};

/// Pods that one selector stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PodGroup {
    /// All pods of a namespace.
    Namespace(Name),
    /// A workload, or pods with the same labels.
    Pods(SeenPods),
}

/// The pods of a cluster by group.
pub(super) struct Groups<'a> {
    pub(super) cluster: &'a Cluster,
    workloads: &'a DeclaredWorkloads,
    style: SuggestStyle,
    ends: HashMap<&'a ObjectKey, SeenPods>,
    members: BTreeMap<PodGroup, BTreeSet<ObjectKey>>,
    /// Selectors that were found already: each takes a look at all pods of the namespace.
    selectors: RefCell<HashMap<PodGroup, Selector>>,
    /// The port of each name in a group; `None` if it differs between pods.
    port_names: HashMap<PodGroup, HashMap<(Protocol, Name), Option<u16>>>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(cluster: &'a Cluster, workloads: &'a DeclaredWorkloads, style: SuggestStyle) -> Self {
        let mut groups = Self {
            cluster,
            workloads,
            style,
            ends: ends(cluster),
            members: BTreeMap::new(),
            selectors: RefCell::default(),
            port_names: HashMap::new(),
        };
        for pod in cluster.pods.values().filter(|pod| pod.is_running()) {
            let Some(group) = groups.of(&pod.key) else { continue };
            groups.add_port_names(&group, pod);
            groups.members.entry(group).or_default().insert(pod.key.clone());
        }
        groups
    }

    fn add_port_names(&mut self, group: &PodGroup, pod: &Pod) {
        let known = self.port_names.entry(group.clone()).or_default();
        for port in &*pod.ports {
            let Some(name) = &port.name else { continue };
            known
                .entry((port.protocol, name.clone()))
                .and_modify(|other| *other = other.filter(|number| *number == port.port))
                .or_insert(Some(port.port));
        }
    }

    /// Returns the group of a running pod.
    pub(super) fn of(&self, pod: &ObjectKey) -> Option<PodGroup> {
        let end = self.ends.get(pod)?;
        Some(match self.style {
            SuggestStyle::PerWorkload => PodGroup::Pods(end.clone()),
            SuggestStyle::PerNamespace => PodGroup::Namespace(pod.namespace.clone()),
        })
    }

    /// Returns what a running pod is called.
    pub(super) fn pods_of(&self, pod: &ObjectKey) -> Option<&SeenPods> {
        self.ends.get(pod)
    }

    /// Returns what an end of a flow is called.
    pub(super) fn end(&self, endpoint: &Endpoint) -> SeenEnd {
        match endpoint {
            Endpoint::Pod { key, address } => {
                self.ends.get(key).cloned().map_or(SeenEnd::Address(*address), SeenEnd::Pods)
            }
            Endpoint::Node { name, address } => SeenEnd::Node(name.clone(), *address),
            Endpoint::External(address) => SeenEnd::Address(*address),
        }
    }

    /// Returns the name that stands for a port: all of `destinations` declare it, and no pod of the group has another port of
    /// this name.
    pub(super) fn port_name(
        &self,
        group: &PodGroup,
        destinations: &BTreeSet<ObjectKey>,
        (protocol, port): (Protocol, u16),
    ) -> Option<Name> {
        let declared = |key: &ObjectKey| -> BTreeSet<Name> {
            let pod = self.cluster.pods.get(key);
            let ports = pod.into_iter().flat_map(|pod| &*pod.ports);
            let fits = ports.filter(|p| (p.protocol, p.port) == (protocol, port));
            fits.filter_map(|p| p.name.clone()).collect()
        };
        let mut all = destinations.iter().map(declared);
        let first = all.next()?;
        let common = all.fold(first, |common, own| &common & &own);
        let known = self.port_names.get(group)?;
        common.into_iter().find(|name| known.get(&(protocol, name.clone())) == Some(&Some(port)))
    }

    /// Returns the selector of a group in its namespace.
    pub(super) fn selector(&self, group: &PodGroup) -> Selector {
        if let Some(known) = self.selectors.borrow().get(group) {
            return known.clone();
        }
        let selector = match (group, self.members.get(group)) {
            (PodGroup::Pods(_), Some(members)) => self.selectors().of(members),
            (PodGroup::Pods(_), None) | (PodGroup::Namespace(_), _) => Selector::everything(),
        };
        self.selectors.borrow_mut().insert(group.clone(), selector.clone());
        selector
    }

    /// Returns a group as a peer in a policy of the namespace `home`.
    pub(super) fn peer(&self, group: &PodGroup, home: &Name) -> Peer {
        let namespace = group.namespace();
        let namespaces = if namespace == home {
            NamespaceMatch::Named(namespace.clone())
        } else {
            NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, &**namespace)]))
        };
        Peer::Pods(PodMatch { namespaces, pods: self.selector(group) })
    }

    pub(super) fn selectors(&self) -> Selectors<'a> {
        Selectors { cluster: self.cluster, workloads: self.workloads }
    }
}

impl PodGroup {
    pub(super) fn namespace(&self) -> &Name {
        match self {
            Self::Namespace(name) => name,
            Self::Pods(pods) => pods.namespace(),
        }
    }

    /// Returns the pods, if the group is not a whole namespace.
    pub(super) fn pods(&self) -> Option<&SeenPods> {
        match self {
            Self::Namespace(_) => None,
            Self::Pods(pods) => Some(pods),
        }
    }
}

/// Returns what each running pod is called.
fn ends(cluster: &Cluster) -> HashMap<&ObjectKey, SeenPods> {
    let mut firsts: HashMap<(Name, palisade_policy::Labels), Name> = HashMap::new();
    let mut end = |pod: &Pod| {
        let namespace = pod.key.namespace.clone();
        match &pod.workload {
            Some(workload) => SeenPods::Workload { namespace, workload: workload.clone() },
            None => {
                let labels = stable_labels(&pod.labels);
                let first = firsts.entry((namespace.clone(), labels.clone())).or_insert(pod.key.name.clone());
                SeenPods::Alike { namespace, labels, first: first.clone() }
            }
        }
    };
    cluster.pods.values().filter(|pod| pod.is_running()).map(|pod| (&pod.key, end(pod))).collect()
}
