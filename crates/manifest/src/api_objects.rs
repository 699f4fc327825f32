//! Decodes objects that an API server sends as JSON.
//!
//! A watch delivers up to a hundred thousand pods, and decisions need about a twentieth of each. So pods, nodes and
//! namespaces are deserialized into slim types ([`ApiPod`] …) that skip all other fields and borrow strings without
//! escapes. The meaning of their fields is decided by the same functions as for manifests. Policies are few and
//! complex, as are Services: they are decoded like manifests, through [`crate::tree`].
//!
//! An invalid object is no error here. [`Decoded`] holds the value to use instead, which fails closed.

use std::{net::IpAddr, sync::Arc};

use palisade_policy::{
    AnnotatedSources, ContainerPort, Deny, Interner, Labels, MODE_KEY, Name, Namespace, Node, ObjectKey,
    Phase, Pod, Policy, Protocol, Service, Uid, Workload,
};

use crate::{
    allow_source,
    declared::Declaration,
    deny,
    diagnostic::{Code, Diagnostic, Severity},
    meta::{self, Owner},
    mode, names,
    network_policy::protocol_named,
    node, pod,
    workload::{POD_TEMPLATE_HASH, deployment_of},
};

mod fields;
mod policy;
mod whole;

pub use fields::{
    ApiAnnotations, ApiContainer, ApiContainerPort, ApiNode, ApiNodeAddress, ApiNodeSpec, ApiNodeStatus,
    ApiObjectMeta, ApiOwnerReference, ApiPod, ApiPodIp, ApiPodSpec, ApiPodStatus, JsonString, List,
    StringMap,
};

/// A decoded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    /// The value to use.
    pub value: T,
    /// Errors and warnings. They have no position, since users can't open the text; their paths name the field.
    pub findings: Vec<Diagnostic>,
}

/// Decodes objects of an API server. Equal names, label sets and port lists share memory across all objects of one
/// decoder.
#[derive(Debug, Default)]
pub struct ObjectDecoder {
    names: Interner,
}

impl ObjectDecoder {
    /// Returns the shared form of a name.
    #[must_use]
    pub fn name(&mut self, text: &str) -> Name {
        self.names.name(text)
    }

    /// Decodes a pod. Invalid addresses and ports are left out. An unknown phase counts as `Unknown`, in which the pod
    /// keeps its policies. `O(fields)`.
    pub fn pod(&mut self, object: &ApiPod<'_>) -> Decoded<Pod> {
        let mut found = Findings::of("Pod", &object.metadata);
        let labels = self.labels(&object.metadata);
        // Pod names are rarely equal, so sharing them would not save memory.
        let key = ObjectKey {
            namespace: self.names.name(&object.metadata.namespace),
            name: Name::from(&*object.metadata.name),
        };
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();
        let annotations = object.metadata.annotations.as_ref();
        let phase = match pod::phase_named(status.map_or("", |s| &s.phase)) {
            Ok(phase) => phase.unwrap_or_default(),
            Err(message) => {
                found.warn("status.phase", Code::Invalid, message + "; it counts as Unknown");
                Phase::Unknown
            }
        };
        let pod = Pod {
            addresses: status.map(|s| addresses(s, &mut found)).unwrap_or_default(),
            node: spec.filter(|s| !s.node_name.is_empty()).map(|s| self.names.name(&s.node_name)),
            host_network: spec.is_some_and(|s| s.host_network),
            phase,
            ports: self.ports(spec, &mut found),
            created: meta::epoch_seconds(&object.metadata.creation_timestamp).unwrap_or(0),
            uid: uid(&object.metadata),
            workload: Some(self.workload(object, &labels, &key.name)),
            allow_source: found
                .sources(annotations.and_then(|all| all.allow_source.as_deref()), allow_source::POD),
            labels,
            key,
        };
        Decoded { value: pod, findings: found.list }
    }

