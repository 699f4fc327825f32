//! Connections of Prometheus to what monitors select, and of the API server to webhooks.

use palisade_manifest::{CallTarget, Caller, ScrapedPort};
use palisade_names::{API_SERVER, PortSpec, backends, is_scraper, service_targets};
use palisade_policy::{Endpoint, Name, ObjectKey, Pod, Protocol, Selector, Service};

use super::{Collector, Side, Target, classes::alike, routes::of_pod};
use std::collections::BTreeSet;

impl<'c> Collector<'c> {
    pub(super) fn callers(&mut self) {
        let cluster = self.cluster;
        let has_ends = |pod: &&Pod| palisade_names::endpoints_of(cluster, pod).is_ok();
        let scrapers = alike(cluster.pods.values().filter(|pod| is_scraper(pod)).filter(has_ends));
        for Caller { kind, key, origin, targets } in &self.loaded.callers {
            let name = match key.namespace.is_empty() {
                true => format!("{kind} {} ({origin})", key.name),
                false => format!("{kind} {key} ({origin})"),
            };
            for target in targets {
                match target {
                    CallTarget::Service { service, port } => self.called(&name, service, *port),
                    CallTarget::Services { namespaces, selector, port } => {
                        let services = self.labelled(namespaces.as_ref(), selector);
                        let found = services.into_iter().flat_map(|s| {
                            self.out.used.insert(s.key.clone());
                            behind(cluster, s, port)
                        });
                        let found: Vec<Target> = found.collect();
                        self.scraped(&name, &scrapers, &found);
                    }
                    CallTarget::Pods { namespaces, selector, port } => {
                        let is_in = |pod: &&Pod| {
                            namespaces.as_ref().is_none_or(|names| names.contains(&pod.key.namespace))
                                && selector.matches(&pod.labels)
                        };
                        let pods = cluster.pods.values().filter(is_in).filter(has_ends);
                        let found: Vec<Target> = pods.flat_map(|pod| at_port(cluster, pod, port)).collect();
                        self.scraped(&name, &scrapers, &found);
                    }
                }
            }
        }
    }

    fn labelled(&self, namespaces: Option<&BTreeSet<Name>>, selector: &Selector) -> Vec<&'c Service> {
        let is_in = |key: &ObjectKey| namespaces.is_none_or(|names| names.contains(&key.namespace));
        let all = self.cluster.services.values().filter(|service| is_in(&service.key));
        let none = palisade_policy::Labels::default();
        let labels = |service: &Service| self.loaded.service_labels.get(&service.key).unwrap_or(&none);
        all.filter(|service| selector.matches(labels(service))).collect()
    }

    fn scraped(&mut self, name: &str, scrapers: &[Side<'c>], targets: &[Target]) {
        if targets.is_empty() {
            self.out.undecided.insert(format!("{name}: it selects no port of a pod in the input"));
        } else if scrapers.is_empty() {
            self.out.undecided.insert(format!(
                "{name}: no pod of Prometheus is in the input, so its namespace is not known"
            ));
        } else {
            let evidence = self.evidence(name.to_owned());
            self.connect(scrapers, targets, evidence);
        }
    }

    /// Adds connections of the API server, which is known by the addresses of the control plane's nodes.
    fn called(&mut self, name: &str, key: &ObjectKey, port: u16) {
        self.out.used.insert(key.clone());
        let cluster = self.cluster;
        let Some(service) = cluster.services.get(key) else {
            self.out.undecided.insert(format!("{name}: there is no service {key}"));
            return;
        };
        let targets: Vec<Target> = match &*self.endpoints(service, Some(port)) {
            Ok(found) => found.iter().map(Target::from).collect(),
            Err(why) => {
                self.out.undecided.insert(format!("{name}: {why}"));
                return;
            }
        };
        let api = cluster.services.get(&ObjectKey::new(API_SERVER.0, API_SERVER.1)).cloned();
        match service_targets(cluster, &api.unwrap_or_else(palisade_names::api_server), None, None) {
            Ok(found) => {
                let evidence = self.evidence(name.to_owned());
                let from: BTreeSet<Endpoint> = found.targets.into_iter().map(|target| target.end).collect();
                let from: Vec<Side<'_>> = from.into_iter().map(Side::End).collect();
                self.connect(&from, &targets, evidence);
            }
            Err(why) => {
                self.out.undecided.insert(format!("{name}: {why}"));
            }
        }
    }
}

/// The ports behind a Service that a monitor names.
fn behind(cluster: &palisade_policy::Cluster, service: &Service, port: &ScrapedPort) -> Vec<Target> {
    let spec = match port {
        ScrapedPort::Named(name) => Some(PortSpec::Name(name.clone())),
        ScrapedPort::OfContainer(_) | ScrapedPort::Number(_) => None,
    };
    let found = backends(cluster, service, Some(Protocol::Tcp), spec.as_ref()).unwrap_or_default();
    match spec {
        Some(_) => found.iter().flat_map(|one| of_pod(cluster, one.pod, Protocol::Tcp, one.port)).collect(),
        None => found.iter().flat_map(|one| at_port(cluster, one.pod, port)).collect(),
    }
}

fn at_port(cluster: &palisade_policy::Cluster, pod: &Pod, port: &ScrapedPort) -> Vec<Target> {
    match port {
        ScrapedPort::Number(number) => of_pod(cluster, pod, Protocol::Tcp, *number),
        ScrapedPort::Named(name) | ScrapedPort::OfContainer(name) => {
            let ports = pod.named_ports(name, Some(Protocol::Tcp));
            ports.flat_map(|(_, number)| of_pod(cluster, pod, Protocol::Tcp, number)).collect()
        }
    }
}
