//! Connections that manifests show to be needed.
//!
//! ```text
//! settings (env, args, ConfigMaps) ─┐
//! Ingresses and routes ─────────────┼─► evidence, clients, endpoints ─► flows between representatives ─► suggest
//! monitors, webhooks ───────────────┘     (settings, routes, callers)      (classes)
//! ```
//!
//! What can't be resolved is kept as text: what is undecided, and what is not known and therefore denied.

mod callers;
mod classes;
mod closed;
mod routes;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use anyhow::{Result, bail};
use palisade_analysis::{
    ControllerRoutes,
    suggest::{Seen, SeenFlow},
};
use palisade_manifest::Loaded;
use palisade_names::{MentionResolver, PortSpec, ServiceTarget, service_targets};
use palisade_policy::{Cluster, Endpoint, Family, Flow, ObjectKey, Pod, Protocol, Service};

use super::seen::MAX_CONNECTIONS;
use classes::{Classes, Representatives};
pub(super) use closed::{closed, without_policies};

/// What manifests show.
#[derive(Default)]
pub(super) struct Needs {
    /// The connections. [`Seen::line`] is the number of the evidence, from 1.
    pub(super) flows: Vec<SeenFlow>,
    /// What shows a connection, with file and line.
    pub(super) evidence: Vec<String>,
    /// What could not be resolved.
    pub(super) undecided: BTreeSet<String>,
    /// What is not known, so that no rule allows it.
    pub(super) unknown: BTreeSet<String>,
    /// Services to which something connects.
    pub(super) used: BTreeSet<ObjectKey>,
    /// How many workloads the kubelet probes.
    pub(super) probed: usize,
}

/// Collects the connections that manifests show to be needed.
///
/// # Errors
/// When there are too many.
pub(super) fn needs(loaded: &Loaded, entrances: &ControllerRoutes) -> Result<Needs> {
    let mut collector = Collector {
        loaded,
        cluster: &loaded.cluster,
        resolver: MentionResolver::new(&loaded.cluster),
        classes: Classes::new(&loaded.cluster),
        endpoints: HashMap::new(),
        out: Needs::default(),
    };
    collector.settings();
    collector.routes(entrances);
    collector.callers();
    let left_out = loaded.references.left_out;
    if left_out > 0 {
        collector
            .out
            .undecided
            .insert(format!("{left_out} hosts that settings name are not read: there are too many"));
    }
    let out = collector.out;
    if out.flows.len() > MAX_CONNECTIONS {
        bail!(
            "the manifests need more than {MAX_CONNECTIONS} connections, and no more can be checked: use the manifests of \
             fewer namespaces"
        );
    }
    Ok(out)
}

/// The endpoints of a Service, or why there are none.
type Endpoints = Rc<Result<Vec<ServiceTarget>, String>>;

struct Collector<'c> {
    loaded: &'c Loaded,
    cluster: &'c Cluster,
    resolver: MentionResolver<'c>,
    classes: Classes<'c>,
    endpoints: HashMap<(ObjectKey, Option<u16>), Endpoints>,
    out: Needs,
}

impl<'c> Collector<'c> {
    /// Keeps what shows a connection, and returns its number.
    fn evidence(&mut self, text: String) -> usize {
        self.out.evidence.push(text);
        self.out.evidence.len()
    }

    /// Returns the endpoints of a port of a Service, or of all its ports.
    fn endpoints(&mut self, service: &Service, port: Option<u16>) -> Endpoints {
        let key = (service.key.clone(), port);
        let cluster = self.cluster;
        let find = || {
            let spec = port.map(PortSpec::Number);
            let found = service_targets(cluster, service, None, spec.as_ref());
            Rc::new(found.map(|found| found.targets).map_err(|why| why.to_string()))
        };
        Rc::clone(self.endpoints.entry(key).or_insert_with(find))
    }

