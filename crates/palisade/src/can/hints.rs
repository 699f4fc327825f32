//! Hints below an answer: why an allowed connection may fail all the same, and where to read more.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::IpAddr,
};

use palisade_analysis::{Judge, alike::Alike};
use palisade_names::{DNS_PORT, DnsServer, EndpointKind};
use palisade_policy::{Cluster, Endpoint, Family, Flow, Name, ObjectKey, Pod, Protocol, Verdict};

use super::{
    answer::{Answer, DestinationPort},
    note::Note,
    spec::{EndpointSpec, Spec},
};
use crate::{inputs::quoted, plugin::Invocation, reasons::port_text, verdict::Conclusion};

/// The most hints below an answer.
const MAX_HINTS: usize = 2;

/// Returns the hints for an answer, the most important one first. `command` is the one that explains the answer, if it should be
/// shown.
pub(crate) fn of(
    cluster: &Cluster,
    answer: &Answer,
    destination: &Spec,
    command: impl FnOnce() -> Option<String>,
) -> Vec<Note> {
    let mut hints: Vec<Note> = [
        nothing_listens(cluster, answer, destination).map(|text| Note { code: "port-not-declared", text }),
        without_dns(cluster, answer, destination).map(|text| Note { code: "dns-denied", text }),
    ]
    .into_iter()
    .flatten()
    .collect();
    if answer.verdict == Conclusion::Denied
        && hints.len() < MAX_HINTS
        && let Some(command) = command()
    {
        let text = format!("`{command}` shows every rule and an edit that allows it");
        hints.push(Note { code: "explain", text });
    }
    hints
}

/// How many declared ports a hint lists.
const MAX_PORTS: usize = 4;

/// The ports in question that no container of the destination declares. `None` as well if not every pod of the destination
/// declares ports: then nothing is known about what listens.
fn nothing_listens(cluster: &Cluster, answer: &Answer, destination: &Spec) -> Option<String> {
    let asked = || answer.groups.iter().flat_map(|group| &group.asked);
    let ends: BTreeSet<&Endpoint> = asked().flat_map(|asked| asked.alike.destinations.iter()).collect();
    let pods = ends.into_iter().map(|end| pod_of(cluster, end)).collect::<Option<Vec<&Pod>>>()?;
    if pods.iter().any(|pod| pod.ports.is_empty()) {
        return None;
    }
    let declared: BTreeSet<(Protocol, u16, Option<&Name>)> = pods
        .iter()
        .flat_map(|pod| pod.ports.iter())
        .map(|port| (port.protocol, port.port, port.name.as_ref()))
        .collect();
    let known: BTreeSet<(Protocol, u16)> =
        declared.iter().map(|(protocol, port, _)| (*protocol, *port)).collect();
    let missing: BTreeSet<(Protocol, u16)> =
        calls(answer).map(|call| (call.protocol, call.port)).filter(|call| !known.contains(call)).collect();
    let missing: Vec<String> = missing
        .into_iter()
        .filter(|(protocol, _)| protocol.has_ports())
        .map(|(protocol, port)| port_text(protocol, port))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let of = if asked().any(|asked| asked.service.is_some()) { "behind" } else { "of" };
    let is_one = of == "of" && matches!(destination.endpoint, EndpointSpec::Named { .. });
    let text = |(protocol, port, name): &(Protocol, u16, Option<&Name>)| match name {
        Some(name) => format!("{} ({name})", port_text(*protocol, *port)),
        None => port_text(*protocol, *port),
    };
    let mut shown: Vec<String> = declared.iter().take(MAX_PORTS).map(text).collect();
    if declared.len() > MAX_PORTS {
        shown.push(format!("{} more", declared.len() - MAX_PORTS));
    }
    Some(format!(
        "no container {of} {} declares {}; {} {}",
        answer.destination,
        missing.join(" or "),
        if is_one { "it declares" } else { "they declare" },
        shown.join(", ")
    ))
}

fn calls(answer: &Answer) -> impl Iterator<Item = &DestinationPort> {
    answer.groups.iter().flat_map(|group| &group.calls)
}

fn pod_of<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Pod> {
    if let Endpoint::Pod { key, .. } = end { cluster.pods.get(key) } else { None }
}

/// Whether a client looks up the name of this destination. The name of a pod that does not exist has a colon.
fn has_name(spec: &Spec) -> bool {
    match &spec.endpoint {
        EndpointSpec::Named { kind, name, .. } => *kind != Some(EndpointKind::Node) && !name.contains(':'),
        _ => false,
    }
}

