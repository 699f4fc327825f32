//! What a running lab does for other processes.

use std::{
    collections::BTreeMap,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use palisade_lab::{
    Lab, Place,
    probe::{self, Expected, Outcome as ProbeOutcome, Plan, Probe, ProbeOptions, ProbeResult, Target},
};
use palisade_policy::{Direction, Endpoint, Family, reference};

use super::{
    control::{self, ProbeAnswer, Reply, Request},
    event::Event,
    run::{expected_word, passed},
    wording::verdict_lines,
};
use crate::{
    can::{EndpointSpec, QuestionFlow, Spec, question},
    reasons,
};

/// A client that says nothing for so long is left alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes in requests on a thread of its own.
pub(crate) fn listen(listener: UnixListener, events: Sender<Event>) -> Result<()> {
    let serve = move || {
        for stream in listener.incoming().flatten() {
            if stream.set_read_timeout(Some(PATIENCE)).is_err() {
                continue;
            }
            // What isn't a request needs no answer.
            if let Ok(Some(request)) = control::receive::<Request>(&stream)
                && events.send(Event::Request(request, stream)).is_err()
            {
                return;
            }
        }
    };
    thread::Builder::new().name("lab-door".into()).spawn(serve).context("can't start a thread")?;
    Ok(())
}

/// Answers what needs an answer only. A client that has gone away needs none.
pub(crate) fn answer(lab: &Lab, request: &Request, stream: &mut UnixStream) {
    let reply = match request {
        Request::Probe { source, destination, namespace } => {
            probe(lab, source, destination, namespace).map(Reply::ProbeAnswer)
        }
        Request::Locate { place, namespace } => locate(lab, place, namespace),
        Request::Down => Ok(Reply::Ending),
    };
    let reply = reply.unwrap_or_else(|error| Reply::Error(format!("{error:#}")));
    _ = control::send(stream, &reply);
}

fn locate(lab: &Lab, place: &str, namespace: &str) -> Result<Reply> {
    let found = if place == "outside" { Place::Outside } else { place_of(lab, place, namespace)? };
    let fd = lab.namespace(&found).with_context(|| format!("{found} has no network in this lab"))?;
    Ok(Reply::Located { pid: std::process::id(), fd: fd.as_fd().as_raw_fd(), place: found.to_string() })
}

fn place_of(lab: &Lab, text: &str, namespace: &str) -> Result<Place> {
    let spec: Spec = text.parse().with_context(|| format!("`{text}`"))?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("`{text}`: a place has no port");
    }
    let ends = question::endpoints(&lab.layout().cluster, &spec.who, namespace)?;
    let first = ends.first().with_context(|| format!("`{text}` has no network"))?;
    Ok(Place::of(first))
}

fn probe(lab: &Lab, source: &str, destination: &str, namespace: &str) -> Result<Vec<ProbeAnswer>> {
    let cluster = &lab.layout().cluster;
    let parse = |text: &str| text.parse::<Spec>().with_context(|| format!("`{text}`"));
    let (source, destination) = (parse(source)?, parse(destination)?);
    let outside = || lab.layout().outside.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if source.who == EndpointSpec::Internet || destination.who == EndpointSpec::Internet {
        bail!("the lab has no internet, but these addresses outside the cluster: {}", outside());
    }
    let question = question::resolve(cluster, &source, &destination, namespace)?;
    for asked in &question.flows {
        for end in [&asked.flow.source, &asked.flow.destination] {
            if let Endpoint::External(address) = end
                && !lab.layout().outside.contains(address)
            {
                bail!("the lab has no {address}; outside the cluster it has {}", outside());
            }
        }
    }
    let plan = Plan { probes: probes(lab, question.flows)?, not_probed: Vec::new() };
    let report = probe::run(lab, &plan, &ProbeOptions::default(), |_, _| {})?;
    Ok(report.probes.iter().map(|tried| probe_answer(lab, tried)).collect())
}

/// One probe for each flow; for a service, one for each of its addresses that leads to the flows.
fn probes(lab: &Lab, asked: Vec<QuestionFlow>) -> Result<Vec<Probe>> {
    let cluster = &lab.layout().cluster;
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
                out.push(Probe {
                    source,
                    target,
                    protocol: a.flow.protocol,
                    port: a.flow.port,
                    flows: vec![(a.flow, verdict)],
                });
            }
        }
    }
    for ((key, source, protocol, port), flows) in services {
        let family = Family::of(source.address());
        let addresses = cluster.services.get(&key).map(|s| &s.addresses);
        let address = addresses.into_iter().flatten().find(|a| Family::of(**a) == family);
        let address = *address.with_context(|| format!("service {key} has no {family} address to call"))?;
        out.push(Probe { source, target: Target::Service { key, address }, protocol, port, flows });
    }
    Ok(out)
}

fn probe_answer(lab: &Lab, tried: &ProbeResult) -> ProbeAnswer {
    let probe = &tried.probe;
    // A port on which nobody listens is refused by its owner: the packet has arrived.
    let refused = tried.outcome == ProbeOutcome::Refused && probe.expected() == Expected::Allowed;
    let mut reasons = Vec::new();
    for (flow, _) in &probe.flows {
        let decision = reference::decide(&lab.layout().cluster, flow);
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
        expected: expected_word(probe.expected()).to_owned(),
        agrees: tried.agrees() || refused,
        reasons,
    }
}
