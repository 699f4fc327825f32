//! From names and addresses, as a person writes them, to the objects of a [`Cluster`] that they stand for.
//!
//! Nothing is guessed: a name that fits several objects is an error that lists them, and one that fits none is an error
//! that lists what comes close.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use crate::{
    Cluster, Endpoint, Family, Name, Node, ObjectKey, Phase, Pod, Protocol, Service, Workload,
    cluster::TargetPort,
};

/// The kind of object that a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A single pod.
    Pod,
    /// The pods of a workload; holds the kind in the API's spelling, such as `Deployment`.
    Workload(&'static str),
    /// A node's own network stack.
    Node,
    /// The pods behind a service.
    Service,
}

/// The spellings of each kind, kubectl's short names included; the first one is that of messages.
const SPELLINGS: [(Kind, &[&str]); 10] = [
    (Kind::Pod, &["pod", "pods", "po"]),
    (Kind::Workload("Deployment"), &["deployment", "deployments", "deploy"]),
    (Kind::Workload("StatefulSet"), &["statefulset", "statefulsets", "sts"]),
    (Kind::Workload("DaemonSet"), &["daemonset", "daemonsets", "ds"]),
    (Kind::Workload("ReplicaSet"), &["replicaset", "replicasets", "rs"]),
    (Kind::Workload("Job"), &["job", "jobs"]),
    (Kind::Workload("CronJob"), &["cronjob", "cronjobs", "cj"]),
    (Kind::Workload("ReplicationController"), &["replicationcontroller", "replicationcontrollers", "rc"]),
    (Kind::Node, &["node", "nodes", "no"]),
    (Kind::Service, &["service", "services", "svc"]),
];

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        let lower = word.to_ascii_lowercase();
        SPELLINGS
            .iter()
            .find(|(_, words)| words.contains(&&*lower))
            .map(|(kind, _)| *kind)
            .ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

impl fmt::Display for Kind {
    /// The singular in lower case, such as `deployment`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = SPELLINGS.iter().find(|(kind, _)| kind == self).map_or("object", |(_, words)| words[0]);
        f.write_str(word)
    }
}

/// A word that names no kind with a network endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no kind with an endpoint; known are pod, deployment, statefulset, daemonset, replicaset, job, cronjob, \
     replicationcontroller, node and service, and kubectl's short names for them"
)]
pub struct UnknownKind(pub String);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// One pod.
    Pod(&'a Pod),
    /// All pods of a workload, in the order of their names.
    Workload(&'a Workload, Vec<&'a Pod>),
    /// A node.
    Node(&'a Node),
    /// A service.
    Service(&'a Service),
}

impl fmt::Display for Named<'_> {
    /// The full spelling, such as `shop/deployment/web`, which [`find`] understands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "{}/pod/{}", pod.key.namespace, pod.key.name),
            Self::Workload(w, pods) => {
                let namespace = pods.first().map_or("", |p| &*p.key.namespace);
                write!(f, "{namespace}/{}/{}", w.kind.to_ascii_lowercase(), w.name)
            }
            Self::Node(node) => write!(f, "node/{}", node.name),
            Self::Service(s) => write!(f, "{}/svc/{}", s.key.namespace, s.key.name),
        }
    }
}

/// Why a name stands for nothing, or for too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No such namespace.
    #[error("there is no namespace `{namespace}`{}", did_you_mean(near))]
    Namespace {
        /// The namespace asked for.
        namespace: String,
        /// Names that come close.
        near: Vec<String>,
    },
    /// No such object.
    #[error("there is no {what} `{name}`{}{}", in_namespace(namespace), did_you_mean(near))]
    Unknown {
        /// The kind, or `pod or workload` where none was given.
        what: String,
        /// The namespace looked in; empty for nodes.
        namespace: String,
        /// The name asked for.
        name: String,
        /// Full spellings of what comes close.
        near: Vec<String>,
    },
    /// Several objects have the name.
    #[error("`{name}` is ambiguous: it may be {}; write one of these", candidates.join(", "))]
    Ambiguous {
        /// The name asked for.
        name: String,
        /// Their full spellings.
        candidates: Vec<String>,
    },
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

fn in_namespace(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") }
}

