//! Resolves names, as people write them, to objects of a [`Cluster`].
//!
//! Names are never guessed: a name of several objects is an error that lists them, and an unknown name is an error that
//! lists similar names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use palisade_policy::{Cluster, Name, Node, ObjectKey, Pod, Service, Workload};

use crate::{
    service_targets::{API_SERVER, API_SERVICE},
    spelling::{MAX_NEAR, near},
};

/// The kind of object that a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointKind {
    /// A pod.
    Pod,
    /// The pods of a workload, with the kind in the API's spelling, such as `Deployment`.
    Workload(&'static str),
    /// The network stack of a node.
    Node,
    /// The pods behind a service.
    Service,
}

/// The spellings of each kind, with kubectl's short names. Messages use the first one.
const SPELLINGS: [(EndpointKind, &[&str]); 20] = [
    (EndpointKind::Pod, &["pod", "pods", "po"]),
    (EndpointKind::Workload("Deployment"), &["deployment", "deployments", "deploy"]),
    (EndpointKind::Workload("StatefulSet"), &["statefulset", "statefulsets", "sts"]),
    (EndpointKind::Workload("DaemonSet"), &["daemonset", "daemonsets", "ds"]),
    (EndpointKind::Workload("ReplicaSet"), &["replicaset", "replicasets", "rs"]),
    (EndpointKind::Workload("Job"), &["job", "jobs"]),
    (EndpointKind::Workload("CronJob"), &["cronjob", "cronjobs", "cj"]),
    (
        EndpointKind::Workload("ReplicationController"),
        &["replicationcontroller", "replicationcontrollers", "rc"],
    ),
    (EndpointKind::Workload("Rollout"), &["rollout", "rollouts", "ro"]),
    (EndpointKind::Workload("DeploymentConfig"), &["deploymentconfig", "deploymentconfigs", "dc"]),
    (EndpointKind::Workload("KnativeService"), &["knativeservice", "kservice", "ksvc"]),
    (EndpointKind::Workload("CloneSet"), &["cloneset", "clonesets", "clone"]),
    (EndpointKind::Workload("AdvancedCronJob"), &["advancedcronjob", "advancedcronjobs", "acj"]),
    (EndpointKind::Workload("BroadcastJob"), &["broadcastjob", "broadcastjobs", "bcj"]),
    (EndpointKind::Workload("VirtualMachine"), &["virtualmachine", "virtualmachines", "vm", "vms"]),
    (
        EndpointKind::Workload("VirtualMachineInstance"),
        &["virtualmachineinstance", "virtualmachineinstances", "vmi", "vmis"],
    ),
    (
        EndpointKind::Workload("VirtualMachineInstanceReplicaSet"),
        &["virtualmachineinstancereplicaset", "virtualmachineinstancereplicasets", "vmirs"],
    ),
    (
        EndpointKind::Workload("VirtualMachinePool"),
        &["virtualmachinepool", "virtualmachinepools", "vmpool", "vmpools"],
    ),
    (EndpointKind::Node, &["node", "nodes", "no"]),
    (EndpointKind::Service, &["service", "services", "svc"]),
];

impl FromStr for EndpointKind {
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

impl fmt::Display for EndpointKind {
    /// Formats the singular in lower case, such as `deployment`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = SPELLINGS.iter().find(|(kind, _)| kind == self).map_or("object", |(_, words)| words[0]);
        f.write_str(word)
    }
}

/// A word that isn't a kind with a network endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{word}` is not a kind with network endpoints{suggestion}; use pod, deployment, statefulset, daemonset, replicaset, job, \
     cronjob, replicationcontroller, node or service, or kubectl's short name for one",
    word = .0, suggestion = did_you_mean(&near_kinds(.0))
)]
pub struct UnknownKind(pub String);

/// Returns the kinds that a word may be a misspelling of, in the singular.
fn near_kinds(word: &str) -> Vec<String> {
    let words = SPELLINGS.iter().flat_map(|(_, words)| words.iter().map(|w| (*w, words[0].to_owned())));
    // Short names are similar to nearly everything.
    let mut found = near(&word.to_ascii_lowercase(), words.filter(|(w, _)| w.len() > 3));
    found.dedup();
    found
}