/// An allowed connection that fails before it starts, because the source can't look up the destination's name.
fn without_dns(cluster: &Cluster, answer: &Answer, destination: &Spec) -> Option<String> {
    let is_dns = |call: &DestinationPort| call.service_port.unwrap_or(call.port) == DNS_PORT;
    if answer.verdict != Conclusion::Allowed || !has_name(destination) || calls(answer).any(is_dns) {
        return None;
    }
    let known = palisade_names::dns_servers(cluster);
    let first = known.first()?;
    let servers = ways_to_dns(cluster, &known)?;
    let sources = answer.groups.iter().flat_map(|group| &group.asked).map(|asked| &asked.flow.source);
    let sources: BTreeMap<&ObjectKey, &Pod> =
        sources.filter_map(|end| pod_of(cluster, end)).map(|pod| (&pod.key, pod)).collect();
    // A server resolves names itself.
    let clients = sources.values().filter(|pod| known.iter().all(|server| server.pod.key != pod.key));
    let judge = Judge::new(cluster);
    let denied: Vec<bool> = clients.map(|pod| is_denied_dns(&judge, pod, &servers)).collect();
    let who = match denied.iter().filter(|denied| **denied).count() {
        0 => return None,
        all if all == sources.len() => answer.source.clone(),
        _ => format!("some pods of {}", answer.source),
    };
    let DnsServer { pod, port } = first;
    let name = pod.workload.as_ref().map_or(&pod.key.name, |workload| &workload.name);
    let server = format!("{}/{name}", pod.key.namespace);
    Some(format!("{who} can't ask DNS (UDP {port} to {server} is denied), so names are not resolved"))
}

/// The address of NodeLocal DNSCache on every node, and the label of its pods.
const NODE_LOCAL: (IpAddr, (&str, &str)) =
    (IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10)), ("k8s-app", "node-local-dns"));

/// Returns where DNS answers, one endpoint for each set of servers that no policy distinguishes. `None` if the address of
/// a server is not known: it may be reachable.
fn ways_to_dns(cluster: &Cluster, servers: &[DnsServer<'_>]) -> Option<Vec<(Endpoint, u16)>> {
    let mut classes = Alike::new(cluster);
    let mut out = BTreeMap::new();
    for server in servers {
        for end in palisade_names::endpoints_of(cluster, server.pod).ok()? {
            out.entry((classes.class(&end), server.port)).or_insert(end);
        }
    }
    let mut out: Vec<(Endpoint, u16)> = out.into_iter().map(|((_, port), end)| (end, port)).collect();
    let (address, (key, value)) = NODE_LOCAL;
    if cluster.pods.values().any(|pod| pod.labels.get(key) == Some(value)) {
        out.push((Endpoint::External(address), DNS_PORT));
    }
    Some(out)
}

/// Whether policies deny a pod every server that it has an address for. Resolvers ask over UDP, and over TCP only when an
/// answer is too long.
fn is_denied_dns(judge: &Judge<'_>, pod: &Pod, servers: &[(Endpoint, u16)]) -> bool {
    let flows = pod.addresses.iter().flat_map(|address| {
        let family = Family::of(*address);
        let near = servers.iter().filter(move |(server, _)| Family::of(server.address()) == family);
        near.map(move |(server, port)| Flow {
            source: Endpoint::Pod { key: pod.key.clone(), address: *address },
            destination: server.clone(),
            protocol: Protocol::Udp,
            port: *port,
            through_service: true,
        })
    });
    let mut denied = flows.map(|flow| judge.decide(&flow).verdict() == Some(Verdict::Deny));
    denied.next().is_some_and(|first| first && denied.all(|denied| denied))
}

/// The longest command that a hint repeats.
const MAX_COMMAND: usize = 200;

/// Returns the command line of this process with the verb `explain`, which takes the options of `can`. Of a long one, only
/// the ends are repeated.
pub(crate) fn explain_command(source: &str, destination: &str) -> String {
    let program = match Invocation::now() {
        Invocation::Plugin => "kubectl palisade",
        _ => "palisade",
    };
    let mut words: Vec<String> = env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy())).collect();
    if let Some(verb) = words.iter_mut().find(|word| *word == "can") {
        "explain".clone_into(verb);
    }
    let command = format!("{program} {}", words.join(" "));
    if command.chars().count() <= MAX_COMMAND && !command.contains(char::is_control) {
        return command;
    }
    format!("{program} explain {} {} …", quoted(source), quoted(destination))
}
