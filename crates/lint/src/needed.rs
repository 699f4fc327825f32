//! Connections that other objects than policies need: of the API server to webhooks, and of Prometheus to what it scrapes.

use std::collections::HashSet;

use palisade_manifest::{CallTarget, Caller, ScrapedPort};
use palisade_names::{PortSpec, backends};
use palisade_policy::{ObjectKey, Pod, PodMatch, PortSet, Protocol, Selector, Service, Traffic};

use crate::context::{Class, Context};

/// How many pods and ports are looked at for all objects together. What lies behind is not checked.
const MOST: usize = 20_000;

/// A connection that an object needs: to a port of pods with the same labels.
pub(crate) struct Needed<'c, 'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) class: &'c Class<'a>,
    pub(crate) pod: &'a Pod,
    pub(crate) port: u16,
}

impl Needed<'_, '_> {
    /// Returns the object, as findings name it.
    pub(crate) fn object(&self) -> String {
        let Caller { kind, key, .. } = self.caller;
        if key.namespace.is_empty() { format!("{kind} {}", key.name) } else { format!("{kind} {key}") }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic::of(Protocol::Tcp, PortSet::range(self.port, self.port))
    }
}

/// Returns the connections that objects need, for the targets that `fits` selects.
pub(crate) fn needed<'c, 'a>(cx: &'c Context<'a>, fits: impl Fn(&CallTarget) -> bool) -> Vec<Needed<'c, 'a>> {
    let mut out = Vec::new();
    let loaded = cx.loaded;
    for caller in &loaded.callers {
        let mut known = HashSet::new();
        for target in caller.targets.iter().filter(|target| fits(target)) {
            for (pod, port) in pods(cx, target) {
                let Some(class) = cx.class_of(pod) else { continue };
                if known.insert((std::ptr::from_ref(class), port)) {
                    out.push(Needed { caller, class, pod, port });
                }
                if out.len() >= MOST {
                    return out;
                }
            }
        }
    }
    out
}

fn pods<'a>(cx: &Context<'a>, target: &CallTarget) -> Vec<(&'a Pod, u16)> {
    let cluster = &cx.loaded.cluster;
    match target {
        CallTarget::Service { service, port } => {
            let service = cluster.services.get(service);
            service.map(|s| behind(cx, s, &ScrapedPort::Number(*port), true)).unwrap_or_default()
        }
        CallTarget::Services { namespaces, selector, port } => {
            let is_in =
                |key: &ObjectKey| namespaces.as_ref().is_none_or(|names| names.contains(&key.namespace));
            let labelled = cx
                .loaded
                .service_labels
                .iter()
                .filter(|(key, labels)| is_in(key) && selector.matches(labels));
            let services = labelled.filter_map(|(key, _)| cluster.services.get(key));
            services.flat_map(|service| behind(cx, service, port, false)).collect()
        }
        CallTarget::Pods { namespaces, selector, port } => {
            let choices: Vec<PodMatch> = match namespaces {
                Some(names) => names.iter().map(|name| in_namespace(name, selector)).collect(),
                None => cx.classes.keys().map(|name| in_namespace(name, selector)).collect(),
            };
            let mut out = Vec::new();
            for choice in &choices {
                let classes = cx.matching(choice).filter(|class| !class.host_network);
                let pods = classes.flat_map(|class| class.by_ports.iter().copied());
                out.extend(pods.flat_map(|pod| of_pod(pod, port)));
            }
            out
        }
    }
}

fn in_namespace(name: &palisade_policy::Name, pods: &Selector) -> PodMatch {
    PodMatch { namespaces: palisade_policy::NamespaceMatch::Named(name.clone()), pods: pods.clone() }
}

/// The pods behind a Service. A number is a port of the Service, or of its pods.
fn behind<'a>(
    cx: &Context<'a>,
    service: &Service,
    port: &ScrapedPort,
    of_service: bool,
) -> Vec<(&'a Pod, u16)> {
    let spec = match port {
        ScrapedPort::Named(name) => Some(PortSpec::Name(name.clone())),
        ScrapedPort::Number(number) => of_service.then_some(PortSpec::Number(*number)),
        ScrapedPort::OfContainer(_) => None,
    };
    let found = backends(&cx.loaded.cluster, service, Some(Protocol::Tcp), spec.as_ref());
    let found = found.unwrap_or_default().into_iter();
    if spec.is_some() {
        found.map(|backend| (backend.pod, backend.port)).collect()
    } else {
        found.flat_map(|backend| of_pod(backend.pod, port)).collect()
    }
}

fn of_pod<'a>(pod: &'a Pod, port: &ScrapedPort) -> Vec<(&'a Pod, u16)> {
    match port {
        ScrapedPort::Number(number) => vec![(pod, *number)],
        ScrapedPort::Named(name) | ScrapedPort::OfContainer(name) => {
            pod.named_ports(name, Some(Protocol::Tcp)).map(|(_, number)| (pod, number)).collect()
        }
    }
}