    /// Decodes a node. `O(fields)`.
    pub fn node(&mut self, object: &ApiNode<'_>) -> Decoded<Node> {
        let mut addresses = Vec::new();
        for entry in object.status.iter().flat_map(|s| s.addresses.iter()) {
            node::add_address(&entry.address, &mut addresses);
        }
        let mut pod_cidrs = Vec::new();
        if let Some(spec) = &object.spec {
            spec.pod_cidrs.iter().for_each(|cidr| node::add_cidr(cidr, &mut pod_cidrs));
            node::add_cidr(&spec.pod_cidr, &mut pod_cidrs);
        }
        let node = Node {
            name: self.names.name(&object.metadata.name),
            labels: self.labels(&object.metadata),
            addresses,
            pod_cidrs,
        };
        Decoded { value: node, findings: Vec::new() }
    }

    /// Decodes a namespace from its metadata.
    pub fn namespace(&mut self, object: &ApiObjectMeta<'_>) -> Decoded<Namespace> {
        let labels = self.labels(object);
        let mut found = Findings::of("Namespace", object);
        if let Some(value) = labels.get(MODE_KEY)
            && let Some(message) = mode::problem(value, "policies of the namespace are enforced")
        {
            found.warn("metadata.labels", Code::Ambiguous, message);
        }
        let deny = object.annotations.as_ref().and_then(|all| all.deny.as_deref());
        if let Some(message) = deny.and_then(deny::problem) {
            found.warn("metadata.annotations", Code::Ambiguous, message);
        }
        let namespace = Namespace {
            deny: deny.map(Deny::of_value),
            allow_source_within: found.sources(
                object.annotations.as_ref().and_then(|all| all.allow_source_within.as_deref()),
                allow_source::NAMESPACE,
            ),
            ..Namespace::new(self.names.name(&object.name), &labels)
        };
        Decoded { value: namespace, findings: found.list }
    }

    /// Decodes a policy of any kind from its JSON text: `apiVersion`, `kind`, `metadata` with name, namespace and
    /// the annotation [`MODE_KEY`], and `spec`. Other metadata is ignored.
    ///
    /// If the policy can't be decoded:
    /// * A NetworkPolicy isolates the pods of its `podSelector` in both directions, without rules. If the selector is
    ///   invalid as well, it isolates every pod of its namespace. What it should allow is unknown, and leaving it out
    ///   would open the pods that it should isolate. An unknown field in its `spec` could restrict other fields, so it
    ///   also removes the rules of the policy, in the directions that it isolates.
    /// * A cluster-wide policy is `None`, since it can't be ordered without tier and priority. The caller keeps the
    ///   previous version. (Anything else invalid in it fails closed rule by rule: SEMANTICS C23, C24, G-16, G-17.)
    pub fn policy(&mut self, object: String) -> Decoded<Option<Arc<Policy>>> {
        policy::read(&self.names, object)
    }

    /// Decodes a Service from the text of a JSON object with `apiVersion`, `kind`, `metadata` with name and namespace, `spec` and `status`.
    /// Invalid addresses and ports are left out; `None` if it is no object at all. There are no findings: the API server has checked the
    /// Service, and fields of later versions say nothing about the addresses and ports of this one. `O(bytes)`.
    pub fn service(&mut self, object: String) -> Option<Service> {
        let read = whole::read(&self.names, object, |_, _, declared, _| match declared {
            Some(Declaration::Service(declared)) => Some(declared.service),
            _ => None,
        });
        read.value
    }

    fn labels(&mut self, object: &ApiObjectMeta<'_>) -> Labels {
        let pairs = object.labels.iter().flat_map(|l| &l.0);
        self.names.labels(pairs.map(|(k, v)| (&**k, &**v)))
    }

    fn ports(&mut self, spec: Option<&ApiPodSpec<'_>>, found: &mut Findings<'_>) -> Arc<[ContainerPort]> {
        let mut out = Vec::new();
        let containers = spec.iter().flat_map(|s| s.containers.iter()).map(|c| (c, false));
        let init = spec.iter().flat_map(|s| s.init_containers.iter()).map(|c| (c, true));
        for (container, init) in containers.chain(init) {
            if !pod::keeps_running(init, Some(&container.restart_policy)) {
                continue;
            }
            for declared in container.ports.iter() {
                match self.port(declared) {
                    Ok(port) if out.contains(&port) => {}
                    Ok(port) => out.push(port),
                    Err(message) => found.warn("spec.containers", Code::Invalid, message),
                }
            }
        }
        self.names.ports(&out)
    }

