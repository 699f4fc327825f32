//! What rules are checked against.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
};

use palisade_manifest::Loaded;
use palisade_policy::{
    Action, Direction, Labels, Mode, Name, NamespaceMatch, Origin, Peer, PeerEntry, Pod, PodMatch, Policy,
    PolicyKey, Rule, Selector, Service,
};

use crate::{
    finding::Affected,
    index::{ByLabel, PolicyIndex, Profile, ServiceIndex, candidates},
    miss::Miss,
    near::NearIndex,
    plugin::Plugin,
    text::{Lines, SourceText},
    written::{Header, Written},
};

/// Pods of a namespace with the same labels.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    pub(crate) namespace: &'a Name,
    pub(crate) labels: &'a Labels,
    pub(crate) host_network: bool,
    pub(crate) pods: Vec<&'a Pod>,
    /// One pod for each list of ports.
    pub(crate) by_ports: Vec<&'a Pod>,
    profile: OnceCell<Profile>,
}

/// The classes of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Classes<'a> {
    pub(crate) all: Vec<Class<'a>>,
    by_label: ByLabel<'a>,
    near: OnceCell<NearIndex<'a>>,
}

impl<'a> Classes<'a> {
    /// Iterates over those that may nearly match a selector.
    fn nearly_matching<'c>(&'c self, pods: &Selector) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        let near = self.near.get_or_init(|| NearIndex::new(self.all.iter().map(|class| class.labels)));
        near.of(pods).into_iter().filter_map(|at| self.all.get(at))
    }

    /// Iterates over those that a selector matches.
    pub(crate) fn matching<'c>(&'c self, pods: &'c Selector) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        let found = candidates(&self.by_label, &self.all, pods);
        found.into_iter().filter(|class| pods.matches(class.labels))
    }
}

