//! `--init`: a first file, from what is so today.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use palisade_analysis::{
    ConnectionEnd, Connections, ConnectionsOptions,
    assertion::{AskedTraffic, AssertedEnds, Assertion, Expectation, check},
};
use palisade_policy::{
    Cluster, Endpoint, Name, NamespaceMatch, Pod, PodMatch, PortSet, Protocol, Selector, Traffic,
};

use super::{
    file,
    resolve::{of_pods, replicas_of},
};

/// The most workloads for which assertions are written.
const MOST_WORKLOADS: usize = 200;

/// Returns a file with assertions that hold: for each workload that not every pod reaches, who reaches it on the ports
/// that it declares.
///
/// # Errors
/// When no assertion could be made.
pub(super) fn file(cluster: &Cluster) -> Result<String> {
    let connections = Connections::new(cluster, &ConnectionsOptions::default());
    let mut out = format!(
        "# The connections that are possible today. Keep those that must stay possible, and add those that must not be possible.\nschema: {}\nassertions:\n",
        file::SCHEMA
    );
    let mut written = BTreeSet::new();
    for target in targets(cluster) {
        if written.len() >= MOST_WORKLOADS {
            break;
        }
        if let Some(text) = target.assertions(cluster, &connections) {
            out.push_str(&text);
            written.insert(target.name.clone());
        }
    }
    if written.is_empty() {
        bail!(
            "no assertion to write: no workload declares ports, every pod reaches all that do, or the answer depends on pod addresses"
        );
    }
    Ok(out)
}

/// A workload with ports.
struct Target {
    name: String,
    namespace: Name,
    kind: Name,
    workload: Name,
    ports: BTreeSet<(Protocol, u16)>,
    ends: AssertedEnds,
}

fn targets(cluster: &Cluster) -> Vec<Target> {
    let mut out: Vec<Target> = Vec::new();
    for pod in cluster.pods.values().filter(|pod| pod.is_running() && !pod.ports.is_empty()) {
        let (kind, workload) = match &pod.workload {
            Some(workload) => (workload.kind.clone(), workload.name.clone()),
            None => ("Pod".into(), pod.key.name.clone()),
        };
        let name = format!("{}/{}/{workload}", pod.key.namespace, kind.to_lowercase());
        let endpoints = endpoints_of(pod);
        let ports = pod.ports.iter().map(|port| (port.protocol, port.port));
        match out.iter_mut().find(|target| target.name == name) {
            Some(target) => {
                target.ports.extend(ports);
                target.ends.endpoints.extend(endpoints);
            }
            None => out.push(Target {
                name,
                namespace: pod.key.namespace.clone(),
                kind,
                workload,
                ports: ports.collect(),
                ends: AssertedEnds { endpoints: endpoints.collect(), ..AssertedEnds::default() },
            }),
        }
    }
    out
}

impl Target {
    /// Returns assertions about the target that hold: no pod reaches it, or only these, or at least these. `None` if no
    /// pod is denied, or none is allowed.
    fn assertions(&self, cluster: &Cluster, connections: &Connections) -> Option<String> {
        let all_pods = PodMatch {
            namespaces: NamespaceMatch::Selected(Selector::everything()),
            pods: Selector::everything(),
        };
        let everyone = of_pods(cluster, &all_pods, true).ok()?;
        if self.holds(cluster, everyone.clone(), &self.ports, Expectation::Deny) {
            return Some(self.text(&format!("no pod reaches {}", self.name), "\"*\"", &self.ports, "deny"));
        }
        if self.holds(cluster, everyone, &self.ports, Expectation::Allow) {
            return None;
        }
        let sources = self.sources(connections);
        let mut from = AssertedEnds::default();
        for source in &sources {
            from.endpoints.extend(source.endpoints(cluster));
        }
        from.pods = replicas_of(cluster, &from.endpoints);
        let names: Vec<String> = sources.iter().map(Source::name).collect();
        if !sources.is_empty() && self.holds(cluster, from, &self.ports, Expectation::Only) {
            let name = format!("only these reach {}", self.name);
            return Some(self.text(&name, &format!("[{}]", names.join(", ")), &self.ports, "only"));
        }
        let mut out = String::new();
        for source in &sources {
            let endpoints = source.endpoints(cluster);
            let allowed = |port: &&(Protocol, u16)| {
                let from = AssertedEnds { endpoints: endpoints.clone(), ..AssertedEnds::default() };
                self.holds(cluster, from, &BTreeSet::from([**port]), Expectation::Allow)
            };
            let ports: BTreeSet<(Protocol, u16)> = self.ports.iter().filter(allowed).copied().collect();
            if !ports.is_empty() {
                let name = source.name();
                out += &self.text(&format!("{name} reaches {}", self.name), &name, &ports, "allow");
            }
        }
        (!out.is_empty()).then_some(out)
    }