/// Finds what `name` stands for. Without a kind, pods and workloads are looked at; services and nodes only if asked
/// for, because a service nearly always shares its name with the workload behind it. `O(pods)`.
///
/// # Errors
/// [`LookupError`] if nothing, or more than one object, has the name.
pub fn find<'a>(
    cluster: &'a Cluster,
    kind: Option<Kind>,
    namespace: &str,
    name: &str,
) -> Result<Named<'a>, LookupError> {
    if kind == Some(Kind::Node) {
        return cluster.nodes.get(name).map(Named::Node).ok_or_else(|| LookupError::Unknown {
            what: "node".to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
            near: near(name, cluster.nodes.keys().map(|n| (&**n, format!("node/{n}")))),
        });
    }
    let candidates: Vec<Named<'a>> = everything(cluster)
        .into_iter()
        .filter(|(n, object, _)| *n == name && object.namespace() == Some(namespace) && fits(kind, object))
        .map(|(_, object, _)| object)
        .collect();
    let mut candidates = without_repetition(candidates);
    match candidates.len() {
        1 => Ok(candidates.remove(0)),
        0 => Err(unknown(cluster, kind, namespace, name)),
        _ => Err(LookupError::Ambiguous {
            name: name.to_owned(),
            candidates: candidates.iter().map(Named::to_string).collect(),
        }),
    }
}

impl Named<'_> {
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod(pod) => Some(&pod.key.namespace),
            Self::Workload(_, pods) => pods.first().map(|p| &*p.key.namespace),
            Self::Service(s) => Some(&s.key.namespace),
            Self::Node(_) => None,
        }
    }
}

fn fits(kind: Option<Kind>, object: &Named<'_>) -> bool {
    match (kind, object) {
        (None, Named::Pod(_) | Named::Workload(..))
        | (Some(Kind::Pod), Named::Pod(_))
        | (Some(Kind::Service), Named::Service(_))
        | (Some(Kind::Node), Named::Node(_)) => true,
        (Some(Kind::Workload(kind)), Named::Workload(w, _)) => &*w.kind == kind,
        _ => false,
    }
}

/// Every object with its name and full spelling.
fn everything(cluster: &Cluster) -> Vec<(&str, Named<'_>, String)> {
    let mut workloads: BTreeMap<(&Name, &Workload), Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.pods.values() {
        if let Some(w) = pod.workload.as_ref().filter(|w| &*w.kind != "Pod") {
            workloads.entry((&pod.key.namespace, w)).or_default().push(pod);
        }
    }
    let pods = cluster.pods.values().map(|p| (&*p.key.name, Named::Pod(p)));
    let workloads = workloads.into_iter().map(|((_, w), pods)| (&*w.name, Named::Workload(w, pods)));
    let services = cluster.services.values().map(|s| (&*s.key.name, Named::Service(s)));
    let nodes = cluster.nodes.values().map(|n| (&*n.name, Named::Node(n)));
    pods.chain(workloads)
        .chain(services)
        .chain(nodes)
        .map(|(name, object)| {
            let spelling = object.to_string();
            (name, object, spelling)
        })
        .collect()
}

