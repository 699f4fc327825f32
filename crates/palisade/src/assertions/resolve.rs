//! Written assertions to assertions about the objects of a cluster.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use palisade_analysis::{
    PodSet,
    assertion::{AskedTraffic, AssertedEnds, Assertion, Expectation},
    regions,
};
use palisade_names::PortSpec;
use palisade_policy::{
    Cluster, Endpoint, IpBlock, IpRange, Labels, Name, NamespaceMatch, PodMatch, PortSet, Protocol,
    Requirement, Selector, Test, Traffic, Workload, address::union,
};

use super::{
    file::{self, EndKind, Written, WrittenEnd, WrittenPort},
    hosts,
};
use crate::can::{
    EndpointSpec, Spec, domain_names,
    ends::{self, End, Outside},
};

/// Labels that controllers give each pod, or each generation of pods.
const VOLATILE: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// Returns the assertions that a written one makes: one, or one for each port of a Service.
///
/// # Errors
/// When an end doesn't exist or matches nothing.
pub(super) fn assertions(cluster: &Cluster, written: &Written, namespace: &str) -> Result<Vec<Assertion>> {
    let mut from = AssertedEnds::default();
    for end in &written.from {
        hosts::check_source(cluster, end, namespace).with_context(|| end.place.to_string())?;
        let found = resolve(cluster, end, namespace, written.expect == Expectation::Only)?;
        let Found::Ends(ends) = found else {
            let Found::Service(service) = found else { continue };
            let pods = palisade_names::service_targets(cluster, service, None, None);
            let targets = pods.with_context(|| end.place.to_string())?.targets;
            let ends: BTreeSet<Endpoint> = targets.into_iter().map(|target| target.end).collect();
            from.endpoints.extend(ends);
            continue;
        };
        merge(&mut from, ends);
    }
    let mut direct = AssertedEnds::default();
    let mut out: Vec<Assertion> = Vec::new();
    let asked = file::traffic(&written.ports);
    let assertion = |to, asked| Assertion { from: from.clone(), to, asked, expect: written.expect };
    for end in &written.to {
        match resolve(cluster, end, namespace, false)? {
            Found::Ends(ends) => merge(&mut direct, ends),
            Found::Service(service) => {
                for (protocol, port, endpoints) in targets(cluster, service, written, end)? {
                    let numbers = Traffic::of(protocol, PortSet::range(port, port));
                    let asked = AskedTraffic { numbers, names: BTreeSet::new() };
                    out.push(assertion(AssertedEnds { endpoints, ..AssertedEnds::default() }, asked));
                }
            }
        }
    }
    if direct != AssertedEnds::default() {
        named_ports_exist(cluster, &direct, &written.ports, written)?;
        out.insert(0, assertion(direct, asked));
    }
    Ok(out)
}

fn merge(all: &mut AssertedEnds, ends: AssertedEnds) {
    for end in ends.endpoints {
        if !all.endpoints.contains(&end) {
            all.endpoints.push(end);
        }
    }
    all.pods.extend(ends.pods);
    all.ranges = union(all.ranges.iter().copied().chain(ends.ranges).collect());
}

enum Found<'c> {
    Ends(AssertedEnds),
    Service(&'c palisade_policy::Service),
}

/// Resolves an end. `replicas`: a workload stands for the pods that will be made of it, too.
fn resolve<'c>(cluster: &'c Cluster, end: &WrittenEnd, namespace: &str, replicas: bool) -> Result<Found<'c>> {
    let found = match &end.kind {
        EndKind::Word(word) => of_word(cluster, word, namespace, replicas),
        EndKind::Pods { namespace, namespaces, pods } => {
            let namespaces = match (namespace, namespaces) {
                (Some(name), _) => NamespaceMatch::Named(name.clone()),
                (None, Some(labels)) => NamespaceMatch::Selected(labels.clone()),
                (None, None) => NamespaceMatch::Selected(Selector::everything()),
            };
            let choice = PodMatch { namespaces, pods: pods.clone() };
            of_pods(cluster, &choice, true).map(Found::Ends)
        }
        EndKind::Block { cidr, except } => {
            let ranges = IpBlock { cidr: *cidr, except: except.clone().into() }.ranges();
            if ranges.is_empty() {
                Err(anyhow::anyhow!("the block has no address"))
            } else {
                Ok(Found::Ends(outside(ranges)))
            }
        }
    };
    found.with_context(|| end.place.to_string())
}

