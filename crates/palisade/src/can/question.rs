//! Resolves two specs to the flows between them, one for each kind of pair that policies distinguish.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use palisade_analysis::{
    alike::{Alike, Relation},
    regions::{self, Region},
};
use palisade_names::Way;
use palisade_policy::{Cluster, Direction, Endpoint, Family, Flow, IpRange, Name, ObjectKey};

use super::{
    alike::{self, AlikeEnds},
    ends::{self, End, Outside, ServiceEnd},
    host::{Host, Known},
    note::Note,
    spec::Spec,
    targets::{TargetPort, targets},
};
use crate::verdict::Conclusion;

/// A resolved question.
#[derive(Debug)]
pub(crate) struct Question {
    /// The source in full spelling.
    pub(crate) source: String,
    /// The destination in full spelling.
    pub(crate) destination: String,
    /// The flows to decide. Never empty.
    pub(crate) flows: Vec<QuestionFlow>,
    /// How the destination is reached, if it is a service.
    pub(crate) access: Option<Access>,
    /// The host outside the cluster that is one of the ends.
    pub(crate) host: Option<Host>,
    /// The spelling of the end outside the cluster that is more than one address.
    pub(crate) outside: Option<String>,
    /// How the ends were found.
    pub(crate) notes: Vec<Note>,
    /// The ends that may be on any node.
    pub(crate) any_node: AnyNode,
}

/// The source and the destination by name, if they use the host network of a node that isn't known.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnyNode(pub(crate) [Option<String>; 2]);

impl AnyNode {
    /// Returns the end whose node decides, if the verdicts of it with the same kind of other ends, for the same rest of a
    /// question, are not equal for all nodes.
    pub(crate) fn deciding<'a, K: Ord>(
        &self,
        verdicts: impl Iterator<Item = (&'a AlikeEnds, K, Conclusion)>,
    ) -> Option<&str> {
        let side = self.0.iter().position(Option::is_some)?;
        let mut known: BTreeMap<(&Endpoint, K), Conclusion> = BTreeMap::new();
        for (ends, rest, verdict) in verdicts {
            let others = if side == 0 { &ends.destinations } else { &ends.sources };
            // The first end of a class stands for it, and has an IP family.
            let Some(other) = others.first() else { continue };
            if *known.entry((other, rest)).or_insert(verdict) != verdict {
                return self.0[side].as_deref();
            }
        }
        None
    }
}

/// One flow of a question, and the pairs for which it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuestionFlow {
    /// The flow.
    pub(crate) flow: Flow,
    /// The service through which it passes, if one was given.
    pub(crate) service: Option<ObjectKey>,
    /// The port of that service.
    pub(crate) service_port: Option<u16>,
    /// The part of the outside that one end represents.
    pub(crate) region: Option<Region>,
    /// The pairs for which it stands.
    pub(crate) alike: AlikeEnds,
}

impl QuestionFlow {
    /// Returns the IP family of its addresses.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.flow.destination.address())
    }
}

/// How a service is reached.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) service: ObjectKey,
    pub(crate) way: Way,
    pub(crate) external_local: bool,
    pub(crate) source_ranges: Vec<IpNet>,
}

impl Access {
    fn of(given: &ServiceEnd<'_>) -> Self {
        let access = &given.service.access;
        Self {
            service: given.service.key.clone(),
            way: given.way,
            external_local: access.external_local,
            source_ranges: access.source_ranges.clone(),
        }
    }
}

/// The most flows of a question. Replicas are folded, so only questions about whole clusters come near it.
const MAX_FLOWS: usize = 50_000;

/// Returns the addresses of a host.
pub(crate) type Lookup = fn(&str) -> Result<Vec<IpAddr>>;

/// Resolves a question against a cluster. Names without a namespace are looked up in `namespace`. Pairs that no policy
/// distinguishes are one flow. With a lookup, an end that is a host outside the cluster has the addresses that this returns.
///
/// # Errors
/// When an end does not exist or has no such port, or when there can be no connection between the two. When the lookup
/// fails, or is given and no end is such a host; when the host has an address of a service.
pub(crate) fn resolve(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
    lookup: Option<Lookup>,
) -> Result<Question> {
    let mut classes = Alike::new(cluster);
    resolve_by(cluster, source, destination, namespace, lookup, |end| classes.class(end))
}

/// As [`resolve`], with one flow for each pair of endpoints.
///
/// # Errors
/// As [`resolve`].
#[cfg_attr(
    not(all(target_os = "linux", feature = "lab")),
    expect(dead_code, reason = "the lab sends packets")
)]
pub(crate) fn resolve_each(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
) -> Result<Question> {
    let mut numbers: HashMap<Endpoint, u32> = HashMap::new();
    resolve_by(cluster, source, destination, namespace, None, |end| {
        let next = numbers.len() as u32;
        *numbers.entry(end.clone()).or_insert(next)
    })
}

/// The source of a question.
enum Sources {
    Endpoints(Vec<Endpoint>),
    Outside(Outside),
}

