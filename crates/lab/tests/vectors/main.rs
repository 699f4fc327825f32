//! The data-plane vectors of the semantics document as packets: their cluster is built once, each vector's policies are put
//! in force in turn, and what the document expects of each connection is held against what the kernel does with it.

#![expect(clippy::print_stdout, reason = "the test says what it showed, and what packets can't show")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod document;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use document::{Expectation, Vector};
use libtest_mimic::{Arguments, Failed, Trial};
use palisade_lab::{
    Lab, Layout, LayoutOptions, Sandbox, agent,
    probe::{self, Probe, ProbeOptions, Target, Timeouts},
    services::{backends, target_on},
};
use palisade_policy::{
    Cluster, Endpoint, Family, Flow, ObjectKey, Pod, Protocol, Service, ServicePort, Verdict,
};

/// What the document holds (SEMANTICS F).
const VECTORS: usize = 92;
const PROBES: usize = 230;

/// What these accept rests on addresses that are learned from DNS answers (SEMANTICS C34), which this version doesn't do.
/// What they drop is shown.
const NEED_LEARNED_ADDRESSES: [&str; 2] = ["F-90", "F-91"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trials = vec![Trial::test("vectors_hold_in_packets", move || match sandbox {
        Ok(sandbox) => hold(sandbox),
        Err(e) => Err(format!("no sandbox: {}", chain(e)).into()),
    })];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// An error with all its causes.
fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        out = format!("{out}: {e}");
        next = e.source();
    }
    out
}

fn hold(sandbox: &Sandbox) -> Result<(), Failed> {
    let began = Instant::now();
    let vectors = document::vectors();
    let first = vectors[0].cluster();
    let options = lab_options(&first, &vectors);
    let layout = Layout::of(&first, &options).map_err(|e| chain(&e))?;
    let mut lab = Lab::build(sandbox, layout, agent::palisade()).map_err(|e| chain(&e))?;
    println!("built in {:?}", began.elapsed());

    let (mut shown, mut not_shown, mut wrong) = (0, Vec::new(), Vec::new());
    for vector in &vectors {
        lab.update(&vector.cluster()).map_err(|e| format!("{}: {}", vector.id, chain(&e)))?;
        let mut probes = Vec::new();
        for expectation in &vector.probes {
            match reason_not_to_show(vector, expectation) {
                Some(why) => not_shown.push(format!("{} {expectation}: {why}", vector.id)),
                None => probes.push(probe_of(lab.layout(), expectation)),
            }
        }
        let plan = probe::Plan { probes, not_probed: Vec::new() };
        let report = probe::run(&lab, &plan, &patience(), |_, _| {}).map_err(|e| chain(&e))?;
        shown += report.counts.probed;
        wrong.extend(report.mismatches.iter().map(|m| format!("{}: {}", vector.id, m.in_words())));
    }

    println!("{} vectors, {shown} of their probes in packets, in {:?}", vectors.len(), began.elapsed());
    println!("{} can't be shown by packets:\n  {}", not_shown.len(), not_shown.join("\n  "));
    if !wrong.is_empty() {
        return Err(format!("{} don't hold:\n  {}", wrong.len(), wrong.join("\n  ")).into());
    }
    assert_eq!((vectors.len(), shown + not_shown.len()), (VECTORS, PROBES));
    assert_eq!(not_shown.len(), 4, "all others can be shown");
    Ok(())
}

/// Why packets can't show what the document expects; `None` if they can.
fn reason_not_to_show(vector: &Vector, expectation: &Expectation) -> Option<&'static str> {
    let waits = NEED_LEARNED_ADDRESSES.contains(&&*vector.id);
    assert_eq!(waits, vector.learns_addresses, "{}", vector.id);
    (waits && expectation.verdict.is_allow()).then_some("the address would have to be learned from DNS")
}

/// The ports and the addresses outside that some vector asks about: they stay the same, so that one lab does for all.
fn lab_options(cluster: &Cluster, vectors: &[Vector]) -> LayoutOptions {
    let probes = || vectors.iter().flat_map(|v| &v.probes);
    let outside = probes().flat_map(|p| [&p.source, &p.destination]).filter_map(|end| document::address(end));
    let is_external = |a: &IpAddr| matches!(cluster.endpoint(*a), Endpoint::External(_));
    LayoutOptions {
        outside: outside.filter(is_external).collect(),
        ports: probes().map(|p| (p.protocol, p.port)).collect::<BTreeSet<_>>(),
        ..LayoutOptions::default()
    }
}

/// Shorter than usual, since nearly all that is dropped is dropped at once: an answer that comes later than this to a
/// connection that should have been dropped would be missed here, and is met by the other tests.
fn patience() -> ProbeOptions {
    let first = Timeouts { whole: Duration::from_millis(200), in_flight: 512 };
    ProbeOptions { first, ..ProbeOptions::default() }
}

fn probe_of(layout: &Layout, expectation: &Expectation) -> Probe {
    let Expectation { source, destination, protocol, port, family, verdict } = expectation;
    let source = endpoint(&layout.cluster, source, *family);
    let flow = |destination: &Endpoint, port, through_service| {
        let source = source.clone();
        let flow =
            Flow { source, destination: destination.clone(), protocol: *protocol, port, through_service };
        (flow, *verdict)
    };
    let (target, flows) = match destination.strip_prefix("svc:") {
        Some(name) => {
            let key = ObjectKey::new("x", name);
            let service = &layout.cluster.services[&key];
            let address = service.addresses.iter().copied().find(|a| Family::of(*a) == *family).unwrap();
            let entry = service.ports.iter().find(|p| (p.protocol, p.port) == (*protocol, *port)).unwrap();
            let (pod, on_pod) = only_backend(&layout.cluster, service, entry);
            let end = layout.cluster.endpoint(pod.address(*family).unwrap());
            (Target::Service { key, address }, vec![flow(&end, on_pod, true)])
        }
        None => {
            let end = endpoint(&layout.cluster, destination, *family);
            (Target::Direct(end.clone()), vec![flow(&end, *port, false)])
        }
    };
    Probe { source, target, protocol: *protocol, port: *port, flows }
}

fn only_backend<'a>(cluster: &'a Cluster, service: &'a Service, port: &ServicePort) -> (&'a Pod, u16) {
    let mut found = backends(cluster, service)
        .filter_map(|pod| Some((pod, target_on(pod, port.protocol, &port.target)?)));
    let only = found.next().unwrap();
    assert!(found.next().is_none(), "{} has several backends", service.key);
    only
}

/// The end that the document calls so: `x/a`, `node:n1`, `E4` or an address.
fn endpoint(cluster: &Cluster, name: &str, family: Family) -> Endpoint {
    if let Some(address) = document::address(name) {
        return cluster.endpoint(address);
    }
    let addresses = match (name.strip_prefix("node:"), name.split_once('/')) {
        (Some(node), _) => &cluster.nodes[node].addresses,
        (None, Some((namespace, name))) => &cluster.pods[&ObjectKey::new(namespace, name)].addresses,
        (None, None) => panic!("who is {name}?"),
    };
    cluster.endpoint(addresses.iter().copied().find(|a| Family::of(*a) == family).unwrap())
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, destination, protocol, port, verdict, .. } = self;
        let word = if *verdict == Verdict::Allow { "ACCEPT" } else { "DROP" };
        write!(f, "{source} → {destination} {} {port} {word}", Protocol::to_string(protocol))
    }
}
