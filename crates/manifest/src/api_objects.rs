//! Objects as an API server sends them, to domain values.
//!
//! A watch delivers a hundred thousand pods, of which a decision needs a twentieth. So pods, nodes and namespaces have
//! slim types here ([`ApiPod`] …) that skip the rest while they are decoded, and borrow from the text what has no escape
//! in it. What their fields mean is decided by the same functions as for manifests. Policies are few and intricate:
//! they go the way of manifests, through [`crate::tree`].
//!
//! What is wrong with an object never stops anything. [`Decoded`] says what is taken in instead, and it fails closed.

use std::{net::IpAddr, sync::Arc};

use palisade_policy::{
    ContainerPort, Interner, Labels, Name, Namespace, Node, ObjectKey, Phase, Pod, Policy, Protocol, Workload,
};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    meta, names,
    network_policy::protocol_named,
    node, pod,
    workload::{POD_TEMPLATE_HASH, deployment_of},
};

mod fields;
mod policy;

pub use fields::{
    ApiContainer, ApiContainerPort, ApiNode, ApiNodeAddress, ApiNodeStatus, ApiObjectMeta, ApiOwnerReference,
    ApiPod, ApiPodIp, ApiPodSpec, ApiPodStatus, JsonString, List, StringMap,
};

/// What was made of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    /// The value to use.
    pub value: T,
    /// What is wrong with the object. Nobody can open the text that it came in, so no finding has a position; paths say
    /// what it is about.
    pub findings: Vec<Diagnostic>,
}

/// Makes domain values of live objects. Equal names, label sets and port lists share their memory, across all objects that
/// one decoder has read and that somebody still holds.
#[derive(Debug, Default)]
pub struct ObjectDecoder {
    names: Interner,
}

impl ObjectDecoder {
    /// The shared form of a name.
    #[must_use]
    pub fn name(&mut self, text: &str) -> Name {
        self.names.name(text)
    }

    /// A pod. An address or a port that can't be used is left out, and a phase that we don't know counts as `Unknown`,
    /// with which the pod keeps its policies. `O(fields)`.
    pub fn pod(&mut self, live: &ApiPod<'_>) -> Decoded<Pod> {
        let mut found = Findings::of("Pod", &live.metadata);
        let labels = self.labels(&live.metadata);
        // A pod's own name is its own: sharing would only cost.
        let key = ObjectKey {
            namespace: self.names.name(&live.metadata.namespace),
            name: Name::from(&*live.metadata.name),
        };
        let spec = live.spec.as_ref();
        let status = live.status.as_ref();
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
            created: meta::epoch_seconds(&live.metadata.creation_timestamp).unwrap_or(0),
            workload: Some(self.workload(live, &labels, &key.name)),
            labels,
            key,
        };
        Decoded { value: pod, findings: found.list }
    }

    /// A node. `O(fields)`.
    pub fn node(&mut self, live: &ApiNode<'_>) -> Decoded<Node> {
        let mut addresses = Vec::new();
        for entry in live.status.iter().flat_map(|s| s.addresses.iter()) {
            node::add_address(&entry.address, &mut addresses);
        }
        let node = Node {
            name: self.names.name(&live.metadata.name),
            labels: self.labels(&live.metadata),
            addresses,
        };
        Decoded { value: node, findings: Vec::new() }
    }

    /// A namespace, by its metadata alone.
    pub fn namespace(&mut self, live: &ApiObjectMeta<'_>) -> Decoded<Namespace> {
        let labels = self.labels(live);
        let namespace = Namespace::new(self.names.name(&live.name), &labels);
        Decoded { value: namespace, findings: Vec::new() }
    }

    /// A policy of any kind, from its JSON text: `apiVersion`, `kind`, `metadata` with name and namespace, and `spec`;
    /// whatever else is in the metadata doesn't matter.
    ///
    /// Where it can't be read as a whole:
    /// * A NetworkPolicy isolates, in both directions and with no rule, what its `podSelector` says if that is readable,
    ///   else every pod of its namespace. It may be meant to isolate just these, and nobody can tell what it allows; a
    ///   policy that is left out would leave them open. A field in its `spec` that we don't know, which could narrow
    ///   what stands beside it, takes away its rules likewise, in the directions that it has.
    /// * A cluster-wide policy is `None`: without tier and priority there is no place for it. The caller keeps the version
    ///   that it had. (Anything else in it that can't be used fails closed rule by rule: SEMANTICS C23, C24, G-16, G-17.)
    pub fn policy(&mut self, object: String) -> Decoded<Option<Arc<Policy>>> {
        policy::read(&self.names, object)
    }

    fn labels(&mut self, live: &ApiObjectMeta<'_>) -> Labels {
        let pairs = live.labels.iter().flat_map(|l| &l.0);
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
        let wrong = |why: &str| format!("Invalid value: {number}: {why}; the port is left out");
        let protocol = match &*declared.protocol {
            "" => Protocol::Tcp,
            text => protocol_named(text).ok_or_else(|| wrong("its protocol is not TCP, UDP or SCTP"))?,
        };
        if let Some(why) = names::port_number(number) {
            return Err(wrong(why));
        }
        let port = u16::try_from(number).map_err(|_| wrong("is no port number"))?;
        let name = (!declared.name.is_empty()).then(|| self.names.name(&declared.name));
        Ok(ContainerPort { name, protocol, port })
    }

    /// What a pod belongs to, as far as it says itself: its controller, or the Deployment whose ReplicaSet that is.
    fn workload(&mut self, live: &ApiPod<'_>, labels: &Labels, own_name: &Name) -> Workload {
        let owners = live.metadata.owner_references.iter();
        let owner = meta::controller(owners.map(|o| ((&*o.kind, &*o.name), o.controller)));
        let Some((kind, name)) = owner else {
            return Workload { kind: self.names.name("Pod"), name: own_name.clone() };
        };
        match deployment_of(kind, name, labels.get(POD_TEMPLATE_HASH)) {
            Some(deployment) => {
                Workload { kind: self.names.name("Deployment"), name: self.names.name(deployment) }
            }
            None => Workload { kind: self.names.name(kind), name: self.names.name(name) },
        }
    }
}

/// `podIPs`, or `podIP` where there is no list (A50).
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

/// Collects what is wrong with one object. Naming it is put off until something is.
struct Findings<'f> {
    kind: &'static str,
    metadata: &'f ApiObjectMeta<'f>,
    list: Vec<Diagnostic>,
}

impl<'f> Findings<'f> {
    fn of(kind: &'static str, metadata: &'f ApiObjectMeta<'f>) -> Self {
        Self { kind, metadata, list: Vec::new() }
    }

    fn warn(&mut self, path: &str, code: Code, message: String) {
        let ApiObjectMeta { namespace, name, .. } = self.metadata;
        self.list.push(Diagnostic {
            path: Some(path.to_owned()),
            object: Some(format!("{} {}/{}", self.kind, &**namespace, &**name)),
            ..Diagnostic::new(Severity::Warning, code, message)
        });
    }
}

#[cfg(test)]
mod tests;
