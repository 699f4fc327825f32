//! Sources that pods of this node ask for beside their own addresses, by annotation, and which of these they get (SEMANTICS G-19). Pure.
//!
//! A pod's annotation is a request. The annotation of its namespace, which other people may edit, says within which networks it is granted. A
//! network that contains an address of a node or of another pod is refused. The rules in the kernel check the addresses of local pods too, so
//! that such an address can't be used between its assignment and the next decision here.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use palisade_policy::{ALLOW_SOURCE_KEY, ALLOW_SOURCE_WITHIN_KEY, Change, Compiler, Name, ObjectKey, Pod};

/// The most networks that the pods of one namespace may have on a node.
const MAX_OF_NAMESPACE: usize = 64;

/// What pods of this node get of the sources that they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodSources {
    /// The networks that they may use, by pod.
    pub(crate) allowed: BTreeMap<ObjectKey, BTreeSet<IpNet>>,
    /// Why they may not use others, by pod.
    pub(crate) refused: BTreeMap<ObjectKey, String>,
}

/// Follows which pods of this node ask.
#[derive(Debug, Default)]
pub(crate) struct SourceClaims {
    pods: BTreeSet<ObjectKey>,
    sources: PodSources,
    /// How often the result has changed.
    version: u64,
}

impl SourceClaims {
    /// What the pods get, and a number that grows when that changes.
    pub(crate) fn current(&self) -> (&PodSources, u64) {
        (&self.sources, self.version)
    }

    /// Notes which pods ask, before the changes are applied. `O(changes)`.
    pub(crate) fn note(&mut self, changes: &[Change], node: &Name) {
        for change in changes {
            match change {
                Change::SetPod(pod) if asks(pod, node) => drop(self.pods.insert(pod.key.clone())),
                Change::SetPod(pod) => drop(self.pods.remove(&pod.key)),
                Change::RemovePod(key) => drop(self.pods.remove(key)),
                _ => {}
            }
        }
    }

    /// Notes which pods of a whole cluster ask. `O(pods)`.
    pub(crate) fn note_all(&mut self, compiler: &Compiler) {
        let asking = compiler.cluster().pods.values().filter(|pod| asks(pod, compiler.node()));
        self.pods = asking.map(|pod| pod.key.clone()).collect();
    }

    /// Decides what the pods get. `O(networks that they ask for · log addresses)`, and nothing if none asks.
    pub(crate) fn decide(&mut self, compiler: &Compiler) {
        let mut sources = PodSources::default();
        let mut counts = BTreeMap::new();
        for pod in self.pods.iter().filter_map(|key| compiler.cluster().pods.get(key)) {
            sources.add(pod, counts.entry(pod.key.namespace.clone()).or_default(), compiler);
        }
        if sources != self.sources {
            self.sources = sources;
            self.version += 1;
        }
    }
}

impl PodSources {
    /// `count` is the number of networks that the pods of its namespace have so far.
    fn add(&mut self, pod: &Pod, count: &mut usize, compiler: &Compiler) {
        let mut problems = Vec::new();
        for network in pod.allow_source.networks() {
            if let Some(why) = problem(*network, pod, *count, compiler) {
                problems.push(why);
            } else {
                self.allowed.entry(pod.key.clone()).or_default().insert(*network);
                *count += 1;
            }
        }
        if !problems.is_empty() {
            self.refused.insert(pod.key.clone(), format!("{ALLOW_SOURCE_KEY}: {}", problems.join("; ")));
        }
    }
}

fn asks(pod: &Pod, node: &Name) -> bool {
    !pod.allow_source.is_empty() && !pod.host_network && pod.node.as_ref() == Some(node)
}

/// Why a pod may not use the addresses of a network, if it may not. `count` is the number of networks that its namespace has already.
fn problem(network: IpNet, pod: &Pod, count: usize, compiler: &Compiler) -> Option<String> {
    let namespace = &pod.key.namespace;
    let within = compiler.cluster().namespaces.get(namespace).map(|n| &n.allow_source_within);
    let Some(within) = within.filter(|within| !within.is_empty()) else {
        return Some(format!(
            "{network} is not allowed: namespace {namespace} has no {ALLOW_SOURCE_WITHIN_KEY}"
        ));
    };
    if !within.networks().iter().any(|permitted| permitted.contains(&network)) {
        return Some(format!("{network} is not within {ALLOW_SOURCE_WITHIN_KEY} of namespace {namespace}"));
    }
    if let Some(holder) = compiler.other_holder_in(network, &pod.key) {
        return Some(format!("{network} has an address of another: {holder}"));
    }
    (count >= MAX_OF_NAMESPACE).then(|| {
        format!("{network} is not allowed: pods of namespace {namespace} have {count} networks on this node")
    })
}

#[cfg(test)]
mod tests {
    use palisade_policy::{AnnotatedSources, Labels, Namespace, Node};

    use super::*;

    fn sources(value: &str) -> AnnotatedSources {
        AnnotatedSources::parse(value).unwrap()
    }

    fn namespace(name: &str, within: &str) -> Change {
        let namespace = Namespace::new(name, &Labels::default());
        Change::SetNamespace(Namespace { allow_source_within: sources(within), ..namespace })
    }

    fn pod(key: (&str, &str), node: &str, address: &str, asks: &str) -> Change {
        let addresses = vec![address.parse().unwrap()];
        Change::SetPod(Pod {
            node: Some(node.into()),
            allow_source: sources(asks),
            ..Pod::new(ObjectKey::new(key.0, key.1), Labels::default(), addresses)
        })
    }