    /// Adds the connections of clients to endpoints. Returns the names of nodes whose addresses are not known.
    fn connect(&mut self, clients: &[Side<'c>], targets: &[Target], evidence: usize) {
        // More than the limit are an error anyway.
        if self.out.flows.len() > MAX_CONNECTIONS {
            return;
        }
        let servers = self.classes.of_targets(self.cluster, targets);
        let mut nowhere = BTreeSet::new();
        for client in clients {
            for (server, protocol, port) in &servers {
                let mut first = true;
                for (source, destination) in pairs(self.cluster, client, server) {
                    if let Some(node) =
                        [&source, &destination].into_iter().find_map(|end| self.unknown_address(end))
                    {
                        nowhere.insert(node);
                        continue;
                    }
                    let count = u64::from(first);
                    first = false;
                    let flow =
                        Flow { source, destination, protocol: *protocol, port: *port, through_service: true };
                    let seen = Seen { connections: 1, records: count, count, line: evidence };
                    self.out.flows.push(SeenFlow { flow, from_own_node: false, seen, names: Vec::new() });
                }
            }
        }
        for node in nowhere {
            let shown = &self.out.evidence[evidence - 1];
            self.out.undecided.insert(format!("{shown}: the address of {node} is not in the input"));
        }
    }

    /// A rule can select a node by its address only.
    fn unknown_address(&self, end: &Endpoint) -> Option<String> {
        let is_made_up = self.cluster.addressing.is_placeholder(end.address());
        match end {
            Endpoint::Node { name, .. } if is_made_up => Some(format!("node {name}")),
            Endpoint::External(address) if is_made_up => Some(address.to_string()),
            Endpoint::Node { .. } | Endpoint::External(_) | Endpoint::Pod { .. } => None,
        }
    }
}

/// An endpoint to which something connects.
#[derive(Clone, Debug)]
struct Target {
    end: Endpoint,
    protocol: Protocol,
    port: u16,
}

impl From<&ServiceTarget> for Target {
    fn from(target: &ServiceTarget) -> Self {
        Self { end: target.end.clone(), protocol: target.protocol, port: target.port }
    }
}

/// Returns the ends of connections between two sides, one for each family. They are of different pods, if there are any: a
/// workload that names its own Service connects to its other pods.
fn pairs(cluster: &Cluster, client: &Side<'_>, server: &Side<'_>) -> Vec<(Endpoint, Endpoint)> {
    let [clients, servers] = [client, server].map(|side| side.choices(cluster));
    let differ = |(c, s): &(&Vec<Endpoint>, &Vec<Endpoint>)| c != s;
    let all = || clients.iter().flat_map(|c| servers.iter().map(move |s| (c, s)));
    let Some((sources, destinations)) = all().find(differ).or_else(|| all().next()) else {
        return Vec::new();
    };
    let family = |end: &Endpoint| Family::of(end.address());
    let mut out = Vec::new();
    for source in sources {
        let fits = destinations.iter().filter(|to| family(to) == family(source));
        out.extend(fits.take(1).map(|to| (source.clone(), to.clone())));
    }
    out
}

fn ends_of(cluster: &Cluster, pod: &Pod) -> Vec<Endpoint> {
    palisade_names::endpoints_of(cluster, pod).unwrap_or_default()
}

/// One side of connections: pods that policies can't tell apart, or an address.
#[derive(Clone, Debug)]
enum Side<'c> {
    Pods(Representatives<'c>),
    End(Endpoint),
}

impl Side<'_> {
    /// Returns the endpoints of each representative.
    fn choices(&self, cluster: &Cluster) -> Vec<Vec<Endpoint>> {
        match self {
            Side::Pods(pods) => pods.pods().map(|pod| ends_of(cluster, pod)).collect(),
            Side::End(end) => vec![vec![end.clone()]],
        }
    }
}

/// The pods of a workload, as messages name it: `shop/deployment/web`.
fn shown(namespace: &str, kind: &str, name: &str) -> String {
    format!("{namespace}/{}/{name}", kind.to_lowercase())
}

/// Services by name, for messages: the other namespaces in which there is one.
fn namespaces_with(services: &BTreeMap<&str, Vec<&str>>, name: &str) -> String {
    const SHOWN: usize = 3;
    let all = services.get(name).map_or(&[][..], Vec::as_slice);
    match all {
        [] => String::new(),
        some => {
            let more =
                if some.len() > SHOWN { format!(" and {} more", some.len() - SHOWN) } else { String::new() };
            format!("; there is one in {}{more}", some[..some.len().min(SHOWN)].join(", "))
        }
    }
}
