//! `--lab`: the connections of assertions, tried with packets.
//!
//! The manifests are built from network namespaces, with the pods of counterexamples that don't exist yet. Each connection
//! between two ends that an assertion is about is opened, on the ports that it is about.

mod outside;

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use palisade_analysis::{
    alike::Relation,
    assertion::{AssertedEnds, Assertion, CounterEnd, Expectation},
};
use palisade_lab::{
    Lab, Layout, LayoutOptions, Sandbox,
    probe::{self, Plan, Probe, ProbeOptions, ProbeResult, Target},
};
use palisade_policy::{
    Cluster, DomainName, Endpoint, Flow, Labels, LearnedName, Namespace, ObjectKey, Pod, Protocol,
};

use super::{
    check::{self, Status, TestResult},
    file::Written,
    hosts, resolve,
};
use crate::{
    inputs::{self, InputArguments},
    lab::{load_options, passed, progress_bar},
    output, reasons,
};

/// The most connections of one assertion that are named.
const SHOWN: usize = 3;

/// The most ports of a range that are opened: its ends.
const MOST_RANGES: usize = 8;

/// Checks assertions with the engine, and then with packets.
///
/// # Errors
/// When the manifests can't be read, or the lab can't be built.
pub(super) fn results(
    sources: &InputArguments,
    written: Vec<Written>,
    namespace: Option<&str>,
) -> Result<(Vec<TestResult>, bool)> {
    if sources.files.is_empty() && sources.render.is_empty() {
        bail!("--lab builds manifests: give them with -f, -k or --helm");
    }
    let mut files = inputs::inputs(&sources.files)?;
    files.extend(sources.render.inputs(namespace, false)?);
    let names = [sources.files.clone(), sources.render.names()].concat().join(", ");
    let home = namespace.unwrap_or("default").to_owned();
    let options = palisade_manifest::LoadOptions { default_namespace: home.clone(), ..load_options(true) };
    let loaded = inputs::load_inputs(&files, &names, &sources.reading, &options, false)?;
    let layout = Layout::of(&loaded.cluster, &LayoutOptions::default())?;
    let mut results = check::all(&layout.cluster, written, &home);
    let mut cluster = loaded.cluster.clone();
    cluster.learned = outside::learned(&layout.cluster, &results, &home, &layout.outside);
    let layout = with_future(cluster, &results, &layout.outside)?;
    let asked: Vec<Vec<Asked>> =
        results.iter().map(|result| asked(&layout.cluster, &result.written, &home)).collect();
    let probe_options = ProbeOptions::default();
    let mut plan = Plan::of(&layout, &probe_options);
    let cluster = layout.cluster.clone();
    let is_asked = |probe: &Probe| {
        flow(probe).is_some_and(|flow| asked.iter().flatten().any(|a| a.allows(&cluster, flow).is_some()))
    };
    plan.probes.retain(is_asked);
    let sandbox = Sandbox::enter()?;
    output::note(&format!("building {} nodes and {} pods …\n", layout.nodes.len(), layout.pods.len()));
    let lab = Lab::build(&sandbox, layout, palisade_lab::agent::palisade())?;
    let bar = progress_bar(plan.probes.len());
    let report = probe::run(&lab, &plan, &probe_options, |done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    let report = report.context("the probes could not be run")?;
    for (result, asked) in results.iter_mut().zip(&asked) {
        judge(result, asked, &cluster, &report.probes);
    }
    output::note(&format!("{} tried\n", super::counted(report.probes.len(), "connection")));
    Ok((results, loaded.has_errors()))
}

/// An assertion about the objects of the lab.
struct Asked {
    /// The host that is its only destination.
    host: Option<DomainName>,
    assertion: Assertion,
}

/// Returns what a written assertion says about the lab. What can't be resolved was reported before.
fn asked(cluster: &Cluster, written: &Written, namespace: &str) -> Vec<Asked> {
    let parts = hosts::parts(cluster, written, namespace);
    let of_part = |part: &hosts::Part<'_>| {
        let assertions = resolve::assertions(cluster, &part.written, namespace).unwrap_or_default();
        let host = part.name().cloned();
        assertions.into_iter().map(move |assertion| Asked { host: host.clone(), assertion })
    };
    parts.iter().flat_map(of_part).collect()
}

impl Asked {
    /// Returns whether it says that a flow is allowed; `None` if it says nothing about it.
    fn allows(&self, cluster: &Cluster, flow: &Flow) -> Option<bool> {
        let address = flow.destination.address();
        let of_host = |learned: &LearnedName| learned.addresses.contains(&address);
        let is_meant = match &self.host {
            Some(name) => cluster.learned.get(name).is_some_and(of_host),
            // Rules by name treat the addresses of hosts differently from all others.
            None => !cluster.learned.values().any(of_host),
        };
        is_meant.then(|| allowed_by(&self.assertion, cluster, flow))?
    }
}