/// The loaded objects, what is written, and indexes.
pub(crate) struct Context<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) written: Vec<&'a Written>,
    pub(crate) lines: HashMap<&'a str, Lines<'a>>,
    /// The texts of files by name.
    sources: HashMap<&'a str, &'a SourceText>,
    /// The unfinished pods by namespace.
    pub(crate) classes: BTreeMap<&'a Name, Classes<'a>>,
    /// The network plugin of the cluster, if it is known.
    pub(crate) plugin: Option<Plugin>,
    policies: PolicyIndex<'a>,
    services: ServiceIndex<'a>,
    /// The cluster IPs, which no pod has.
    pub(crate) cluster_ips: HashSet<IpAddr>,
    /// The names of the namespaces with pods that selectors match.
    selected_namespaces: RefCell<HashMap<Selector, Rc<[&'a Name]>>>,
    /// The policy that begins at a place.
    by_place: HashMap<(&'a str, u32, u32), &'a PolicyKey>,
    /// Indexes of `written` by file and beginning.
    written_at: HashMap<(Name, usize), usize>,
    /// Why matches select no pod, as far as it is known.
    pub(crate) misses: RefCell<HashMap<PodMatch, Option<Rc<Miss>>>>,
    /// One pod for each port list of the pods that matches select.
    ports: RefCell<HashMap<&'a PodMatch, Rc<[&'a Pod]>>>,
    /// One pod for each port list.
    all_ports: OnceCell<Rc<[&'a Pod]>>,
    /// The pods that policies select, by what they select.
    affected: RefCell<HashMap<&'a PodMatch, Affected>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(loaded: &'a Loaded, sources: &'a [SourceText], plugin: Option<Plugin>) -> Self {
        let of_files = || sources.iter().filter(|s| !s.file().is_empty());
        let lines = of_files().map(|s| (&**s.file(), s.lines())).collect();
        let mut classes: HashMap<(&Name, &Labels, bool), Vec<&Pod>> = HashMap::new();
        for pod in loaded.cluster.pods.values() {
            if pod.is_running() || pod.host_network {
                classes.entry((&pod.key.namespace, &pod.labels, pod.host_network)).or_default().push(pod);
            }
        }
        let mut by_namespace: BTreeMap<&Name, Classes<'_>> = BTreeMap::new();
        for ((namespace, labels, host_network), pods) in classes {
            let mut known = HashSet::new();
            let by_ports = pods.iter().copied().filter(|pod| known.insert(&*pod.ports)).collect();
            let profile = OnceCell::new();
            let class = Class { namespace, labels, host_network, pods, by_ports, profile };
            by_namespace.entry(namespace).or_default().all.push(class);
        }
        for Classes { all, by_label, .. } in by_namespace.values_mut() {
            all.sort_by(|a, b| a.pods[0].key.cmp(&b.pods[0].key));
            all.iter().enumerate().for_each(|(at, class)| by_label.add_labels(class.labels, at));
        }
        let place = |origin: &'a Origin| (&*origin.file, origin.line, origin.column);
        let policies = loaded.cluster.policies.iter();
        let written: Vec<&Written> = sources.iter().flat_map(SourceText::written).collect();
        let places = written.iter().enumerate();
        Self {
            loaded,
            written_at: places.map(|(at, w)| ((w.file.clone(), w.start), at)).collect(),
            written,
            lines,
            sources: of_files().map(|s| (&**s.file(), s)).collect(),
            classes: by_namespace,
            plugin,
            policies: PolicyIndex::new(loaded.cluster.policies.values().map(|p| &**p)),
            services: ServiceIndex::new(loaded.cluster.services.values()),
            cluster_ips: loaded.cluster.services.values().flat_map(|s| s.addresses.iter().copied()).collect(),
            selected_namespaces: RefCell::default(),
            by_place: policies.filter_map(|(key, p)| Some((place(p.origin.as_ref()?), key))).collect(),
            misses: RefCell::default(),
            ports: RefCell::default(),
            all_ports: OnceCell::new(),
            affected: RefCell::default(),
        }
    }

    /// Returns the header of the object whose `apiVersion` begins at a byte of a file.
    pub(crate) fn header(&self, file: &Name, at: usize) -> Option<&'a Header> {
        self.sources.get(&**file)?.header(at)
    }

    /// Returns whether a policy is in audit mode.
    pub(crate) fn is_audited(&self, key: &PolicyKey) -> bool {
        let cluster = &self.loaded.cluster;
        cluster.policies.get(key).is_some_and(|policy| cluster.mode_of(policy) == Mode::Audit)
    }

    /// Iterates over the policies.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &'a Policy> {
        self.loaded.cluster.policies.values().map(|policy| &**policy)
    }

    /// Iterates over the rules of all policies.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&'a Policy, Direction, &'a Rule)> {
        self.policies().flat_map(|policy| {
            let rules = move |direction| {
                policy.rules(direction).unwrap_or_default().iter().map(move |rule| (policy, direction, rule))
            };
            Direction::BOTH.into_iter().flat_map(rules)
        })
    }

    /// Iterates over the rules that allow something: not those of cluster-wide policies that deny or pass.
    pub(crate) fn allowing(&self) -> impl Iterator<Item = (&'a Policy, Direction, &'a Rule)> {
        self.rules().filter(|(_, _, rule)| rule.action == Action::Accept)
    }

    /// Iterates over the selectors of peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&'a Policy, &'a PodMatch, Option<&'a Origin>)> {
        self.rules().flat_map(|(policy, _, rule)| {
            rule.peers.iter().flatten().filter_map(move |entry| match &entry.peer {
                Peer::Pods(pods) => Some((policy, pods, entry.origin.as_ref())),
                _ => None,
            })
        })
    }

    /// Iterates over NetworkPolicies as they are written in files, with their keys.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&'a Written, &'a PolicyKey)> {
        self.written.iter().copied().filter_map(|written| {
            let origin = self.origin(&written.file, written.start)?;
            Some((written, *self.by_place.get(&(&*written.file, origin.line, origin.column))?))
        })
    }

    /// Returns a policy as it is written.
    pub(crate) fn written_of(&self, key: &PolicyKey) -> Option<(&'a Written, &'a PolicyKey)> {
        let origin = self.loaded.cluster.policies.get(key)?.origin.as_ref()?;
        let start = self.lines.get(&*origin.file)?.offset(origin)?;
        let (key, _) = self.loaded.cluster.policies.get_key_value(key)?;
        let at = self.written_at.get(&(origin.file.clone(), start))?;
        Some((self.written[*at], key))
    }

    /// Returns the position of a byte of a file.
    pub(crate) fn origin(&self, file: &Name, at: usize) -> Option<Origin> {
        let (line, column) = self.lines.get(&**file)?.position(at);
        Some(Origin { file: file.clone(), line, column })
    }

    /// Returns the policies that select pods of a class, for [`Self::in_profile`].
    pub(crate) fn profile(&self, class: &Class<'_>) -> Profile {
        let found = || {
            let namespace = self.loaded.cluster.namespaces.get(class.namespace);
            self.policies.profile(class.namespace, namespace.map(|n| &n.labels), class.labels)
        };
        Rc::clone(class.profile.get_or_init(found))
    }

    /// Iterates over the policies of a profile, in order of evaluation within each tier.
    pub(crate) fn in_profile<'c>(
        &'c self,
        profile: &'c [u32],
    ) -> impl DoubleEndedIterator<Item = &'a Policy> + Clone + 'c {
        self.policies.of(profile)
    }

    /// Iterates over the classes of pods on the cluster's network.
    pub(crate) fn all_classes(&self) -> impl Iterator<Item = &Class<'a>> {
        self.classes.values().flat_map(|classes| &classes.all).filter(|class| !class.host_network)
    }

    /// Iterates over the classes of a namespace.
    pub(crate) fn all_classes_of(&self, namespace: &Name) -> impl Iterator<Item = &Class<'a>> {
        self.classes.get(namespace).into_iter().flat_map(|classes| &classes.all)
    }

    /// Returns the class of a pod on the cluster's network.
    pub(crate) fn class_of(&self, pod: &Pod) -> Option<&Class<'a>> {
        let classes = self.classes.get(&pod.key.namespace)?;
        let own = Selector::of_labels(pod.labels.iter().map(|(key, value)| (&**key, &**value)));
        let found = candidates(&classes.by_label, &classes.all, &own);
        found.into_iter().find(|class| !class.host_network && *class.labels == pod.labels)
    }

    /// Returns the distinct profiles of pods on the cluster's network.
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        let mut known = HashSet::new();
        let all = self.all_classes().map(|class| self.profile(class));
        all.filter(|profile| known.insert(Rc::as_ptr(profile))).collect()
    }

    /// Iterates over the Services in front of the pods of a class.
    pub(crate) fn services_of<'c>(&'c self, class: &'c Class<'_>) -> impl Iterator<Item = &'a Service> + 'c {
        self.services.of(class.namespace, class.labels)
    }

    /// Returns the names of the namespaces with pods that a match selects.
    fn namespaces_of(&self, choice: &PodMatch) -> Rc<[&'a Name]> {
        let selector = match &choice.namespaces {
            NamespaceMatch::Named(name) => {
                return self.classes.get_key_value(name).map(|(name, _)| *name).into_iter().collect();
            }
            NamespaceMatch::Selected(selector) => selector,
        };
        if let Some(known) = self.selected_namespaces.borrow().get(selector) {
            return Rc::clone(known);
        }
        let namespaces = &self.loaded.cluster.namespaces;
        let fits = |name: &&Name| namespaces.get(*name).is_some_and(|n| selector.matches(&n.labels));
        let found: Rc<[&Name]> = self.classes.keys().copied().filter(fits).collect();
        self.selected_namespaces.borrow_mut().insert(selector.clone(), Rc::clone(&found));
        found
    }

    fn classes_of<'c>(&'c self, choice: &PodMatch) -> impl Iterator<Item = &'c Classes<'a>> + 'c {
        let names = self.namespaces_of(choice);
        (0..names.len()).filter_map(move |at| self.classes.get(names[at]))
    }

    /// Returns the classes of pods that a match selects but for one label that may be misspelt, and others.
    pub(crate) fn nearly_matching<'c>(
        &'c self,
        choice: &'c PodMatch,
    ) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        self.classes_of(choice).flat_map(|classes| classes.nearly_matching(&choice.pods))
    }

    /// Returns the classes of pods that a match selects, those in the host network included.
    pub(crate) fn matching<'c>(&'c self, choice: &'c PodMatch) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        self.classes_of(choice).flat_map(|classes| classes.matching(&choice.pods))
    }

    /// Iterates over the classes of pods on the cluster's network that a policy selects.
    pub(crate) fn selected<'c>(&'c self, policy: &'c Policy) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        self.matching(&policy.subject).filter(|class| !class.host_network)
    }

    /// Returns one pod for each port list of the destinations of a rule: the pods that the policy selects, or those that the
    /// peers select. Empty if there are none, or if an egress rule has other destinations, too.
    pub(crate) fn destinations(
        &self,
        policy: &'a Policy,
        direction: Direction,
        rule: &'a Rule,
    ) -> Rc<[&'a Pod]> {
        let is_pods = |entry: &PeerEntry| matches!(entry.peer, Peer::Pods(_));
        let only_pods = rule.peers.as_ref().is_some_and(|peers| peers.iter().all(is_pods));
        if direction == Direction::Egress && !only_pods {
            return Rc::from([]);
        }
        self.named_destinations(policy, direction, rule)
    }

    /// As [`Self::destinations`], of ports that a rule has by name: only pods have names of ports, so other destinations don't count,
    /// and without peers these are all pods.
    pub(crate) fn named_destinations(
        &self,
        policy: &'a Policy,
        direction: Direction,
        rule: &'a Rule,
    ) -> Rc<[&'a Pod]> {
        if direction == Direction::Ingress {
            return self.ports_of(&policy.subject);
        }
        let Some(peers) = &rule.peers else { return self.all_ports() };
        let choices = peers.iter().filter_map(|entry| match &entry.peer {
            Peer::Pods(choice) => Some(choice),
            Peer::Block(_) | Peer::Nodes(_) | Peer::DomainName(_) => None,
        });
        choices.flat_map(|choice| self.ports_of(choice).iter().copied().collect::<Vec<_>>()).collect()
    }

    /// Returns one pod for each port list of all pods on the cluster's network.
    fn all_ports(&self) -> Rc<[&'a Pod]> {
        let found = || {
            let mut known = HashSet::new();
            let pods = self.all_classes().flat_map(|class| class.by_ports.iter().copied());
            pods.filter(|pod| known.insert(&*pod.ports)).collect()
        };
        Rc::clone(self.all_ports.get_or_init(found))
    }

    /// Returns one pod for each port list of the pods that a match selects.
    fn ports_of(&self, choice: &'a PodMatch) -> Rc<[&'a Pod]> {
        if let Some(known) = self.ports.borrow().get(choice) {
            return Rc::clone(known);
        }
        let mut known = HashSet::new();
        let classes = self.matching(choice).filter(|class| !class.host_network);
        let pods = classes.flat_map(|class| class.by_ports.iter().copied());
        let found: Rc<[&Pod]> = pods.filter(|pod| known.insert(&*pod.ports)).collect();
        // Long lists are looked for again, rather than kept for each of many selectors.
        if found.len() <= MOST_KEPT {
            self.ports.borrow_mut().insert(choice, Rc::clone(&found));
        }
        found
    }

    /// Returns the classes of pods behind Services that `fits` selects, each with the first of these.
    pub(crate) fn behind<'c>(&'c self, fits: impl Fn(&Service) -> bool) -> Vec<(&'c Class<'a>, &'a Service)> {
        if !self.loaded.cluster.services.values().any(&fits) {
            return Vec::new();
        }
        let first = |class: &'c Class<'a>| Some((class, self.services_of(class).find(|s| fits(s))?));
        self.all_classes().filter_map(first).collect()
    }

    /// Returns whether a policy selects the pods of a class.
    pub(crate) fn selects(&self, policy: &Policy, class: &Class<'_>) -> bool {
        let namespace = self.loaded.cluster.namespaces.get(class.namespace);
        policy.subject.matches(class.namespace, namespace.map(|n| &n.labels), class.labels)
    }

    /// Returns the pods that a policy selects.
    pub(crate) fn affected(&self, key: &PolicyKey) -> Affected {
        let Some(policy) = self.loaded.cluster.policies.get(key) else { return Affected::default() };
        if let Some(known) = self.affected.borrow().get(&policy.subject) {
            return known.clone();
        }
        let affected = affected(self.selected(policy));
        self.affected.borrow_mut().insert(&policy.subject, affected.clone());
        affected
    }
}

/// Returns how many pods classes have, with the first workloads.
pub(crate) fn affected<'c, 'a: 'c>(classes: impl Iterator<Item = &'c Class<'a>>) -> Affected {
    let mut affected = Affected::default();
    for class in classes {
        affected.pods += class.pods.len();
        if affected.sample.len() < SAMPLE {
            let pod = class.pods[0];
            let name = pod.workload.as_ref().map_or(&pod.key.name, |w| &w.name);
            let shown = format!("{}/{name}", class.namespace);
            if !affected.sample.contains(&shown) {
                affected.sample.push(shown);
            }
        }
    }
    affected
}

/// How many pods of a match are kept for the next rule that asks.
const MOST_KEPT: usize = 256;
/// How many workloads a finding names.
const SAMPLE: usize = 3;
