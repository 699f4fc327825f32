//! Connections to the hosts that the settings of workloads name.

use std::collections::{BTreeMap, BTreeSet};

use palisade_manifest::{Reference, UnreadSetting, WorkloadReferences};
use palisade_names::{MentionForm, Mentioned};
use palisade_policy::{Endpoint, Name, ObjectKey, Pod, Protocol, Service, Workload};

use super::{Collector, Side, Target, namespaces_with, shown};

/// Whose settings are looked at.
struct Client<'c> {
    name: String,
    namespace: &'c Name,
    pods: Vec<Side<'c>>,
}

impl<'c> Collector<'c> {
    pub(super) fn settings(&mut self) {
        let loaded = self.loaded;
        let mut services: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in loaded.cluster.services.keys() {
            services.entry(&key.name).or_default().push(&key.namespace);
        }
        for ((kind, key), found) in &loaded.references.workloads {
            let workload = Workload { kind: kind.clone(), name: key.name.clone() };
            let pods = self.classes.of_workload(&key.namespace, &workload);
            let pods = if pods.is_empty() { self.of_pod(kind, key) } else { pods };
            // A workload without pods connects to nothing.
            if pods.is_empty() {
                continue;
            }
            let client =
                Client { name: shown(&key.namespace, kind, &key.name), namespace: &key.namespace, pods };
            self.of_client(&client, found, &services);
        }
    }