fn resolve_by(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
    lookup: Option<Lookup>,
    mut class: impl FnMut(&Endpoint) -> u32,
) -> Result<Question> {
    if source.port.is_some() || source.protocol.is_some() {
        bail!("the source has a port or protocol; give it with the destination: SRC DST:PORT/PROTO");
    }
    let mut from = ends::end(cluster, source, namespace).context("source")?;
    let mut to = ends::end(cluster, destination, namespace).context("destination")?;
    if let Some(lookup) = lookup {
        look_up(cluster, [&mut from.end, &mut to.end], lookup)?;
    }
    let host = [&from, &to].into_iter().find_map(|resolved| match &resolved.end {
        End::Outside(Outside::Host(host)) => Some(host.clone()),
        _ => None,
    });
    let outside_name = [&from, &to].into_iter().find_map(|resolved| match &resolved.end {
        End::Outside(_) => Some(resolved.name.clone()),
        _ => None,
    });
    let access = match &to.end {
        End::Service(given) => Some(Access::of(given)),
        _ => None,
    };
    let any_node = AnyNode([&from, &to].map(|end| end.on_any_node.then(|| end.name.clone())));
    let mut notes = from.notes;
    notes.extend(to.notes.iter().cloned());
    notes.extend(host.as_ref().map(Note::host));
    let sources = match from.end {
        End::Endpoints(ends) => Sources::Endpoints(ends),
        End::Service(service) => Sources::Endpoints(ends::of_service(cluster, &service)?),
        // A source has no port.
        End::HostPort(ends) => Sources::Endpoints(ends.into_iter().map(|(end, ..)| end).collect()),
        End::Outside(outside) => Sources::Outside(outside),
    };
    let local = local_service(&to.end, &sources);
    let mut key = |end: &Endpoint| (class(end), local.and_then(|_| alike::node_of(cluster, end).cloned()));
    let mut by_call: Vec<(TargetPort, Vec<Endpoint>)> = Vec::new();
    let mut calls: HashMap<TargetPort, usize> = HashMap::new();
    for target in targets(cluster, destination, &to, &mut notes)? {
        let index = *calls.entry(target.call.clone()).or_insert(by_call.len());
        if index == by_call.len() {
            by_call.push((target.call, Vec::new()));
        }
        by_call[index].1.extend(target.end);
    }
    let mut builder = Builder { cluster, flows: Vec::new(), unanswered: 0 };
    let outside = match &to.end {
        End::Outside(outside) => Some(outside),
        _ => None,
    };
    let sources = match sources {
        Sources::Outside(outside) => Err(outside),
        Sources::Endpoints(ends) => Ok(alike::grouped(ends, &mut key)),
    };
    for (call, ends) in by_call {
        let destinations = alike::grouped(ends, &mut key);
        match (&sources, outside) {
            (Err(_), Some(_)) => {
                bail!("neither end is in the cluster: policies do not apply to connections outside it")
            }
            (Err(from), None) => {
                for group in &destinations {
                    builder.with_outside(from, group, Direction::Ingress, &call)?;
                }
            }
            (Ok(sources), Some(to)) => {
                for group in sources {
                    builder.with_outside(to, group, Direction::Egress, &call)?;
                }
            }
            (Ok(sources), None) => {
                for destination in &destinations {
                    for source in sources {
                        builder.within(source, destination, &call)?;
                    }
                }
            }
        }
    }
    let (mut flows, unanswered) = (builder.flows, builder.unanswered);
    without_loops(&mut flows);
    if let Some(service) = local {
        if flows.is_empty() && unanswered > 0 {
            bail!(
                "service {service} has internalTrafficPolicy: Local and no endpoint on the node of the source: nothing \
                 answers"
            );
        }
        notes.push(Note::local_endpoints(&service.to_string()));
    }
    if flows.is_empty() {
        bail!(
            "{} and {} have no IP family in common, so there are no connections between them",
            from.name,
            to.name
        );
    }
    notes.dedup();
    Ok(Question {
        source: from.name,
        destination: to.name,
        flows,
        access,
        host,
        outside: outside_name,
        notes,
        any_node,
    })
}

/// Asks for the addresses of the ends that are hosts outside the cluster.
fn look_up(cluster: &Cluster, ends: [&mut End<'_>; 2], lookup: Lookup) -> Result<()> {
    let mut asked = false;
    for end in ends {
        let End::Outside(Outside::Host(host)) = end else { continue };
        asked = true;
        let addresses = lookup(&host.name)?;
        for address in &addresses {
            if let Some((service, _)) = palisade_names::services_at(cluster, *address).first() {
                let ObjectKey { namespace, name } = &service.key;
                bail!(
                    "{} has the address {address} of a service; ask about {namespace}/svc/{name}",
                    host.name
                );
            }
        }
        host.known = Known::Answered(addresses);
    }
    if !asked {
        bail!("--resolve: neither end is the name of a host outside the cluster");
    }
    Ok(())
}

/// Returns the service that leads only to pods on the client's node, if the destination is one.
fn local_service<'a>(to: &End<'a>, sources: &Sources) -> Option<&'a ObjectKey> {
    match (to, sources) {
        (End::Service(given), Sources::Endpoints(_))
            if given.service.access.internal_local && given.way == Way::ClusterIp =>
        {
            Some(&given.service.key)
        }
        _ => None,
    }
}

