//! Objects that say who connects to pods: webhooks and aggregated APIs, which the API server calls, and the monitors of
//! Prometheus. No verdict depends on them; they tell which connections are needed.
//!
//! What is missing or of another type is left out: the API server validates these objects, and nothing here has to.

use std::collections::BTreeSet;

use palisade_policy::{Labels, Name, ObjectKey, Origin, Requirement, Selector, Test};

use crate::{
    scalar::Scalar,
    tree::{At, Value},
};

/// An object that says who connects to pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The kind in the API's spelling.
    pub kind: Name,
    /// Namespace and name. The namespace of a cluster-scoped object is empty.
    pub key: ObjectKey,
    /// Where the object begins.
    pub origin: Origin,
    /// To what it lets something connect.
    pub targets: Vec<CallTarget>,
}

/// To what something connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallTarget {
    /// The API server connects to a port of a Service.
    Service {
        /// The Service.
        service: ObjectKey,
        /// The port of the Service.
        port: u16,
    },
    /// Prometheus connects to a port of the pods behind Services.
    Services {
        /// The namespaces; `None`: all.
        namespaces: Option<BTreeSet<Name>>,
        /// The labels of the Services.
        selector: Selector,
        /// The port.
        port: ScrapedPort,
    },
    /// Prometheus connects to a port of pods.
    Pods {
        /// The namespaces; `None`: all.
        namespaces: Option<BTreeSet<Name>>,
        /// The labels of the pods.
        selector: Selector,
        /// The port.
        port: ScrapedPort,
    },
}

/// A port that a monitor names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapedPort {
    /// The name of a port: of the Service in a ServiceMonitor, of a container in a PodMonitor.
    Named(Name),
    /// The name of a port of a container.
    OfContainer(Name),
    /// A port of the pod.
    Number(u16),
}

/// The port of a webhook or aggregated API that doesn't name one.
const HTTPS: u16 = 443;

/// Returns the targets of an object of another kind, if it says who connects to pods.
pub(crate) fn targets(group: &str, kind: &str, at: &At<'_>, namespace: &str) -> Vec<CallTarget> {
    match (group, kind) {
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => {
            let webhooks = at.get("webhooks");
            let services =
                webhooks.iter().flat_map(At::items).filter_map(|w| called(&w, &["clientConfig", "service"]));
            services.collect()
        }
        ("apiregistration.k8s.io", "APIService") => called(at, &["spec", "service"]).into_iter().collect(),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            called(at, &["spec", "conversion", "webhook", "clientConfig", "service"]).into_iter().collect()
        }
        ("monitoring.coreos.com", "ServiceMonitor") => monitored(at, namespace, "endpoints", true),
        ("monitoring.coreos.com", "PodMonitor") => monitored(at, namespace, "podMetricsEndpoints", false),
        _ => Vec::new(),
    }
}

/// Returns what `read` returns for the field at the end of a path.
fn below<T>(at: &At<'_>, path: &[&str], read: &dyn Fn(&At<'_>) -> Option<T>) -> Option<T> {
    match path {
        [] => read(at),
        [field, rest @ ..] => below(&at.get(field)?, rest, read),
    }
}

fn text(at: &At<'_>, field: &str) -> Option<Name> {
    match at.get(field)?.value() {
        Value::Scalar(Scalar::Str(text)) => Some(Name::from(&**text)),
        _ => None,
    }
}

fn number(at: &At<'_>, field: &str) -> Option<u16> {
    match at.get(field)?.value() {
        Value::Scalar(Scalar::Int(number)) => u16::try_from(*number).ok(),
        _ => None,
    }
}

fn called(at: &At<'_>, path: &[&str]) -> Option<CallTarget> {
    below(at, path, &|at| {
        let service = ObjectKey { namespace: text(at, "namespace")?, name: text(at, "name")? };
        Some(CallTarget::Service { service, port: number(at, "port").unwrap_or(HTTPS) })
    })
}

fn monitored(at: &At<'_>, namespace: &str, endpoints: &str, services: bool) -> Vec<CallTarget> {
    let Some(spec) = at.get("spec") else { return Vec::new() };
    let Some(selector) = spec.get("selector").and_then(|at| selector(&at)) else { return Vec::new() };
    let of = spec.get("namespaceSelector");
    let any = of.as_ref().and_then(|at| at.get("any"));
    let any = any.is_some_and(|at| matches!(at.value(), Value::Scalar(Scalar::Bool(true))));
    let named = of.as_ref().and_then(|at| at.get("matchNames"));
    let names: BTreeSet<Name> = named.iter().flat_map(At::items).filter_map(|at| string(&at)).collect();
    let namespaces = match (any, names.is_empty()) {
        (true, _) => None,
        (false, true) => Some(BTreeSet::from([namespace.into()])),
        (false, false) => Some(names),
    };
    let endpoints = spec.get(endpoints);
    let ports = endpoints.iter().flat_map(At::items).filter_map(|at| scraped(&at));
    let target = |port| {
        let (namespaces, selector) = (namespaces.clone(), selector.clone());
        match services {
            true => CallTarget::Services { namespaces, selector, port },
            false => CallTarget::Pods { namespaces, selector, port },
        }
    };
    ports.map(target).collect()
}

fn scraped(at: &At<'_>) -> Option<ScrapedPort> {
    let own = text(at, "port").map(ScrapedPort::Named);
    let by_number = || number(at, "portNumber").or_else(|| number(at, "targetPort")).map(ScrapedPort::Number);
    own.or_else(by_number).or_else(|| text(at, "targetPort").map(ScrapedPort::OfContainer))
}

fn string(at: &At<'_>) -> Option<Name> {
    match at.value() {
        Value::Scalar(Scalar::Str(text)) => Some(Name::from(&**text)),
        _ => None,
    }
}

/// A selector; `None` if something in it is not understood, and nothing can be said about what it matches.
fn selector(at: &At<'_>) -> Option<Selector> {
    let mut requirements = Vec::new();
    if let Some(labels) = at.get("matchLabels") {
        for (key, _, value) in labels.entries() {
            let test = Test::In(BTreeSet::from([string(&value)?]));
            requirements.push(Requirement { key: key.into(), test });
        }
    }
    if let Some(expressions) = at.get("matchExpressions") {
        for at in expressions.items() {
            let list = at.get("values");
            let values = list.iter().flat_map(At::items).filter_map(|at| string(&at)).collect();
            let test = match &*text(&at, "operator")? {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::DoesNotExist,
                _ => return None,
            };
            requirements.push(Requirement { key: text(&at, "key")?, test });
        }
    }
    Some(Selector::new(requirements))
}

/// Returns the labels of an object, as far as they are texts.
pub(crate) fn labels(at: &At<'_>) -> Labels {
    let pairs = |at: &At<'_>| {
        let pairs = at.entries().filter_map(|(key, _, value)| Some((key.to_owned(), string(&value)?)));
        Some(pairs.collect())
    };
    below(at, &["metadata", "labels"], &pairs).unwrap_or_default()
}

/// Returns namespace and name of an object. Those of cluster-scoped kinds have no namespace.
pub(crate) fn key(at: &At<'_>, kind: &str, default_namespace: &str) -> Option<ObjectKey> {
    let metadata = at.get("metadata")?;
    let namespaced = kind.ends_with("Monitor") || kind == "ConfigMap";
    let namespace = match (namespaced, text(&metadata, "namespace")) {
        (false, _) => Name::from(""),
        (true, Some(namespace)) => namespace,
        (true, None) => default_namespace.into(),
    };
    Some(ObjectKey { namespace, name: text(&metadata, "name")? })
}
