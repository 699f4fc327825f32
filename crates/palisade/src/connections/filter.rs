//! Parses `--from`, `--to` and `--port`.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use palisade_analysis::EndFilter;
use palisade_analysis::regions;
use palisade_policy::{
    Cluster, Direction, DomainName, Endpoint, Family, IpRange, LearnedName, PortSet, Protocol, Traffic,
};

use crate::{
    can::{
        EndpointSpec, Spec, canonical, domain_names,
        ends::{self, End, Outside},
    },
    connection_ends::CONTROLLER,
};

/// Returns what agents would learn for the host of `arguments` that a rule has by name: an address of each part of the internet
/// that policies distinguish.
///
/// # Errors
/// When there are several: an address can stand for one of them only.
pub(crate) fn learned(
    cluster: &Cluster,
    arguments: &[String],
    namespace: &str,
) -> Result<Option<LearnedName>> {
    let mut found: Option<LearnedName> = None;
    for spec in arguments.iter().filter_map(|argument| argument.parse::<Spec>().ok()) {
        let Ok(resolved) = ends::end(cluster, &spec, namespace) else { continue };
        let End::Outside(Outside::Host(host)) = resolved.end else { continue };
        let Some(name) = DomainName::new(&host.name).filter(|_| domain_names::has_rule(cluster, &host))
        else {
            continue;
        };
        if found.as_ref().is_some_and(|other| other.name != name) {
            bail!("more than one host that rules have by name; ask about one");
        }
        let addresses = regions::samples(cluster).into_iter().collect();
        found = Some(LearnedName { name, addresses });
    }
    Ok(found)
}

/// Returns a filter for the ends of `arguments`. Names without a namespace are looked up in `namespace`.
pub(crate) fn filter(cluster: &Cluster, arguments: &[String], namespace: &str) -> Result<EndFilter> {
    let mut filter = EndFilter::default();
    for argument in arguments {
        add(cluster, argument, namespace, &mut filter).with_context(|| format!("`{argument}`"))?;
    }
    Ok(filter)
}

fn add(cluster: &Cluster, argument: &str, namespace: &str, filter: &mut EndFilter) -> Result<()> {
    if let Some(name) = argument.strip_prefix("namespace/").or_else(|| argument.strip_prefix("ns/"))
        && !name.contains('/')
    {
        let Some((name, _)) = cluster.namespaces.get_key_value(name) else {
            bail!("namespace `{name}` not found");
        };
        filter.namespaces.insert(name.clone());
        return Ok(());
    }
    if argument == CONTROLLER {
        filter.controller = true;
        return Ok(());
    }
    if let Ok(net) = argument.parse::<IpNet>() {
        return add_range(cluster, IpRange::of_net(&canonical(net)), filter);
    }
    let spec: Spec = argument.parse()?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("ports and protocols must be given with --port");
    }
    if spec.endpoint == EndpointSpec::Internet {
        let of = |family| regions::internet(cluster, None, Direction::Egress, family);
        filter.ranges.extend(Family::BOTH.into_iter().flat_map(of).flat_map(|region| region.ranges));
        return Ok(());
    }
    if let End::Outside(Outside::Host(host)) = ends::end(cluster, &spec, namespace)?.end {
        let one = |address: &IpAddr| IpRange { first: *address, last: *address };
        match host.addresses() {
            Some(addresses) => filter.ranges.extend(addresses.iter().map(one)),
            None => filter.ranges.extend(regions::public_ranges(cluster)),
        }
        return Ok(());
    }
    for end in ends::endpoints(cluster, &spec.endpoint, namespace)? {
        match end {
            Endpoint::Pod { key, .. } => drop(filter.pods.insert(key)),
            Endpoint::Node { name, .. } => drop(filter.nodes.insert(name)),
            Endpoint::External(address) => {
                add_range(cluster, IpRange { first: address, last: address }, filter)?;
            }
        }
    }
    Ok(())
}

/// Adds addresses outside the cluster. Those of pods' ranges are no ends, whether pods have them or not.
fn add_range(cluster: &Cluster, range: IpRange, filter: &mut EndFilter) -> Result<()> {
    if cluster.are_in_pod_ranges(range) {
        bail!("it belongs to pods: name pods instead; `palisade can` answers for an address that no pod has");
    }
    filter.ranges.push(range);
    Ok(())
}

/// Returns the traffic of all `arguments`, or `None` if there are none.
pub(crate) fn traffic(arguments: &[String]) -> Result<Option<Traffic>> {
    let mut all: Option<Traffic> = None;
    for argument in arguments {
        let one = ports(argument).with_context(|| format!("`{argument}`"))?;
        all = Some(all.map_or_else(|| one.clone(), |all| all.union(&one)));
    }
    Ok(all)
}

/// Parses `80`, `8000-8100/UDP`, `TCP`, `ICMP`.
fn ports(argument: &str) -> Result<Traffic> {
    if let Some(protocol) = protocol(argument) {
        return Ok(Traffic::of(protocol, PortSet::all()));
    }
    let (range, protocol) = match argument.split_once('/') {
        None => (argument, Protocol::Tcp),
        Some((range, name)) => match protocol(name) {
            Some(Protocol::Other(_)) => bail!("ICMP has no ports; use ICMP alone"),
            Some(protocol) => (range, protocol),
            None => bail!("unknown protocol `{name}`; supported are TCP, UDP, SCTP and ICMP"),
        },
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| -> Result<u16> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(n) if digits && n > 0 => Ok(n),
            _ => bail!(
                "`{text}` is not a port number from 1 to 65535; port names are not supported, because pods define them differently"
            ),
        }
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        bail!("the range ends before it starts");
    }
    Ok(Traffic::of(protocol, PortSet::range(first, last)))
}

/// Parses a protocol. ICMP means every protocol without ports, since no rule distinguishes these.
fn protocol(argument: &str) -> Option<Protocol> {
    match argument.to_ascii_uppercase().as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        "ICMP" => Some(Protocol::Other(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_every_spelling() {
        let text = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|w| (*w).to_owned()).collect();
            traffic(&arguments).map(|t| t.map_or_else(|| "any".to_owned(), |t| t.to_string()))
        };
        assert_eq!(text(&[]).unwrap(), "any");
        assert_eq!(text(&["80"]).unwrap(), "TCP 80");
        assert_eq!(text(&["80", "8000-8100/tcp", "53/UDP"]).unwrap(), "TCP 80,8000-8100; UDP 53");
        assert_eq!(text(&["ICMP", "SCTP"]).unwrap(), "SCTP; other protocols");
        for wrong in ["0", "65536", "90-80", "http", "80/QUIC", "80/ICMP", "", "-", "+80", "1-2-3"] {
            assert!(text(&[wrong]).is_err(), "{wrong}");
        }
    }
}