    fn holds(
        &self,
        cluster: &Cluster,
        from: AssertedEnds,
        ports: &BTreeSet<(Protocol, u16)>,
        expect: Expectation,
    ) -> bool {
        let numbers = ports.iter().fold(Traffic::none(), |sum, (protocol, port)| {
            sum.union(&Traffic::of(*protocol, PortSet::range(*port, *port)))
        });
        let asked = AskedTraffic { numbers, names: BTreeSet::new() };
        let assertion = Assertion { from, to: self.ends.clone(), asked, expect };
        let checked = check(cluster, &assertion);
        checked.counterexamples.is_empty() && !checked.too_many && checked.judged > 0
    }

    fn text(&self, name: &str, from: &str, ports: &BTreeSet<(Protocol, u16)>, expect: &str) -> String {
        let ports: Vec<String> = ports.iter().map(|(protocol, port)| port_text(*protocol, *port)).collect();
        let (to, ports) = (&self.name, ports.join(", "));
        format!(
            "  - name: {name}\n    from: {from}\n    to: {to}\n    ports: [{ports}]\n    expect: {expect}\n"
        )
    }

    /// Returns the other workloads with connections to a port of the target.
    fn sources(&self, connections: &Connections) -> BTreeSet<Source> {
        let mut out = BTreeSet::new();
        for edge in connections.edges() {
            let ConnectionEnd::Workload(to) = connections.end(edge.to) else { continue };
            let ConnectionEnd::Workload(from) = connections.end(edge.from) else { continue };
            let is_target =
                (&to.namespace, &to.kind, &to.name) == (&self.namespace, &self.kind, &self.workload);
            let reached = self.ports.iter().any(|(protocol, port)| edge.traffic.contains(*protocol, *port));
            if is_target && reached {
                let (namespace, kind) = (from.namespace.clone(), from.kind.clone());
                out.insert(Source { namespace, kind, workload: from.name.clone() });
            }
        }
        out
    }
}

/// A workload that reaches a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    namespace: Name,
    kind: Name,
    workload: Name,
}

impl Source {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.kind.to_lowercase(), self.workload)
    }

    fn endpoints(&self, cluster: &Cluster) -> Vec<Endpoint> {
        let is_own = |pod: &&Pod| match &pod.workload {
            Some(workload) => workload.kind == self.kind && workload.name == self.workload,
            None => &*self.kind == "Pod" && pod.key.name == self.workload,
        };
        let own = cluster.pods.in_namespace(&self.namespace).filter(is_own).filter(|pod| pod.is_running());
        own.flat_map(endpoints_of).collect()
    }
}

fn endpoints_of(pod: &Pod) -> impl Iterator<Item = Endpoint> {
    pod.addresses.iter().map(|address| Endpoint::Pod { key: pod.key.clone(), address: *address })
}

fn port_text(protocol: Protocol, port: u16) -> String {
    if protocol == Protocol::Tcp { port.to_string() } else { format!("{port}/{protocol}") }
}