/// A workload with one pod of its own name and that pod are the same answer: keep the workload.
fn without_repetition(found: Vec<Named<'_>>) -> Vec<Named<'_>> {
    let of_workloads: BTreeSet<&ObjectKey> = found
        .iter()
        .filter_map(|n| if let Named::Workload(_, pods) = n { Some(pods) } else { None })
        .filter(|pods| pods.len() == 1)
        .map(|pods| &pods[0].key)
        .collect();
    found.into_iter().filter(|n| !matches!(n, Named::Pod(p) if of_workloads.contains(&p.key))).collect()
}

fn unknown(cluster: &Cluster, kind: Option<Kind>, namespace: &str, name: &str) -> LookupError {
    let everything = everything(cluster);
    let exists = cluster.namespaces.contains_key(namespace)
        || everything.iter().any(|(_, object, _)| object.namespace() == Some(namespace));
    // The same name elsewhere is the likelier wish, before any spelling that is merely close.
    let elsewhere: Vec<String> = everything
        .iter()
        .filter(|(n, ..)| *n == name)
        .map(|(.., spelling)| spelling.clone())
        .take(MAX_NEAR)
        .collect();
    if !exists {
        let mut close = near(namespace, cluster.namespaces.keys().map(|n| (&**n, n.to_string())));
        close.extend(elsewhere);
        close.truncate(MAX_NEAR);
        return LookupError::Namespace { namespace: namespace.to_owned(), near: close };
    }
    let close = if elsewhere.is_empty() {
        let here = everything.iter().filter(|(_, o, _)| o.namespace() == Some(namespace));
        near(name, here.map(|(n, _, spelling)| (*n, spelling.clone())))
    } else {
        elsewhere
    };
    LookupError::Unknown {
        what: kind.map_or_else(|| "pod or workload".to_owned(), |k| k.to_string()),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        near: close,
    }
}

/// As many suggestions as a person reads.
const MAX_NEAR: usize = 3;

/// The candidates whose names come close to `name`, closest first.
fn near<'a>(name: &str, candidates: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    // A third of the letters may be wrong, as compilers allow; a name that begins with the wish is close as well.
    let limit = name.chars().count().div_ceil(3);
    let mut close: Vec<(usize, String)> = candidates
        .filter_map(|(candidate, spelling)| {
            let distance = edit_distance(name, candidate);
            let begins = candidate.len() > name.len() && candidate.starts_with(name);
            (distance <= limit || begins)
                .then_some((if begins { distance.min(limit) } else { distance }, spelling))
        })
        .collect();
    close.sort();
    close.dedup();
    close.into_iter().map(|(_, spelling)| spelling).take(MAX_NEAR).collect()
}

/// Levenshtein's distance in characters. `O(n·m)`; names are at most 253 characters long.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Why a pod can't be an end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// It owns its address no longer (SEMANTICS A48).
    #[error("pod {0} has finished ({1:?}): it owns no address any more, so nothing reaches it")]
    Finished(ObjectKey, Phase),
    /// It has no address yet (SEMANTICS A51).
    #[error("pod {0} has no address: give it one in `status.podIPs`, or wait until it has got one")]
    NoAddress(ObjectKey),
    /// It shares the network of a node whose address isn't known.
    #[error(
        "pod {0} shares its node's network, but neither `status.podIPs` nor its Node object gives an address"
    )]
    NoNodeAddress(ObjectKey),
}

/// The ends that a pod offers, one for each of its addresses. A pod that shares its node's network is that node
/// (G-4).
///
/// # Errors
/// [`NoEndpoint`] if it has none.
pub fn endpoints_of(cluster: &Cluster, pod: &Pod) -> Result<Vec<Endpoint>, NoEndpoint> {
    if matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
        return Err(NoEndpoint::Finished(pod.key.clone(), pod.phase));
    }
    if !pod.host_network {
        let live = |address: &IpAddr| Endpoint::Pod { key: pod.key.clone(), address: *address };
        return match pod.addresses.is_empty() {
            true => Err(NoEndpoint::NoAddress(pod.key.clone())),
            false => Ok(pod.addresses.iter().map(live).collect()),
        };
    }
    let node = pod.node.as_ref().and_then(|n| cluster.nodes.get(n));
    let addresses = match node {
        Some(node) if pod.addresses.is_empty() => &node.addresses,
        _ => &pod.addresses,
    };
    let name = node.map(|n| &n.name).or(pod.node.as_ref());
    match name {
        Some(name) if !addresses.is_empty() => {
            Ok(addresses.iter().map(|a| Endpoint::Node { name: name.clone(), address: *a }).collect())
        }
        None if !addresses.is_empty() => Ok(addresses.iter().map(|a| owner(cluster, *a)).collect()),
        _ => Err(NoEndpoint::NoNodeAddress(pod.key.clone())),
    }
}

/// Who has an address: the live pod that owns it, else the node, else somebody outside. `O(pods)`.
#[must_use]
pub fn owner(cluster: &Cluster, address: IpAddr) -> Endpoint {
    if let Some(pod) = cluster.pod_at(address) {
        return Endpoint::Pod { key: pod.key.clone(), address };
    }
    match cluster.node_at(address) {
        Some(node) => Endpoint::Node { name: node.name.clone(), address },
        None => Endpoint::External(address),
    }
}