/// Returns the layout with the pods of counterexamples that don't exist yet, the outside addresses that assertions are about
/// and of which `others` has none, and the ports that are asked about.
fn with_future(mut cluster: Cluster, results: &[TestResult], others: &[IpAddr]) -> Result<Layout> {
    let of_hosts = cluster.learned.values().flat_map(|learned| learned.addresses.iter());
    let outside = outside::unseen(results, others).into_iter().chain(of_hosts).collect();
    let examples = results.iter().flat_map(|result| &result.counterexamples);
    let ends = examples.flat_map(|example| [&example.source, &example.destination]);
    let future: Vec<&CounterEnd> = ends.filter(|end| end.future.is_some()).collect();
    let mut made: BTreeSet<(String, Labels)> = BTreeSet::new();
    for future in future.iter().filter_map(|end| end.future.as_ref()) {
        let home = future.pod.key.namespace.replace('?', "new-namespace-");
        if !made.insert((home.clone(), future.pod.labels.clone())) {
            continue;
        }
        if let Some(namespace) = &future.namespace {
            let labels = namespace.labels.project(|key| key != palisade_policy::NAMESPACE_NAME_LABEL);
            cluster.namespaces.insert(home.as_str().into(), Namespace::new(home.as_str(), &labels));
        }
        let key = ObjectKey::new(home.as_str(), format!("new-pod-{}", made.len()));
        cluster.pods.insert(Pod { key, addresses: Vec::new(), ..future.pod.clone() });
    }
    let ports = results.iter().flat_map(|result| &result.assertions).flat_map(|assertion| {
        let numbers = assertion.asked.numbers.clone();
        Protocol::WITH_PORTS.into_iter().flat_map(move |protocol| {
            let ranges = numbers.ports(protocol);
            let ends: Vec<u16> =
                ranges.ranges().iter().take(MOST_RANGES).flat_map(|(first, last)| [*first, *last]).collect();
            let single = ranges.count() < u32::from(u16::MAX);
            ends.into_iter().filter(move |port| single && *port > 0).map(move |port| (protocol, port))
        })
    });
    let options = LayoutOptions { ports: ports.collect(), outside, ..LayoutOptions::default() };
    Ok(Layout::of(&cluster, &options)?)
}

/// Returns the flow of a probe to an end's own address.
fn flow(probe: &Probe) -> Option<&Flow> {
    match probe.target {
        Target::Direct(_) => probe.flows.first().map(|(flow, _)| flow),
        Target::Service { .. } => None,
    }
}

/// Returns whether an assertion says that a flow is allowed; `None` if it says nothing about it.
fn allowed_by(assertion: &Assertion, cluster: &Cluster, flow: &Flow) -> Option<bool> {
    let is_in = |ends: &AssertedEnds, end: &Endpoint| {
        let outside = |address| ends.ranges.iter().any(|range| range.contains(address));
        ends.endpoints.contains(end) || matches!(end, Endpoint::External(a) if outside(*a))
    };
    let pod = match &flow.destination {
        Endpoint::Pod { key, .. } => cluster.pods.get(key),
        _ => None,
    };
    let is_from = is_in(&assertion.from, &flow.source);
    let meant = if assertion.expect == Expectation::Only { !is_from } else { is_from };
    // What policies can't deny is not asserted.
    let related = Relation::of(cluster, &flow.source, &flow.destination) != Relation::Other;
    let asked = assertion.asked.to(pod).contains(flow.protocol, flow.port);
    (meant && !related && asked && is_in(&assertion.to, &flow.destination))
        .then_some(assertion.expect == Expectation::Allow)
}

/// Compares the connections that an assertion is about with what it says.
fn judge(result: &mut TestResult, asked: &[Asked], cluster: &Cluster, probes: &[ProbeResult]) {
    if result.status == Status::Error {
        return;
    }
    let (mut tried, mut broken) = (0, Vec::new());
    for one in probes {
        let Some(flow) = flow(&one.probe) else { continue };
        let said = asked.iter().find_map(|asked| asked.allows(cluster, flow));
        let Some(allowed) = said else { continue };
        tried += 1;
        if passed(&one.outcome) != allowed {
            broken.push(format!(
                "packets: {} → {}  {}: {}",
                flow.source,
                flow.destination,
                reasons::port_text(flow.protocol, flow.port),
                if allowed { "no answer" } else { "connected" }
            ));
        }
    }
    let packets =
        format!("packets: {} tried, {} break it", super::counted(tried, "connection"), broken.len());
    result.messages.push(packets);
    if tried == 0 {
        result.messages.push("packets: no connection of the lab is one of these".to_owned());
    }
    let agrees = (result.status == Status::Fails) != broken.is_empty();
    result.messages.extend(broken.into_iter().take(SHOWN));
    if tried > 0 && !agrees && result.status != Status::Undecided {
        result
            .messages
            .push(format!("packets and engine disagree: by the engine it {}", result.status.word()));
        result.status = Status::Fails;
    }
}