/// A class of endpoints, on one node if that matters.
type Group = ((u32, Option<Name>), Arc<[Endpoint]>);

struct Builder<'c> {
    cluster: &'c Cluster,
    flows: Vec<QuestionFlow>,
    /// The pairs of classes of a local service that are on different nodes.
    unanswered: usize,
}

impl Builder<'_> {
    fn add(&mut self, flow: QuestionFlow) -> Result<()> {
        if self.flows.len() >= MAX_FLOWS {
            bail!(
                "the question has more than {MAX_FLOWS} kinds of connections; give single pods or one port, or use `palisade \
                 connections`"
            );
        }
        self.flows.push(flow);
        Ok(())
    }

    /// Adds the flows from one class to another.
    fn within(&mut self, from: &Group, to: &Group, call: &TargetPort) -> Result<()> {
        let ((_, here), sources) = from;
        let ((_, there), destinations) = to;
        if let (Some(here), Some(there)) = (here, there)
            && here != there
        {
            self.unanswered += 1;
            return Ok(());
        }
        // All endpoints of a class have the same family.
        if alike::families(&sources[..1]) != alike::families(&destinations[..1]) {
            return Ok(());
        }
        let (service, service_port) = call.service.clone().unzip();
        for pairs in alike::pairs(self.cluster, sources, destinations) {
            let Some((source, destination)) = pairs.samples.first().copied() else { continue };
            let flow = call.flow(source.clone(), destination.clone());
            let alike = AlikeEnds {
                sources: sources.clone(),
                destinations: destinations.clone(),
                relation: pairs.relation,
                pairs: pairs.count,
                samples: pairs.samples.into_iter().map(|(s, d)| (s.clone(), d.clone())).collect(),
            };
            let (service, region) = (service.clone(), None);
            self.add(QuestionFlow { flow, service, service_port, region, alike })?;
        }
        Ok(())
    }

    /// Adds the flows between a class and every part of the outside that its policies distinguish. `direction` is as seen
    /// from that class.
    fn with_outside(
        &mut self,
        outside: &Outside,
        group: &Group,
        direction: Direction,
        call: &TargetPort,
    ) -> Result<()> {
        let (_, ends) = group;
        let Some(end) = ends.first() else { return Ok(()) };
        let subject = match end {
            Endpoint::Pod { key, .. } => self.cluster.pods.get(key),
            _ => None,
        };
        let family = Family::of(end.address());
        let addresses = match outside {
            Outside::Host(host) => host.addresses(),
            _ => None,
        };
        let regions = match outside {
            _ if let Some(addresses) = addresses => self.regions(addresses, family),
            Outside::Internet | Outside::Host(_) => {
                regions::internet(self.cluster, subject, direction, family)
            }
            Outside::Range(net) if Family::of_net(net) != family => Vec::new(),
            Outside::Range(net) => {
                regions::within(self.cluster, subject, direction, family, &[IpRange::of_net(net)])
            }
        };
        let (service, service_port) = call.service.clone().unzip();
        for region in regions {
            let other = Endpoint::External(region.sample);
            let others: Arc<[Endpoint]> = [other.clone()].into();
            let (flow, sources, destinations) = match direction {
                Direction::Ingress => (call.flow(other, end.clone()), others, ends.clone()),
                Direction::Egress => (call.flow(end.clone(), other), ends.clone(), others),
            };
            let alike = AlikeEnds::with_one(sources, destinations);
            let service = service.clone();
            self.add(QuestionFlow { flow, service, service_port, region: Some(region), alike })?;
        }
        // To policies, addresses of pods and nodes are these.
        let own = addresses.into_iter().flatten().filter(|address| Family::of(**address) == family);
        for endpoint in own.map(|address| self.cluster.endpoint(*address)) {
            if matches!(endpoint, Endpoint::External(_)) {
                continue;
            }
            let other: Group = ((u32::MAX, None), [endpoint].into());
            match direction {
                Direction::Ingress => self.within(&other, group, call)?,
                Direction::Egress => self.within(group, &other, call)?,
            }
        }
        Ok(())
    }

    /// Returns the addresses of a family that are outside the cluster, each as a region.
    fn regions(&self, addresses: &[IpAddr], family: Family) -> Vec<Region> {
        let is_outside = |address: &&IpAddr| {
            Family::of(**address) == family
                && matches!(self.cluster.endpoint(**address), Endpoint::External(_))
        };
        let region = |address: &IpAddr| {
            let ranges = vec![IpRange { first: *address, last: *address }];
            Region { asked: ranges.clone(), ranges, sample: *address }
        };
        addresses.iter().filter(is_outside).map(region).collect()
    }
}

/// Removes flows from a pod to itself, unless there are no others: a workload to itself means between its pods.
fn without_loops(flows: &mut Vec<QuestionFlow>) {
    let is_loop = |asked: &QuestionFlow| asked.alike.relation == Relation::Itself;
    if flows.iter().any(|asked| !is_loop(asked)) {
        flows.retain(|asked| !is_loop(asked) || asked.flow.through_service);
    }
}