/// The service that has a cluster address. `O(services)`.
#[must_use]
pub fn service_at(cluster: &Cluster, address: IpAddr) -> Option<&Service> {
    cluster.services.values().find(|s| s.addresses.contains(&address))
}

/// One pod behind one port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The protocol of the service port.
    pub protocol: Protocol,
    /// The port on the pod.
    pub port: u16,
    /// The port on the service.
    pub service_port: u16,
}

/// Why a service leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// It has no selector.
    #[error(
        "service {0} has no selector: its endpoints are kept by hand and are not part of what was read; ask for the \
         pods or addresses behind it instead"
    )]
    NoSelector(ObjectKey),
    /// No live pod fits the selector.
    #[error("service {service} has no endpoints: no running pod in namespace {} fits its selector {selector}", service.namespace)]
    NoPods {
        /// The service.
        service: ObjectKey,
        /// Its selector.
        selector: String,
    },
    /// It doesn't have this port.
    #[error("service {service} has no port {port}; it has {}", if known.is_empty() { "none" } else { known })]
    NoPort {
        /// The service.
        service: ObjectKey,
        /// The port asked for.
        port: String,
        /// Its ports.
        known: String,
    },
    /// No pod declares the container port that the service port leads to.
    #[error(
        "service {service} has no endpoints on port {port}: none of its {pods} pods declares a {protocol} container port \
         named `{name}`"
    )]
    NoNamedPort {
        /// The service.
        service: ObjectKey,
        /// The service port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The target port name.
        name: Name,
        /// How many pods were looked at.
        pods: usize,
    },
}

/// Which port of a service or pod is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSpec {
    /// By number.
    Number(u16),
    /// By name.
    Name(Name),
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Name(n) => f.write_str(n),
        }
    }
}

/// The pods and ports that a connection to a service may be translated to; without `port`, for every port of the
/// service, and without `protocol`, for every protocol. A pod that doesn't declare a named target port is no endpoint
/// of that port, as in the API's endpoint controller. `O(pods + ports)`.
///
/// # Errors
/// [`NoBackend`] if there are none, with the reason.
pub fn backends<'a>(
    cluster: &'a Cluster,
    service: &Service,
    protocol: Option<Protocol>,
    port: Option<&PortSpec>,
) -> Result<Vec<Backend<'a>>, NoBackend> {
    let key = || service.key.clone();
    let Some(selector) = &service.selector else { return Err(NoBackend::NoSelector(key())) };
    let pods: Vec<&Pod> = cluster
        .pods
        .values()
        .filter(|p| p.key.namespace == service.key.namespace && selector.matches(&p.labels))
        .filter(|p| endpoints_of(cluster, p).is_ok())
        .collect();
    if pods.is_empty() {
        return Err(NoBackend::NoPods { service: key(), selector: selector.to_string() });
    }
    let wanted = |p: &&crate::cluster::ServicePort| {
        protocol.is_none_or(|q| p.protocol == q)
            && match port {
                None => true,
                Some(PortSpec::Number(n)) => p.port == *n,
                Some(PortSpec::Name(n)) => p.name.as_ref() == Some(n),
            }
    };
    let ports: Vec<_> = service.ports.iter().filter(wanted).collect();
    if ports.is_empty() {
        let known: Vec<String> = service.ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect();
        let port = match (port, protocol) {
            (Some(port), Some(protocol)) => format!("{port}/{protocol}"),
            (Some(port), None) => port.to_string(),
            (None, Some(protocol)) => format!("with {protocol}"),
            (None, None) => "at all".to_owned(),
        };
        return Err(NoBackend::NoPort { service: key(), port, known: known.join(", ") });
    }
    let mut out = Vec::new();
    for p in ports {
        let before = out.len();
        for &pod in &pods {
            let numbers: BTreeSet<u16> = match &p.target {
                TargetPort::Number(n) => BTreeSet::from([*n]),
                TargetPort::Name(name) => pod.named_ports(name, Some(p.protocol)).map(|(_, n)| n).collect(),
            };
            out.extend(numbers.into_iter().map(|port| Backend {
                pod,
                protocol: p.protocol,
                port,
                service_port: p.port,
            }));
        }
        if let (true, TargetPort::Name(name)) = (out.len() == before, &p.target) {
            let (port, protocol, name) = (p.port, p.protocol, name.clone());
            return Err(NoBackend::NoNamedPort { service: key(), port, protocol, name, pods: pods.len() });
        }
    }
    Ok(out)
}

