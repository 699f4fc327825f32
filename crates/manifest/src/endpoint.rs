//! Finding what a user names: `web-0`, `shop/web-0`, `deployment/web`, `shop/deploy/web`, `svc/web`.

use palisade_policy::{Cluster, Name, ObjectKey, Pod, Service, Workload};

use crate::{decode::distance, load::Loaded};

/// The spellings of kinds, as kubectl knows them: every spelling, in lower case, and the kind.
const KINDS: &[(&[&str], &str)] = &[
    (&["pod", "pods", "po"], "Pod"),
    (&["service", "services", "svc"], "Service"),
    (&["deployment", "deployments", "deploy"], "Deployment"),
    (&["statefulset", "statefulsets", "sts"], "StatefulSet"),
    (&["daemonset", "daemonsets", "ds"], "DaemonSet"),
    (&["replicaset", "replicasets", "rs"], "ReplicaSet"),
    (&["replicationcontroller", "replicationcontrollers", "rc"], "ReplicationController"),
    (&["job", "jobs"], "Job"),
    (&["cronjob", "cronjobs", "cj"], "CronJob"),
];

/// A name that a user wrote, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The namespace, given or default.
    pub namespace: Name,
    /// The kind in the API's spelling, if it was given.
    pub kind: Option<&'static str>,
    /// The name.
    pub name: Name,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A pod, or the pods of a workload; sorted.
    Pods {
        /// Whose pods they are.
        workload: Workload,
        /// The pods; empty for a workload scaled to none.
        pods: Vec<ObjectKey>,
    },
    /// A service and the pods behind it; sorted.
    Service {
        /// The service.
        service: ObjectKey,
        /// The pods that its selector chooses; empty for one without selector.
        pods: Vec<ObjectKey>,
    },
}

impl Found {
    /// The pods, however they were named.
    #[must_use]
    pub fn pods(&self) -> &[ObjectKey] {
        match self {
            Self::Pods { pods, .. } | Self::Service { pods, .. } => pods,
        }
    }
}

/// Why a name stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// It isn't `[NAMESPACE/][KIND/]NAME`.
    #[error("`{0}` is not [NAMESPACE/][KIND/]NAME")]
    Malformed(String),
    /// Three parts, and the middle one is no kind.
    #[error(
        "`{0}` is no kind that has pods; use pod, service, deployment, statefulset, daemonset, replicaset, job or cronjob"
    )]
    UnknownKind(String),
    /// Nothing of that name is there.
    #[error("{what} `{name}` not found in namespace `{namespace}`{}", near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NotFound {
        /// What was looked for: a kind in lower case, or `pod or workload`.
        what: String,
        /// Its name.
        name: String,
        /// Where.
        namespace: String,
        /// What the user may have meant, in the spelling that would find it.
        near: Option<String>,
    },
    /// More than one workload has that name.
    #[error("`{name}` may be {}: name the kind", choices.join(" or "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The spellings that tell them apart.
        choices: Vec<String>,
    },
}

impl Reference {
    /// Takes `[NAMESPACE/][KIND/]NAME` apart. In `a/b`, `a` is a kind if there is one of that name, else a namespace.
    pub fn parse(text: &str, default_namespace: &str) -> Result<Self, FindError> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|p| p.is_empty() || p.contains(char::is_whitespace)) {
            return Err(FindError::Malformed(text.to_owned()));
        }
        let (namespace, kind, name) = match parts[..] {
            [name] => (default_namespace, None, name),
            [first, name] => match kind_of(first) {
                Some(kind) => (default_namespace, Some(kind), name),
                None => (first, None, name),
            },
            [namespace, kind, name] => {
                let kind = kind_of(kind).ok_or_else(|| FindError::UnknownKind(kind.to_owned()))?;
                (namespace, Some(kind), name)
            }
            _ => return Err(FindError::Malformed(text.to_owned())),
        };
        Ok(Self { namespace: namespace.into(), kind, name: name.into() })
    }
}

fn kind_of(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    // kubectl takes `deployments.apps` too.
    let plain = lower.split('.').next().unwrap_or_default();
    KINDS.iter().find(|(spellings, _)| spellings.contains(&plain)).map(|(_, kind)| *kind)
}

impl Loaded {
    /// Finds what `[NAMESPACE/][KIND/]NAME` stands for. Without a kind: the pod of that name, else the one workload,
    /// else the service.
    pub fn find(&self, text: &str, default_namespace: &str) -> Result<Found, FindError> {
        let reference = Reference::parse(text, default_namespace)?;
        match reference.kind {
            Some("Pod") => self.pod(&reference),
            Some("Service") => self.service(&reference),
            Some(kind) => self.workload(&reference, kind),
            None => self.any(&reference),
        }
        .ok_or_else(|| self.not_found(&reference))?
    }