fn outside(ranges: Vec<IpRange>) -> AssertedEnds {
    AssertedEnds { ranges, ..AssertedEnds::default() }
}

fn of_word<'c>(cluster: &'c Cluster, word: &str, namespace: &str, replicas: bool) -> Result<Found<'c>> {
    let spec: Spec = word.parse().with_context(|| format!("`{word}`"))?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("`{word}`: give ports in `ports`");
    }
    match &spec.endpoint {
        EndpointSpec::Everything { namespace } => {
            let namespaces = match namespace {
                Some(name) => NamespaceMatch::Named(name.as_str().into()),
                None => NamespaceMatch::Selected(Selector::everything()),
            };
            let choice = PodMatch { namespaces, pods: Selector::everything() };
            return of_pods(cluster, &choice, true).map(Found::Ends);
        }
        EndpointSpec::MadeUp { .. } => {
            bail!("`{word}`: give pods by labels: {{namespace: shop, pods: {{app: web}}}}")
        }
        EndpointSpec::Internet => return Ok(Found::Ends(outside(regions::public_ranges(cluster)))),
        EndpointSpec::Range(net) => return Ok(Found::Ends(outside(vec![IpRange::of_net(net)]))),
        EndpointSpec::Address(_) | EndpointSpec::Named { .. } => {}
    }
    let resolved = ends::end(cluster, &spec, namespace)?;
    match resolved.end {
        End::Service(given) => Ok(Found::Service(given.service)),
        End::Endpoints(endpoints) => {
            let pods = if replicas { replicas_of(cluster, &endpoints) } else { Vec::new() };
            Ok(Found::Ends(AssertedEnds { endpoints, pods, ranges: Vec::new() }))
        }
        End::HostPort(ends) => {
            let endpoints = ends.into_iter().map(|(end, ..)| end).collect();
            Ok(Found::Ends(AssertedEnds { endpoints, ..AssertedEnds::default() }))
        }
        End::Outside(Outside::Range(net)) => Ok(Found::Ends(outside(vec![IpRange::of_net(&net)]))),
        End::Outside(Outside::Internet) => Ok(Found::Ends(outside(regions::public_ranges(cluster)))),
        End::Outside(Outside::Host(host)) => match host.addresses() {
            Some(addresses) => {
                let one = |address: &IpAddr| IpRange { first: *address, last: *address };
                Ok(Found::Ends(outside(addresses.iter().map(one).collect())))
            }
            // A part of an assertion with a name is judged where addresses are learned for it.
            None if domain_names::has_rule(cluster, &host) => {
                bail!("`{word}`: the addresses of names that rules have are not known")
            }
            None => Ok(Found::Ends(outside(regions::public_ranges(cluster)))),
        },
    }
}

/// Returns the pods that will be made of the workloads of some pods: those with the labels that all pods of one have.
pub(super) fn replicas_of(cluster: &Cluster, endpoints: &[Endpoint]) -> Vec<PodSet> {
    let mut workloads: std::collections::BTreeMap<(Name, Workload), Labels> =
        std::collections::BTreeMap::new();
    for end in endpoints {
        let Endpoint::Pod { key, .. } = end else { continue };
        let Some(pod) = cluster.pods.get(key) else { continue };
        let Some(workload) = pod.workload.clone() else { continue };
        let known = workloads.entry((key.namespace.clone(), workload)).or_insert_with(|| pod.labels.clone());
        let common = known.iter().filter(|(label, value)| pod.labels.get(label) == Some(&***value));
        *known = common.map(|(label, value)| (label.clone(), value.clone())).collect();
    }
    let sets = workloads.into_iter().filter_map(|((namespace, _), labels)| {
        let stable: Vec<_> = labels.iter().filter(|(key, _)| !VOLATILE.contains(&&***key)).collect();
        // Without labels, nothing tells these pods from others.
        if stable.is_empty() {
            return None;
        }
        let requirement = |(key, value): (&Name, &Name)| Requirement {
            key: key.clone(),
            test: Test::In([value.clone()].into()),
        };
        let pods = Selector::new(stable.into_iter().map(requirement));
        PodSet::of(&PodMatch { namespaces: NamespaceMatch::Named(namespace), pods })
    });
    sets.collect()
}

