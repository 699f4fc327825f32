//! Connections that `palisade lab probe` asks a running lab to open.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result, bail};
use palisade_lab::{
    Lab, dns,
    probe::{self, Expected, Outcome as ProbeOutcome, Plan, Probe, ProbeOptions, ProbeResult, Target},
};
use palisade_policy::{Cluster, Direction, Endpoint, Family, reference};

use super::{
    control::ProbeAnswer,
    run::{expected_word, passed},
    wording::verdict_lines,
};
use crate::{can::QuestionFlow, reasons};

/// Returns the external addresses of the lab, for messages.
pub(super) fn outside(lab: &Lab) -> String {
    lab.layout().outside.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Opens the connections. Expected is what the engine decides about this cluster; with names that nodes may have learned besides, either outcome may be.
pub(super) fn connect(
    lab: &Lab,
    cluster: &Cluster,
    asked: Vec<QuestionFlow>,
    options: &ProbeOptions,
) -> Result<Vec<ProbeAnswer>> {
    for asked in &asked {
        for end in [&asked.flow.source, &asked.flow.destination] {
            if let Endpoint::External(address) = end
                && !lab.layout().outside.contains(address)
            {
                bail!(
                    "the lab does not have the address {address}; its external addresses are {}",
                    outside(lab)
                );
            }
        }
    }
    let plan = Plan { probes: probes([cluster, &dns::learned_by_all(lab)], asked)?, not_probed: Vec::new() };
    let is_query = |probe: &&Probe| {
        let at = SocketAddr::new(probe.target.address(), probe.port);
        lab.names().is_some_and(|(_, servers)| {
            servers.ask.contains(&at) || servers.at.iter().any(|(_, to)| *to == at)
        })
    };
    if let Some(probe) = plan.probes.iter().find(is_query) {
        bail!(
            "a DNS server answers there, which answers no probes; probe a name of the zones, such as NAME:{}",
            probe.port
        );
    }
    let report = probe::run(lab, &plan, options, |_, _| {})?;
    Ok(report.probes.iter().map(|tried| probe_answer(cluster, tried)).collect())
}

/// Returns one probe per flow, or for a service, one per address of the service.
fn probes([cluster, learned]: [&Cluster; 2], asked: Vec<QuestionFlow>) -> Result<Vec<Probe>> {
    let mut out = Vec::new();
    let mut services: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for a in asked {
        let verdict = reference::decide(cluster, &a.flow).verdict();
        let source = a.flow.source.clone();
        match (&a.service, a.service_port) {
            (Some(service), Some(port)) => {
                let key = (service.clone(), source, a.flow.protocol, port);
                services.entry(key).or_default().push((a.flow, verdict));
            }
            _ => {
                let target = Target::Direct(a.flow.destination.clone());
                let (protocol, port, mut flows) =
                    (a.flow.protocol, a.flow.port, vec![(a.flow.clone(), verdict)]);
                let once_learned = reference::decide(learned, &a.flow).verdict();
                if once_learned != verdict {
                    flows.push((a.flow, once_learned));
                }
                let refuses = probe::refuses(cluster, &flows);
                out.push(Probe { source, target, protocol, port, flows, refuses });
            }
        }
    }
    for ((key, source, protocol, port), flows) in services {
        let family = Family::of(source.address());
        let addresses = cluster.services.get(&key).map(|s| &s.addresses);
        let address = addresses.into_iter().flatten().find(|a| Family::of(**a) == family);
        let address = *address.with_context(|| format!("service {key} has no {family} address"))?;
        let refuses = probe::refuses(cluster, &flows);
        out.push(Probe { source, target: Target::Service { key, address }, protocol, port, flows, refuses });
    }
    Ok(out)
}

fn probe_answer(cluster: &Cluster, tried: &ProbeResult) -> ProbeAnswer {
    let probe = &tried.probe;
    // For a single address, flows differ only in what was learned.
    let is_direct = matches!(probe.target, Target::Direct(_));
    // If no program listens on the port, the destination refuses the connection: the packet has arrived.
    let refused = tried.outcome == ProbeOutcome::Refused && probe.expected() == Expected::Allowed;
    let mut reasons = Vec::new();
    for (flow, _) in probe.flows.iter().take(if is_direct { 1 } else { probe.flows.len() }) {
        let decision = reference::decide(cluster, flow);
        for (direction, side) in
            [(Direction::Egress, &decision.egress), (Direction::Ingress, &decision.ingress)]
        {
            let lines = verdict_lines(side, direction);
            reasons.extend(lines.into_iter().map(|line| format!("{direction}: {line}")));
        }
    }
    ProbeAnswer {
        source: probe.source.to_string(),
        destination: match &probe.target {
            Target::Direct(end) => end.to_string(),
            Target::Service { key, address } => format!("service {key} ({address})"),
        },
        on: reasons::port_text(probe.protocol, probe.port),
        outcome: tried.outcome.to_string(),
        answered: passed(&tried.outcome) || refused,
        expected: match probe.expected() {
            Expected::Either if is_direct => {
                "denied, or allowed while the address is learned for a name".to_owned()
            }
            expected => expected_word(expected).to_owned(),
        },
        agrees: tried.agrees() || refused,
        reasons,
    }
}