    struct World {
        compiler: Compiler,
        claims: SourceClaims,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self { compiler: Compiler::new("n1".into()), claims: SourceClaims::default() };
            let node = |name: &str, address: &str| {
                let addresses = vec![address.parse().unwrap()];
                Change::SetNode(Node {
                    name: name.into(),
                    labels: Labels::default(),
                    addresses,
                    pod_cidrs: Vec::new(),
                })
            };
            world.apply(vec![
                node("n1", "172.18.0.2"),
                node("n2", "172.18.0.3"),
                namespace("vips", "10.0.0.96/28,fd00::/48,10.244.0.0/16,172.18.0.0/16"),
                namespace("tenant", ""),
                pod(("tenant", "victim"), "n1", "10.244.0.7", ""),
                pod(("tenant", "far"), "n2", "10.244.9.7", ""),
            ]);
            world
        }

        fn apply(&mut self, changes: Vec<Change>) -> u64 {
            self.claims.note(&changes, &"n1".into());
            self.compiler.apply_all(changes);
            self.claims.decide(&self.compiler);
            self.claims.current().1
        }

        /// What a pod of the namespace that may ask gets, and why not more.
        fn asks(&mut self, namespace: &str, value: &str) -> (Vec<String>, String) {
            self.apply(vec![pod((namespace, "vrrp"), "n1", "10.244.0.9", value)]);
            let key = ObjectKey::new(namespace, "vrrp");
            let PodSources { allowed, refused } = self.claims.current().0;
            let allowed = allowed.get(&key).into_iter().flatten().map(ToString::to_string).collect();
            (allowed, refused.get(&key).cloned().unwrap_or_default())
        }
    }

    #[test]
    fn a_pod_gets_what_its_namespace_permits_and_nobody_else_has() {
        let mut world = World::new();
        let (allowed, why) = world.asks("vips", "10.0.0.100,fd00::/64");
        assert_eq!((&allowed[..], &*why), (&["10.0.0.100/32".to_owned(), "fd00::/64".to_owned()][..], ""));
        // Its own address needs no permission, and is no obstacle.
        assert_eq!(world.asks("vips", "10.244.0.9").0, ["10.244.0.9/32"]);
        for (value, expected) in [
            ("10.0.0.200", "not within"),
            ("10.0.0.0/24", "not within"),
            ("10.244.0.7", "tenant/victim"),
            ("10.244.9.0/24", "tenant/far"),
            ("172.18.0.2", "n1"),
            ("172.18.0.3/32", "n2"),
        ] {
            let (allowed, why) = world.asks("vips", value);
            assert!(allowed.is_empty() && why.contains(expected), "{value}: {allowed:?} {why}");
            // One that is refused leaves the others.
            let (allowed, why) = world.asks("vips", &format!("{value},10.0.0.100"));
            assert!(allowed == ["10.0.0.100/32"] && why.contains(expected), "{value}: {allowed:?} {why}");
        }
        let (allowed, why) = world.asks("tenant", "10.0.0.100");
        assert!(
            allowed.is_empty() && why.contains("tenant has no palisade.dev/allow-source-within"),
            "{why}"
        );
        assert!(world.asks("tenant", "").1.is_empty());
    }

    #[test]
    fn decisions_follow_pods_namespaces_and_nodes() {
        let mut world = World::new();
        assert_eq!(world.asks("vips", "10.244.3.0/24").0, ["10.244.3.0/24"]);
        let (_, version) = world.claims.current();
        let get = |world: &World| world.claims.current().0.allowed.len();
        // A pod that starts with such an address has it alone.
        assert!(world.apply(vec![pod(("tenant", "new"), "n2", "10.244.3.1", "")]) > version);
        assert_eq!(get(&world), 0);
        world.apply(vec![Change::RemovePod(ObjectKey::new("tenant", "new"))]);
        assert_eq!(get(&world), 1);
        world.apply(vec![namespace("vips", "10.0.0.96/28")]);
        assert_eq!(get(&world), 0);
        let version = world.apply(vec![namespace("vips", "10.244.0.0/16")]);
        assert_eq!(get(&world), 1);
        // What changes nothing is no change.
        assert_eq!(world.apply(vec![pod(("tenant", "victim"), "n1", "10.244.0.8", "")]), version);
        // On another node it is that node's agent that decides.
        world.apply(vec![pod(("vips", "vrrp"), "n2", "10.244.0.9", "10.244.3.0/24")]);
        assert_eq!(world.claims.current().0, &PodSources::default());
    }

    #[test]
    fn a_namespace_has_a_bounded_number_of_networks_on_a_node() {
        let mut world = World::new();
        let asks = |pod: usize| (0..16).map(|n| format!("fd00:0:0:{pod}::{n}")).collect::<Vec<_>>().join(",");
        let pods = (0..100)
            .map(|n| pod(("vips", &format!("p{n:03}")), "n1", &format!("10.244.0.{}", n + 10), &asks(n)));
        world.apply(pods.collect());
        let PodSources { allowed, refused } = world.claims.current().0;
        assert_eq!(allowed.values().map(BTreeSet::len).sum::<usize>(), MAX_OF_NAMESPACE);
        assert_eq!(refused.len(), 96);
        world.claims.note_all(&world.compiler);
        assert_eq!(world.claims.pods.len(), 100);
    }
}