/// Returns the pods that a selector selects, those that exist and those that may.
pub(super) fn of_pods(cluster: &Cluster, choice: &PodMatch, future: bool) -> Result<AssertedEnds> {
    if let NamespaceMatch::Named(name) = &choice.namespaces
        && !cluster.namespaces.contains_key(name)
    {
        // The lookup of any name there says which namespaces are similar.
        palisade_names::find(cluster, None, name, "*")?;
    }
    let Some(set) = PodSet::of(choice) else { bail!("the selector can't match any pod") };
    let pods = set.existing(cluster).flat_map(|pod| {
        pod.addresses.iter().map(|address| Endpoint::Pod { key: pod.key.clone(), address: *address })
    });
    let endpoints: Vec<Endpoint> = pods.collect();
    if endpoints.is_empty() {
        bail!("it matches no pod that exists, so it says nothing about the cluster");
    }
    Ok(AssertedEnds { endpoints, pods: if future { vec![set] } else { Vec::new() }, ranges: Vec::new() })
}

/// A port behind a Service, with the endpoints that have it.
type Behind = (Protocol, u16, Vec<Endpoint>);

/// Returns the endpoints behind the ports of a Service that are meant.
fn targets(
    cluster: &Cluster,
    service: &palisade_policy::Service,
    written: &Written,
    end: &WrittenEnd,
) -> Result<Vec<Behind>> {
    let at = || end.place.to_string();
    let mut found = Vec::new();
    if written.ports.is_empty() {
        found = palisade_names::service_targets(cluster, service, None, None).with_context(at)?.targets;
    }
    for port in &written.ports {
        let (protocol, ports) = match port {
            WrittenPort::Numbers(protocol, first, last) => {
                let known = service.ports.iter().filter(|p| p.protocol == *protocol).map(|p| p.port);
                let inside: Vec<PortSpec> =
                    known.filter(|p| (first..=last).contains(&p)).map(PortSpec::Number).collect();
                let inside = if inside.is_empty() { vec![PortSpec::Number(*first)] } else { inside };
                (*protocol, inside)
            }
            WrittenPort::Name(name, protocol) => (*protocol, vec![PortSpec::Name(name.clone())]),
            WrittenPort::Icmp => bail!("{}: a Service answers no ICMP; give its pods", end.place),
        };
        for port in ports {
            let targets = palisade_names::service_targets(cluster, service, Some(protocol), Some(&port));
            found.extend(targets.with_context(at)?.targets);
        }
    }
    let mut out: Vec<Behind> = Vec::new();
    for target in found {
        match out.iter_mut().find(|(protocol, port, _)| (*protocol, *port) == (target.protocol, target.port))
        {
            Some((.., ends)) => ends.push(target.end),
            None => out.push((target.protocol, target.port, vec![target.end])),
        }
    }
    Ok(out)
}

/// Checks that some destination has each port that is given by name.
fn named_ports_exist(
    cluster: &Cluster,
    to: &AssertedEnds,
    ports: &[WrittenPort],
    written: &Written,
) -> Result<()> {
    for port in ports {
        let WrittenPort::Name(name, protocol) = port else { continue };
        let pods = to.endpoints.iter().filter_map(|end| match end {
            Endpoint::Pod { key, .. } => cluster.pods.get(key),
            _ => None,
        });
        let mut pods = pods;
        if !pods.any(|pod| pod.named_ports(name, Some(*protocol)).next().is_some()) {
            bail!("{}: no destination has a port `{name}`/{protocol}", written.place);
        }
    }
    Ok(())
}