/// The ends of a list that have an address of this family.
pub fn of_family(endpoints: &[Endpoint], family: Family) -> impl Iterator<Item = &Endpoint> {
    endpoints.iter().filter(move |e| Family::of(e.address()) == family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerPort, Labels, Namespace, Selector, cluster::ServicePort};

    fn pod(namespace: &str, name: &str, workload: Option<(&str, &str)>, address: &str) -> Pod {
        Pod {
            key: ObjectKey::new(namespace, name),
            labels: Labels::from_iter([("app", workload.map_or(name, |w| w.1))]),
            addresses: vec![address.parse().unwrap()],
            node: Some("n1".into()),
            host_network: false,
            phase: Phase::Running,
            ports: vec![ContainerPort { name: Some("http".into()), protocol: Protocol::Tcp, port: 8080 }]
                .into(),
            created: 0,
            workload: workload.map(|(kind, name)| Workload { kind: kind.into(), name: name.into() }),
        }
    }

    fn cluster() -> Cluster {
        let mut c = Cluster::default();
        for ns in ["shop", "default"] {
            c.namespaces.insert(ns.into(), Namespace::new(ns, &Labels::default()));
        }
        let pods = [
            pod("shop", "web-1", Some(("Deployment", "web")), "10.0.0.1"),
            pod("shop", "web-2", Some(("Deployment", "web")), "10.0.0.2"),
            pod("shop", "db-0", Some(("StatefulSet", "db")), "10.0.0.3"),
            pod("shop", "twice-0", Some(("StatefulSet", "twice")), "10.0.0.4"),
            pod("shop", "twice-1", Some(("Deployment", "twice")), "10.0.0.5"),
            pod("shop", "alone", None, "10.0.0.6"),
        ];
        for p in pods {
            c.pods.insert(p.key.clone(), p);
        }
        let node = Node {
            name: "n1".into(),
            labels: Labels::default(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
        };
        c.nodes.insert("n1".into(), node);
        c
    }

    fn service(target: TargetPort, selector: Option<Selector>) -> Service {
        let port = ServicePort { name: Some("main".into()), protocol: Protocol::Tcp, port: 80, target };
        Service { key: ObjectKey::new("shop", "web"), addresses: vec![], selector, ports: vec![port] }
    }

    fn spelled(c: &Cluster, kind: Option<&str>, namespace: &str, name: &str) -> String {
        let kind = kind.map(|k| k.parse().unwrap());
        find(c, kind, namespace, name).map_or_else(|e| e.to_string(), |n| n.to_string())
    }

    #[test]
    fn names_stand_for_pods_workloads_nodes_and_services() {
        let mut c = cluster();
        assert_eq!(spelled(&c, None, "shop", "web"), "shop/deployment/web");
        assert_eq!(spelled(&c, Some("deploy"), "shop", "web"), "shop/deployment/web");
        assert_eq!(spelled(&c, Some("po"), "shop", "web-2"), "shop/pod/web-2");
        assert_eq!(spelled(&c, None, "shop", "alone"), "shop/pod/alone");
        assert_eq!(spelled(&c, Some("NODE"), "shop", "n1"), "node/n1");
        let s = service(TargetPort::Number(8080), None);
        c.services.insert(s.key.clone(), s);
        assert_eq!(spelled(&c, Some("svc"), "shop", "web"), "shop/svc/web");
        assert_eq!(spelled(&c, None, "shop", "web"), "shop/deployment/web", "services only when asked for");
        let Ok(Named::Workload(_, pods)) = find(&c, None, "shop", "web") else { panic!("no workload") };
        assert_eq!(pods.len(), 2);
    }

    #[test]
    fn a_name_with_several_owners_is_refused_with_the_list() {
        let message = spelled(&cluster(), None, "shop", "twice");
        assert_eq!(
            message,
            "`twice` is ambiguous: it may be shop/deployment/twice, shop/statefulset/twice; write one of these"
        );
        assert_eq!(spelled(&cluster(), Some("sts"), "shop", "twice"), "shop/statefulset/twice");
    }

    #[test]
    fn unknown_names_come_with_what_is_close() {
        let c = cluster();
        assert_eq!(
            spelled(&c, None, "shop", "gateway"),
            "there is no pod or workload `gateway` in namespace shop"
        );
        assert_eq!(
            spelled(&c, None, "shop", "alnoe"),
            "there is no pod or workload `alnoe` in namespace shop; did you mean shop/pod/alone?"
        );
        assert_eq!(
            spelled(&c, None, "default", "web"),
            "there is no pod or workload `web` in namespace default; did you mean shop/deployment/web?"
        );
        assert_eq!(
            spelled(&c, None, "shpo", "web"),
            "there is no namespace `shpo`; did you mean shop or shop/deployment/web?"
        );
        assert_eq!(spelled(&c, Some("node"), "shop", "n2"), "there is no node `n2`; did you mean node/n1?");
        assert!("gateway".parse::<Kind>().unwrap_err().to_string().contains("statefulset"));
    }

    #[test]
    fn an_end_is_a_live_pod_its_node_or_nothing() {
        let mut c = cluster();
        let mut p = pod("shop", "p", None, "10.0.0.9");
        assert_eq!(endpoints_of(&c, &p).unwrap().len(), 1);
        p.host_network = true;
        p.addresses.clear();
        let [Endpoint::Node { name, address }] = &endpoints_of(&c, &p).unwrap()[..] else {
            panic!("not the node")
        };
        assert_eq!((&**name, address.to_string()), ("n1", "192.0.2.1".to_owned()));
        p.host_network = false;
        assert_eq!(endpoints_of(&c, &p), Err(NoEndpoint::NoAddress(p.key.clone())));
        p.phase = Phase::Failed;
        assert!(matches!(endpoints_of(&c, &p), Err(NoEndpoint::Finished(..))));
        assert!(matches!(owner(&c, "10.0.0.1".parse().unwrap()), Endpoint::Pod { .. }));
        assert!(matches!(owner(&c, "192.0.2.1".parse().unwrap()), Endpoint::Node { .. }));
        assert!(matches!(owner(&c, "192.0.2.2".parse().unwrap()), Endpoint::External(_)));
        let mut s = service(TargetPort::Number(1), None);
        s.addresses = vec!["10.96.0.1".parse().unwrap()];
        c.services.insert(s.key.clone(), s);
        assert!(service_at(&c, "10.96.0.1".parse().unwrap()).is_some());
    }

    #[test]
    fn a_service_leads_to_the_ports_of_its_pods_or_says_why_not() {
        let mut c = cluster();
        let web = Some(Selector::of_labels([("app", "web")]));
        let ports = |c: &Cluster, s: &Service| {
            let all = backends(c, s, None, Some(&PortSpec::Number(80)));
            all.map(|b| b.iter().map(|b| (b.pod.key.name.to_string(), b.port)).collect::<Vec<_>>())
        };
        let named = service(TargetPort::Name("http".into()), web.clone());
        assert_eq!(ports(&c, &named).unwrap(), [("web-1".to_owned(), 8080), ("web-2".to_owned(), 8080)]);
        c.pods.get_mut(&ObjectKey::new("shop", "web-2")).unwrap().ports = vec![].into();
        assert_eq!(
            ports(&c, &named).unwrap(),
            [("web-1".to_owned(), 8080)],
            "no endpoint without the named port"
        );
        let missing = service(TargetPort::Name("nope".into()), web);
        assert!(ports(&c, &missing).unwrap_err().to_string().contains("none of its 2 pods declares"));
        assert!(matches!(ports(&c, &service(TargetPort::Number(1), None)), Err(NoBackend::NoSelector(_))));
        let nobody = Some(Selector::of_labels([("app", "nobody")]));
        assert!(matches!(ports(&c, &service(TargetPort::Number(1), nobody)), Err(NoBackend::NoPods { .. })));
        let error = backends(&c, &named, Some(Protocol::Udp), Some(&PortSpec::Number(80))).unwrap_err();
        assert_eq!(error.to_string(), "service shop/web has no port 80/UDP; it has 80/TCP");
        assert_eq!(backends(&c, &named, None, Some(&PortSpec::Name("main".into()))).unwrap().len(), 1);
    }
}