/// The object that a name refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// A pod.
    Pod(&'a Pod),
    /// All pods of a workload, sorted by name.
    Workload(&'a Workload, Vec<&'a Pod>),
    /// A node.
    Node(&'a Node),
    /// A service.
    Service(&'a Service),
}

impl fmt::Display for Named<'_> {
    /// Formats the full spelling, such as `shop/deployment/web`.
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

/// Why a name doesn't refer to exactly one object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No such namespace.
    #[error("there is no namespace `{namespace}`{}", did_you_mean_or(near, known))]
    Namespace {
        /// The namespace.
        namespace: String,
        /// Similar names.
        near: Vec<String>,
        /// The first namespaces that there are, and how many more there are, as text. Empty if there are none.
        known: String,
    },
    /// No such object.
    #[error("there is no {what} `{name}`{}{}", in_namespace(namespace), did_you_mean_or(near, known))]
    Unknown {
        /// The kind, or `pod or workload` if none was given.
        what: String,
        /// The namespace; empty for nodes.
        namespace: String,
        /// The name.
        name: String,
        /// Full spellings of similar names.
        near: Vec<String>,
        /// The first of the names that there are, and how many more there are, as text. Empty if there are none.
        known: String,
    },
    /// Several objects have the name.
    #[error("`{name}` is ambiguous: it may be {}; write one of these", candidates.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The full spellings of the objects.
        candidates: Vec<String>,
    },
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

fn did_you_mean_or(near: &[String], known: &str) -> String {
    match known {
        "" => did_you_mean(near),
        _ if !near.is_empty() => did_you_mean(near),
        several if several.contains(", ") => format!("; there are {several}"),
        one => format!("; there is {one}"),
    }
}

fn in_namespace(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") }
}

/// Finds the object that `name` refers to. Without a kind, only pods and workloads are considered, because a service
/// almost always has the name of the workload behind it. `O(pods)`.
///
/// # Errors
/// [`LookupError`] if no object, or more than one, has the name.
pub fn find<'a>(
    cluster: &'a Cluster,
    kind: Option<EndpointKind>,
    namespace: &str,
    name: &str,
) -> Result<Named<'a>, LookupError> {
    if kind == Some(EndpointKind::Node) {
        return cluster.nodes.get(name).map(Named::Node).ok_or_else(|| LookupError::Unknown {
            what: "node".to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
            near: near(name, cluster.nodes.keys().map(|n| (&**n, format!("node/{n}")))),
            known: first_of(cluster.nodes.keys().map(|n| format!("node/{n}"))),
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
        0 if kind == Some(EndpointKind::Service) && (namespace, name) == API_SERVER => {
            Ok(Named::Service(&API_SERVICE))
        }
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

fn fits(kind: Option<EndpointKind>, object: &Named<'_>) -> bool {
    match (kind, object) {
        (None, Named::Pod(_) | Named::Workload(..))
        | (Some(EndpointKind::Pod), Named::Pod(_))
        | (Some(EndpointKind::Service), Named::Service(_))
        | (Some(EndpointKind::Node), Named::Node(_)) => true,
        (Some(EndpointKind::Workload(kind)), Named::Workload(w, _)) => &*w.kind == kind,
        _ => false,
    }
}

/// Returns every object with its name and full spelling.
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

/// Drops a pod if a workload with only this pod has the same name.
fn without_repetition(found: Vec<Named<'_>>) -> Vec<Named<'_>> {
    let of_workloads: BTreeSet<&ObjectKey> = found
        .iter()
        .filter_map(|n| if let Named::Workload(_, pods) = n { Some(pods) } else { None })
        .filter(|pods| pods.len() == 1)
        .map(|pods| &pods[0].key)
        .collect();
    found.into_iter().filter(|n| !matches!(n, Named::Pod(p) if of_workloads.contains(&p.key))).collect()
}

fn unknown(cluster: &Cluster, kind: Option<EndpointKind>, namespace: &str, name: &str) -> LookupError {
    let everything = everything(cluster);
    let exists = cluster.namespaces.contains_key(namespace)
        || everything.iter().any(|(_, object, _)| object.namespace() == Some(namespace));
    // The same name in another namespace is more likely than a similar name.
    let elsewhere: Vec<String> = everything
        .iter()
        .filter(|(n, ..)| *n == name)
        .map(|(.., spelling)| spelling.clone())
        .take(MAX_NEAR)
        .collect();
    if !exists {
        // `deployement/web` reads as namespace and name.
        let mut close: Vec<String> = match kind {
            None => near_kinds(namespace)
                .iter()
                .filter(|kind| {
                    kind.parse().is_ok_and(|kind| !find_anywhere(cluster, Some(kind), name).is_empty())
                })
                .map(|kind| format!("{kind}/{name}"))
                .collect(),
            Some(_) => Vec::new(),
        };
        close.extend(near(namespace, cluster.namespaces.keys().map(|n| (&**n, n.to_string()))));
        close.extend(elsewhere);
        close.truncate(MAX_NEAR);
        let known = first_of(cluster.namespaces.keys().map(ToString::to_string));
        return LookupError::Namespace { namespace: namespace.to_owned(), near: close, known };
    }
    let here = || everything.iter().filter(|(_, o, _)| o.namespace() == Some(namespace));
    let close = if elsewhere.is_empty() {
        near(name, here().map(|(n, _, spelling)| (*n, spelling.clone())))
    } else {
        elsewhere
    };
    let mut known: Vec<&String> = here().filter(|(_, o, _)| is_listed(kind, o)).map(|(.., s)| s).collect();
    known.sort();
    let known = first_of(known.into_iter().cloned());
    LookupError::Unknown {
        what: kind.map_or_else(|| "pod or workload".to_owned(), |k| k.to_string()),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        near: close,
        known,
    }
}

/// How many names an error lists.
const MAX_KNOWN: usize = 8;

fn first_of(mut names: impl Iterator<Item = String>) -> String {
    let first: Vec<String> = names.by_ref().take(MAX_KNOWN).collect();
    let more = names.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// Returns the error for a name without a namespace that nothing has in any namespace. `O(pods)`.
#[must_use]
pub fn unknown_anywhere(cluster: &Cluster, kind: Option<EndpointKind>, name: &str) -> LookupError {
    let everything = everything(cluster);
    let named = everything.iter().filter(|(_, object, _)| fits(kind, object) && is_listed(kind, object));
    LookupError::Unknown {
        what: kind.map_or_else(|| "pod or workload".to_owned(), |k| k.to_string()),
        namespace: String::new(),
        name: name.to_owned(),
        near: near(name, named.clone().map(|(n, _, spelling)| (*n, spelling.clone()))),
        known: first_of(named.map(|(.., spelling)| spelling.clone())),
    }
}

/// Returns whether errors list an object among those that there are. Pods of workloads are known by their workloads.
fn is_listed(kind: Option<EndpointKind>, object: &Named<'_>) -> bool {
    match (kind, object) {
        (None, Named::Pod(pod)) => pod.workload.as_ref().is_none_or(|w| &*w.kind == "Pod"),
        _ => fits(kind, object),
    }
}

/// Returns the pods and workloads with a name in all namespaces, or those of a kind. `O(pods)`.
#[must_use]
pub fn find_anywhere<'a>(cluster: &'a Cluster, kind: Option<EndpointKind>, name: &str) -> Vec<Named<'a>> {
    let found = everything(cluster).into_iter().filter(|(n, object, _)| *n == name && fits(kind, object));
    without_repetition(found.map(|(_, object, _)| object).collect())
}

#[cfg(test)]
mod tests {
    use palisade_policy::TargetPort;

    use super::*;
    use crate::sample::{cluster, service};

    fn spelled(c: &Cluster, kind: Option<&str>, namespace: &str, name: &str) -> String {
        let kind = kind.map(|k| k.parse().unwrap());
        find(c, kind, namespace, name).map_or_else(|e| e.to_string(), |n| n.to_string())
    }

    #[test]
    fn names_refer_to_pods_workloads_nodes_and_services() {
        let mut c = cluster();
        assert_eq!(spelled(&c, None, "shop", "web"), "shop/deployment/web");
        assert_eq!(spelled(&c, Some("deploy"), "shop", "web"), "shop/deployment/web");
        assert_eq!(spelled(&c, Some("po"), "shop", "web-2"), "shop/pod/web-2");
        assert_eq!(spelled(&c, None, "shop", "alone"), "shop/pod/alone");
        assert_eq!(spelled(&c, Some("NODE"), "shop", "n1"), "node/n1");
        let s = service(TargetPort::Number(8080), None);
        c.services.insert(s.key.clone(), s);
        assert_eq!(spelled(&c, Some("svc"), "shop", "web"), "shop/svc/web");
        assert_eq!(spelled(&c, None, "shop", "web"), "shop/deployment/web", "services only with a kind");
        let Ok(Named::Workload(_, pods)) = find(&c, None, "shop", "web") else { panic!("no workload") };
        assert_eq!(pods.len(), 2);
    }

    #[test]
    fn an_ambiguous_name_is_an_error_that_lists_the_objects() {
        let message = spelled(&cluster(), None, "shop", "twice");
        assert_eq!(
            message,
            "`twice` is ambiguous: it may be shop/deployment/twice, shop/statefulset/twice; write one of these"
        );
        assert_eq!(spelled(&cluster(), Some("sts"), "shop", "twice"), "shop/statefulset/twice");
    }

    #[test]
    fn unknown_names_come_with_similar_ones() {
        let c = cluster();
        assert_eq!(
            spelled(&c, None, "shop", "gateway"),
            "there is no pod or workload `gateway` in namespace shop; there are shop/deployment/twice, shop/deployment/web, \
             shop/pod/alone, shop/statefulset/db, shop/statefulset/twice"
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
        assert_eq!(
            spelled(&c, None, "deployement", "web"),
            "there is no namespace `deployement`; did you mean deployment/web or shop/deployment/web?"
        );
        assert!(
            spelled(&c, None, "nope", "x").starts_with("there is no namespace `nope`; there are "),
            "no node has the name: {}",
            spelled(&c, None, "nope", "x")
        );
        assert!(
            spelled(&c, None, "quarterly", "report")
                .starts_with("there is no namespace `quarterly`; there are "),
            "{}",
            spelled(&c, None, "quarterly", "report")
        );
        assert_eq!(
            unknown_anywhere(&c, None, "alnoe").to_string(),
            "there is no pod or workload `alnoe`; did you mean shop/pod/alone?"
        );
        let kind = "deploymnet".parse::<EndpointKind>().unwrap_err().to_string();
        assert!(kind.contains("did you mean deployment?"), "{kind}");
        assert_eq!(find_anywhere(&c, None, "web").len(), 1);
        assert!("gateway".parse::<EndpointKind>().unwrap_err().to_string().contains("statefulset"));
    }
}