    /// A pod that belongs to a workload, with settings of its own.
    fn of_pod(&self, kind: &str, key: &ObjectKey) -> Vec<Side<'c>> {
        let pod = self.cluster.pods.get(key).filter(|_| kind == "Pod");
        super::classes::alike(pod.filter(|pod| palisade_names::endpoints_of(self.cluster, pod).is_ok()))
    }

    fn of_client(
        &mut self,
        client: &Client<'c>,
        found: &WorkloadReferences,
        services: &BTreeMap<&str, Vec<&str>>,
    ) {
        self.out.probed += usize::from(found.is_probed);
        for UnreadSetting { setting, object, origin } in &found.unread {
            let name = &client.name;
            self.out.unknown.insert(format!(
                "{name}: {setting} ({origin}) has its value from {object}, which is not read"
            ));
        }
        let mut known = BTreeSet::new();
        for reference in &found.hosts {
            // The same name may be in several keys of one ConfigMap.
            let port = reference.mention.port.or(reference.port_beside);
            if known.insert((reference.setting.as_str(), &reference.mention, port)) {
                self.of_reference(client, reference, port, services);
            }
        }
    }

    fn of_reference(
        &mut self,
        client: &Client<'c>,
        reference: &Reference,
        port: Option<u16>,
        services: &BTreeMap<&str, Vec<&str>>,
    ) {
        let Reference { setting, origin, mention, is_certain, .. } = reference;
        let place = format!("{}: {setting} ({origin})", client.name);
        let host = &*mention.host;
        let is_url = matches!(mention.form, MentionForm::Url { .. });
        match self.resolver.resolve(client.namespace, host) {
            Mentioned::Itself => {}
            Mentioned::Service(service) if !is_certain => {
                if !selects(service, client) {
                    let key = &service.key;
                    self.out.unknown.insert(format!(
                        "{place} is the name of Service {key}, but the setting's name does not say that it is a host"
                    ));
                }
            }
            Mentioned::Service(service) => {
                self.connect_to_service(client, reference, (service, port), &place);
            }
            Mentioned::Pod(pod) if *is_certain => self.connect_to_pod(client, reference, (pod, port), &place),
            Mentioned::Address(address) if *is_certain => match port.or(usual(mention.form)) {
                Some(port) => {
                    let end = self.cluster.endpoint(address);
                    let evidence = self.evidence(format!("{setting} ({origin})"));
                    let target = Target { end, protocol: protocol(mention.form), port };
                    self.connect(&client.pods, &[target], evidence);
                }
                None => {
                    self.out.unknown.insert(format!("{place} has the address {host} without a port"));
                }
            },
            Mentioned::Missing(key) => {
                self.out
                    .undecided
                    .insert(format!("{place} names {host}, and there is no {key} in the input"));
            }
            Mentioned::Outside(name) if *is_certain => {
                self.out.unknown.insert(format!(
                    "{place} names {name}, which is not in the input; a NetworkPolicy can't allow names, only addresses"
                ));
            }
            Mentioned::Nothing if is_url || (*is_certain && mention.form == MentionForm::Value) => {
                let others = namespaces_with(services, host);
                let namespace = client.namespace;
                self.out.undecided.insert(format!(
                    "{place} names {host}, and namespace {namespace} has no such Service{others}"
                ));
            }
            Mentioned::Nothing if mention.form == MentionForm::Address => {
                let namespace = client.namespace;
                self.out
                    .unknown
                    .insert(format!("{place} names {host}, and namespace {namespace} has no such Service"));
            }
            Mentioned::Nothing | Mentioned::Pod(_) | Mentioned::Address(_) | Mentioned::Outside(_) => {}
        }
    }

    /// Adds connections to a Service: to the port that is named, else to that of the URL's scheme, else to all.
    fn connect_to_service(
        &mut self,
        client: &Client<'c>,
        reference: &Reference,
        (service, port): (&Service, Option<u16>),
        place: &str,
    ) {
        self.out.used.insert(service.key.clone());
        let has = |port: &u16| service.ports.iter().any(|own| own.port == *port);
        let port = port.or(usual(reference.mention.form).filter(has));
        match &*self.endpoints(service, port) {
            Ok(found) => {
                let targets: Vec<Target> = found.iter().map(Target::from).collect();
                let evidence = self.evidence(format!("{} ({})", reference.setting, reference.origin));
                self.connect(&client.pods, &targets, evidence);
            }
            Err(why) => {
                self.out.undecided.insert(format!("{place}: {why}"));
            }
        }
    }

    /// Adds connections to a pod of a headless Service.
    fn connect_to_pod(
        &mut self,
        client: &Client<'c>,
        reference: &Reference,
        (pod, port): (&Pod, Option<u16>),
        place: &str,
    ) {
        for service in self.cluster.services.values().filter(|s| s.key.namespace == pod.key.namespace) {
            if service.access.headless && service.selector.as_ref().is_some_and(|s| s.matches(&pod.labels)) {
                self.out.used.insert(service.key.clone());
            }
        }
        let ports: Vec<(Protocol, u16)> = match port.or(usual(reference.mention.form)) {
            Some(port) => vec![(protocol(reference.mention.form), port)],
            None => pod.ports.iter().map(|own| (own.protocol, own.port)).collect(),
        };
        let ends = palisade_names::endpoints_of(self.cluster, pod).unwrap_or_default();
        let target = |end: &Endpoint| {
            let end = end.clone();
            ports.iter().map(move |(protocol, port)| Target {
                end: end.clone(),
                protocol: *protocol,
                port: *port,
            })
        };
        let targets: Vec<Target> = ends.iter().flat_map(target).collect();
        if targets.is_empty() {
            self.out
                .undecided
                .insert(format!("{place} names pod {} without a port, and it declares none", pod.key));
            return;
        }
        let evidence = self.evidence(format!("{} ({})", reference.setting, reference.origin));
        self.connect(&client.pods, &targets, evidence);
    }
}

fn usual(form: MentionForm) -> Option<u16> {
    match form {
        MentionForm::Url { usual, .. } => usual,
        MentionForm::Address | MentionForm::Value => None,
    }
}

fn protocol(form: MentionForm) -> Protocol {
    match form {
        MentionForm::Url { protocol, .. } => protocol,
        MentionForm::Address | MentionForm::Value => Protocol::Tcp,
    }
}

/// Returns whether a Service is one of the client's own pods.
fn selects(service: &Service, client: &Client<'_>) -> bool {
    let own = |pod: &Pod| {
        pod.key.namespace == service.key.namespace
            && service.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    };
    client.pods.iter().all(|side| matches!(side, Side::Pods(pods) if pods.pods().all(own)))
}
