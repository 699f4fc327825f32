//! What rules are checked against.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use palisade_manifest::Loaded;
use palisade_policy::{
    Direction, Labels, Name, NamespaceMatch, Origin, Peer, Pod, PodMatch, Policy, PolicyKey, Rule,
};

use crate::{
    finding::Affected,
    miss::Miss,
    text::{Lines, SourceText},
    written::{self, Written},
};

/// Pods of a namespace with the same labels.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    pub(crate) namespace: &'a Name,
    pub(crate) labels: &'a Labels,
    pub(crate) host_network: bool,
    pub(crate) pods: Vec<&'a Pod>,
}

/// The loaded objects, what is written, and indexes.
pub(crate) struct Context<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) written: Vec<Written>,
    pub(crate) lines: HashMap<&'a str, Lines<'a>>,
    /// The unfinished pods by namespace.
    pub(crate) classes: BTreeMap<&'a Name, Vec<Class<'a>>>,
    /// The policy that begins at a place.
    by_place: HashMap<(&'a str, u32, u32), &'a PolicyKey>,
    /// Indexes of `written` by file and beginning.
    written_at: HashMap<(Name, usize), usize>,
    /// Why matches select no pod, as far as it is known.
    pub(crate) misses: RefCell<HashMap<PodMatch, Option<Rc<Miss>>>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(loaded: &'a Loaded, sources: &'a [SourceText]) -> Self {
        let of_files = || sources.iter().filter(|s| !s.file.is_empty());
        let lines = of_files().map(|s| (&*s.file, Lines::new(&s.text))).collect();
        let mut classes: HashMap<(&Name, &Labels, bool), Vec<&Pod>> = HashMap::new();
        for pod in loaded.cluster.pods.values() {
            if pod.is_running() || pod.host_network {
                classes.entry((&pod.key.namespace, &pod.labels, pod.host_network)).or_default().push(pod);
            }
        }
        let mut by_namespace: BTreeMap<&Name, Vec<Class<'_>>> = BTreeMap::new();
        for ((namespace, labels, host_network), pods) in classes {
            by_namespace.entry(namespace).or_default().push(Class { namespace, labels, host_network, pods });
        }
        for classes in by_namespace.values_mut() {
            classes.sort_by(|a, b| a.pods[0].key.cmp(&b.pods[0].key));
        }
        let place = |origin: &'a Origin| (&*origin.file, origin.line, origin.column);
        let policies = loaded.cluster.policies.iter();
        let written: Vec<Written> = sources.iter().flat_map(written::policies).collect();
        let places = written.iter().enumerate();
        Self {
            loaded,
            written_at: places.map(|(at, w)| ((w.file.clone(), w.start), at)).collect(),
            written,
            lines,
            classes: by_namespace,
            by_place: policies.filter_map(|(key, p)| Some((place(p.origin.as_ref()?), key))).collect(),
            misses: RefCell::default(),
        }
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
    pub(crate) fn written(&self) -> impl Iterator<Item = (&Written, &'a PolicyKey)> {
        self.written.iter().filter_map(|written| {
            let origin = self.origin(&written.file, written.start)?;
            Some((written, *self.by_place.get(&(&*written.file, origin.line, origin.column))?))
        })
    }

    /// Returns a policy as it is written.
    pub(crate) fn written_of(&self, key: &PolicyKey) -> Option<(&Written, &'a PolicyKey)> {
        let origin = self.loaded.cluster.policies.get(key)?.origin.as_ref()?;
        let start = self.lines.get(&*origin.file)?.offset(origin)?;
        let (key, _) = self.loaded.cluster.policies.get_key_value(key)?;
        let at = self.written_at.get(&(origin.file.clone(), start))?;
        Some((&self.written[*at], key))
    }

    /// Returns the position of a byte of a file.
    pub(crate) fn origin(&self, file: &Name, at: usize) -> Option<Origin> {
        let (line, column) = self.lines.get(&**file)?.position(at);
        Some(Origin { file: file.clone(), line, column })
    }

    /// Returns the classes of pods of the namespaces that a match selects.
    pub(crate) fn in_namespaces<'c>(
        &'c self,
        choice: &PodMatch,
    ) -> Box<dyn Iterator<Item = &'c Class<'a>> + 'c> {
        match &choice.namespaces {
            NamespaceMatch::Named(name) => Box::new(self.classes.get(name).into_iter().flatten()),
            NamespaceMatch::Selected(selector) => {
                let selector = selector.clone();
                let namespaces = &self.loaded.cluster.namespaces;
                let fits =
                    move |name: &Name| namespaces.get(name).is_some_and(|n| selector.matches(&n.labels));
                Box::new(self.classes.iter().filter(move |(name, _)| fits(name)).flat_map(|(_, c)| c))
            }
        }
    }

    /// Iterates over the classes of pods on the cluster's network that a policy selects.
    pub(crate) fn selected<'c>(&'c self, policy: &'c Policy) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        self.in_namespaces(&policy.subject)
            .filter(|class| !class.host_network && policy.subject.pods.matches(class.labels))
    }

    /// Returns one pod for each port list of the destinations of a rule: the pods that the policy selects, or those that the
    /// peers select. Empty if there are none, or if an egress rule has other destinations, too.
    pub(crate) fn destinations(
        &self,
        policy: &'a Policy,
        direction: Direction,
        rule: &'a Rule,
    ) -> Vec<&'a Pod> {
        let mut out: Vec<&'a Pod> = Vec::new();
        let mut add = |class: &Class<'a>| {
            for pod in &class.pods {
                if !out.iter().any(|known| known.ports == pod.ports && known.labels == pod.labels) {
                    out.push(pod);
                }
            }
        };
        if direction == Direction::Ingress {
            self.selected(policy).for_each(&mut add);
            return out;
        }
        let Some(peers) = &rule.peers else { return Vec::new() };
        for entry in peers {
            let Peer::Pods(choice) = &entry.peer else { return Vec::new() };
            let matching = self.in_namespaces(choice).filter(|class| !class.host_network);
            matching.filter(|class| choice.pods.matches(class.labels)).for_each(&mut add);
        }
        out
    }

    /// Returns the pods that a policy selects.
    pub(crate) fn affected(&self, key: &PolicyKey) -> Affected {
        let Some(policy) = self.loaded.cluster.policies.get(key) else { return Affected::default() };
        let mut affected = Affected::default();
        let classes = self.in_namespaces(&policy.subject).filter(|c| !c.host_network);
        for class in classes.filter(|c| policy.subject.pods.matches(c.labels)) {
            affected.pods += class.pods.len();
            let pod = class.pods[0];
            let name = pod.workload.as_ref().map_or(&pod.key.name, |w| &w.name);
            let shown = format!("{}/{name}", class.namespace);
            if affected.sample.len() < SAMPLE && !affected.sample.contains(&shown) {
                affected.sample.push(shown);
            }
        }
        affected
    }
}

/// How many workloads a finding names.
const SAMPLE: usize = 3;
