//! `palisade lab probe` to a host name: each source asks the lab's DNS servers, and connects to what they answer.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use palisade_lab::{
    Lab,
    dns::{self, LookupOutcome},
    probe::ProbeOptions,
};
use palisade_policy::{DomainName, Endpoint, Family};

use super::{connections::connect, control::ProbeAnswer};
use crate::can::{EndpointSpec, Spec, ends, question};

/// Returns the name if the destination is a host that the lab's DNS servers can be asked for.
///
/// # Errors
/// When the destination is nothing that the cluster has, or a host and the lab has no DNS servers.
pub(super) fn host(lab: &Lab, destination: &Spec, namespace: &str) -> Result<Option<DomainName>> {
    let cluster = &lab.layout().cluster;
    let Some(host) = ends::host(cluster, destination, namespace).context("destination")? else {
        return Ok(None);
    };
    if lab.names().is_none() {
        bail!("{host}: this lab has no DNS servers; start it with --zones, or use an address");
    }
    let name = DomainName::new(&host).with_context(|| format!("`{host}` is no host name"))?;
    Ok(Some(name))
}

/// Lets each source ask for the name, and connect to each address in the answer at once.
pub(super) fn probe(
    lab: &Lab,
    source: &Spec,
    (destination, name): (&Spec, &DomainName),
    namespace: &str,
    options: &ProbeOptions,
) -> Result<Vec<ProbeAnswer>> {
    let mut out = Vec::new();
    for end in ends::endpoints(&lab.layout().cluster, &source.endpoint, namespace)? {
        let Some((asked, outcome)) = dns::ask(lab, &end, name)? else { continue };
        let addresses = match &outcome {
            LookupOutcome::Addresses(addresses) => addresses.clone(),
            _ => Vec::new(),
        };
        let kind = if asked.family == Family::V4 { "A" } else { "AAAA" };
        out.push(ProbeAnswer {
            source: end.to_string(),
            destination: name.to_string(),
            on: format!("{kind} at {}", asked.server.ip()),
            outcome: outcome.to_string(),
            answered: !addresses.is_empty(),
            expected: asked.expected.to_string(),
            agrees: asked.expected.agrees(&outcome),
            reasons: Vec::new(),
        });
        out.extend(connections(lab, source, &end, (destination, name, &addresses), namespace, options)?);
    }
    if out.is_empty() {
        bail!("no DNS server of the lab has an address of the family of the source");
    }
    Ok(out)
}

fn connections(
    lab: &Lab,
    source: &Spec,
    end: &Endpoint,
    (destination, name, addresses): (&Spec, &DomainName, &[IpAddr]),
    namespace: &str,
    options: &ProbeOptions,
) -> Result<Vec<ProbeAnswer>> {
    let cluster = dns::learned_from(lab, name, addresses);
    let mut flows = Vec::new();
    for address in addresses {
        let to = Spec { endpoint: EndpointSpec::Address(*address), ..destination.clone() };
        let asked = question::resolve_each(&cluster, source, &to, namespace)?.flows;
        flows.extend(asked.into_iter().filter(|asked| asked.flow.source == *end));
    }
    connect(lab, &cluster, flows, options)
}