    fn port(&mut self, declared: &ApiContainerPort<'_>) -> Result<ContainerPort, String> {
        let number = declared.container_port;
        let wrong = |why: &str| format!("Invalid value: {number}: {why}; the port is ignored");
        let protocol = match &*declared.protocol {
            "" => Protocol::Tcp,
            text => protocol_named(text).ok_or_else(|| wrong("its protocol is not TCP, UDP or SCTP"))?,
        };
        if let Some(why) = names::port_number(number) {
            return Err(wrong(why));
        }
        let port = u16::try_from(number).map_err(|_| wrong("is no port number"))?;
        let name = (!declared.name.is_empty()).then(|| self.names.name(&declared.name));
        // The agent evaluates what is translated already.
        Ok(ContainerPort { name, protocol, port, host_port: None })
    }

    /// Returns the workload that a pod belongs to: its controller, or the Deployment of that ReplicaSet.
    fn workload(&mut self, object: &ApiPod<'_>, labels: &Labels, pod_name: &Name) -> Workload {
        let owners = object.metadata.owner_references.iter();
        let owners = owners.map(|o| Owner { kind: &*o.kind, name: &*o.name, is_controller: o.controller });
        let Some(Owner { kind, name, .. }) = meta::controller(owners) else {
            return Workload { kind: self.names.name("Pod"), name: pod_name.clone() };
        };
        match deployment_of(kind, name, labels.get(POD_TEMPLATE_HASH)) {
            Some(deployment) => {
                Workload { kind: self.names.name("Deployment"), name: self.names.name(deployment) }
            }
            None => Workload { kind: self.names.name(kind), name: self.names.name(name) },
        }
    }
}

/// Reads `podIPs`, or `podIP` if there is no list (A50).
fn addresses(status: &ApiPodStatus<'_>, found: &mut Findings<'_>) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for entry in status.pod_ips.iter() {
        if let Err(message) = pod::add_address(&entry.ip, &mut out) {
            found.warn("status.podIPs", Code::Invalid, format!("Invalid value: {:?}: {message}", entry.ip));
        }
    }
    if out.is_empty()
        && let Err(message) = pod::add_address(&status.pod_ip, &mut out)
    {
        found.warn("status.podIP", Code::Invalid, format!("Invalid value: {:?}: {message}", status.pod_ip));
    }
    out
}

/// Collects findings about one object. Its name is only formatted if there are any.
struct Findings<'f> {
    kind: &'static str,
    metadata: &'f ApiObjectMeta<'f>,
    list: Vec<Diagnostic>,
}

impl<'f> Findings<'f> {
    fn of(kind: &'static str, metadata: &'f ApiObjectMeta<'f>) -> Self {
        Self { kind, metadata, list: Vec::new() }
    }

    /// Parses an annotation that lists sources. A wrong one allows none.
    fn sources(&mut self, value: Option<&str>, annotation: allow_source::Annotation) -> AnnotatedSources {
        allow_source::parse(value.unwrap_or_default(), annotation).unwrap_or_else(|message| {
            self.warn("metadata.annotations", Code::Ambiguous, message);
            AnnotatedSources::default()
        })
    }

    fn warn(&mut self, path: &str, code: Code, message: String) {
        let ApiObjectMeta { namespace, name, .. } = self.metadata;
        self.list.push(Diagnostic {
            path: Some(path.to_owned()),
            object: Some(match namespace.is_empty() {
                true => format!("{} {}", self.kind, &**name),
                false => format!("{} {}/{}", self.kind, &**namespace, &**name),
            }),
            ..Diagnostic::new(Severity::Warning, code, message)
        });
    }
}

/// The pod's UID as container runtimes know it: that of a static pod is the kubelet's, and its mirror in the API server has another one.
fn uid(metadata: &ApiObjectMeta<'_>) -> Uid {
    let of_static = metadata.annotations.as_ref().map(|a| Uid::parse(&a.mirror));
    of_static.filter(|uid| *uid != Uid::UNKNOWN).unwrap_or_else(|| Uid::parse(&metadata.uid))
}

#[cfg(test)]
mod tests;