    fn pod(&self, reference: &Reference) -> Option<Result<Found, FindError>> {
        let key = ObjectKey { namespace: reference.namespace.clone(), name: reference.name.clone() };
        let pod = self.cluster.pods.get(&key)?;
        let own = || Workload { kind: "Pod".into(), name: key.name.clone() };
        Some(Ok(Found::Pods { workload: pod.workload.clone().unwrap_or_else(own), pods: vec![key] }))
    }

    fn service(&self, reference: &Reference) -> Option<Result<Found, FindError>> {
        let key = ObjectKey { namespace: reference.namespace.clone(), name: reference.name.clone() };
        let service = self.cluster.services.get(&key)?;
        let pods = service_pods(&self.cluster, service).map(|p| p.key.clone()).collect();
        Some(Ok(Found::Service { service: key, pods }))
    }

    fn workload(&self, reference: &Reference, kind: &str) -> Option<Result<Found, FindError>> {
        let workload = Workload { kind: kind.into(), name: reference.name.clone() };
        let pods = self.workloads.get(&(reference.namespace.clone(), workload.clone()))?.clone();
        Some(Ok(Found::Pods { workload, pods }))
    }

    fn any(&self, reference: &Reference) -> Option<Result<Found, FindError>> {
        if let Some(found) = self.pod(reference) {
            return Some(found);
        }
        let kinds = KINDS.iter().map(|(_, kind)| *kind).filter(|k| *k != "Pod" && *k != "Service");
        let mut found: Vec<(&str, Result<Found, FindError>)> =
            kinds.filter_map(|kind| Some((kind, self.workload(reference, kind)?))).collect();
        match found.len() {
            0 => self.service(reference),
            1 => found.pop().map(|(_, found)| found),
            _ => Some(Err(FindError::Ambiguous {
                name: reference.name.to_string(),
                choices: found.iter().map(|(kind, _)| spelling(kind, &reference.name)).collect(),
            })),
        }
    }

    fn not_found(&self, reference: &Reference) -> FindError {
        FindError::NotFound {
            what: reference.kind.map_or_else(|| "pod or workload".to_owned(), str::to_lowercase),
            name: reference.name.to_string(),
            namespace: reference.namespace.to_string(),
            near: self.near(reference),
        }
    }

    /// The same name in another namespace, else a name in this namespace that a slip would give.
    fn near(&self, reference: &Reference) -> Option<String> {
        let kind_fits = |kind: &str| reference.kind.is_none_or(|k| k == kind);
        let pods = self.cluster.pods.keys().map(|k| (&k.namespace, "Pod", &k.name));
        let services = self.cluster.services.keys().map(|k| (&k.namespace, "Service", &k.name));
        let workloads = self.workloads.keys().map(|(ns, w)| (ns, &*w.kind, &w.name));
        let all = workloads.chain(services).chain(pods).filter(|(_, kind, _)| kind_fits(kind));
        let mut best: Option<(usize, String)> = None;
        for (namespace, kind, name) in all {
            let here = *namespace == reference.namespace;
            let edits = match (here, name == &reference.name) {
                (false, true) => 0,
                (false, false) => continue,
                (true, _) => match distance(&reference.name, name) {
                    Some(edits) => edits + 1,
                    None => continue,
                },
            };
            if best.as_ref().is_none_or(|(least, _)| edits < *least) {
                let spelled = if kind == "Pod" { name.to_string() } else { spelling(kind, name) };
                best = Some((edits, if here { spelled } else { format!("{namespace}/{spelled}") }));
            }
        }
        best.map(|(_, text)| text)
    }
}

fn spelling(kind: &str, name: &str) -> String {
    format!("{}/{name}", kind.to_lowercase())
}

/// The live pods behind a service: those of its namespace that its selector chooses, in the order of their names.
pub fn service_pods<'c>(cluster: &'c Cluster, service: &'c Service) -> impl Iterator<Item = &'c Pod> {
    let first = ObjectKey { namespace: service.key.namespace.clone(), name: Name::from("") };
    cluster
        .pods
        .range(first..)
        .take_while(|(key, _)| key.namespace == service.key.namespace)
        .map(|(_, pod)| pod)
        .filter(|pod| service.selector.as_ref().is_some_and(|s| s.matches(&pod.labels)))
        // A host-network pod serves at its node's address.
        .filter(|pod| pod.is_live() || (pod.host_network && !pod.addresses.is_empty()))
}
