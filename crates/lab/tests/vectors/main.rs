//! The data-plane vectors of the semantics document as packets. Their cluster is built once, the policies of each vector are
//! applied in turn, and the expected verdict of each connection is compared with what the kernel does.

#![expect(clippy::print_stdout, reason = "the test prints what it tested")]
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
    Lab, Layout, LayoutOptions, Place, Sandbox, agent,
    dns::{self, LookupOutcome, LookupPatience, NameServers, OUTSIDE, Records, ZoneName, Zones},
    probe::{self, Probe, ProbeOptions, Target, Timeouts},
    services::{backends, target_on},
    with_causes,
};
use palisade_policy::{Cluster, Endpoint, Family, Flow, LearnedName, ObjectKey, Pod, Service, ServicePort};

/// The number of vectors and probes in the document (SEMANTICS F).
const VECTORS: usize = 92;
const PROBES: usize = 230;

/// How long pods wait for answers of DNS.
const PATIENCE: LookupPatience = LookupPatience { tries: 3, each: Duration::from_secs(5) };

/// These vectors accept addresses that are learned from DNS (SEMANTICS C34).
const WITH_LEARNED_ADDRESSES: [&str; 2] = ["F-90", "F-91"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trials = vec![Trial::test("vectors_hold_in_packets", move || match sandbox {
        Ok(sandbox) => run(sandbox),
        Err(e) => Err(format!("no sandbox: {}", with_causes(e)).into()),
    })];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(sandbox: &Sandbox) -> Result<(), Failed> {
    let began = Instant::now();
    let vectors = document::vectors();
    let first = vectors[0].cluster();
    let options = lab_options(&first, &vectors);
    let layout = Layout::of(&first, &options).map_err(|e| with_causes(&e))?;
    let servers = NameServers::of(&layout, &Zones { servers: OUTSIDE.into(), ..Zones::default() });
    assert_eq!(servers.ask.len(), 2, "{servers:?}");
    let agents = agent::palisade_with_names(dns::settings(&servers));
    let mut lab = Lab::build(sandbox, layout, agents).map_err(|e| with_causes(&e))?;
    println!("built in {:?}", began.elapsed());

    let (mut tested, mut wrong) = (0, Vec::new());
    for vector in &vectors {
        assert_eq!(
            WITH_LEARNED_ADDRESSES.contains(&&*vector.id),
            !vector.learned.is_empty(),
            "{}",
            vector.id
        );
        lab.update(&vector.cluster()).map_err(|e| format!("{}: {}", vector.id, with_causes(&e)))?;
        learn(&mut lab, vector, &servers)?;
        let probes = vector.probes.iter().map(|expectation| probe_of(lab.layout(), expectation));
        let plan = probe::Plan { probes: probes.collect(), not_probed: Vec::new() };
        let report = probe::run(&lab, &plan, &short_timeouts(), |_, _| {}).map_err(|e| with_causes(&e))?;
        tested += report.counts.probed;
        wrong.extend(report.mismatches.iter().map(|m| format!("{}: {}", vector.id, m.summary())));
    }

    println!("{} vectors, {tested} of their probes tested, in {:?}", vectors.len(), began.elapsed());
    if !wrong.is_empty() {
        return Err(format!("{} don't hold:\n  {}", wrong.len(), wrong.join("\n  ")).into());
    }
    assert_eq!((vectors.len(), tested), (VECTORS, PROBES));
    Ok(())
}

/// Lets the pods of a vector ask for its names, so that their agents learn the addresses.
fn learn(lab: &mut Lab, vector: &Vector, servers: &NameServers) -> Result<(), Failed> {
    if vector.learned.is_empty() {
        return Ok(());
    }
    let records = |learned: &LearnedName| Records::Addresses {
        addresses: learned.addresses.iter().collect(),
        rotate: false,
    };
    let names = vector.learned.iter().map(|(name, learned)| (name.clone(), ZoneName::new(records(learned))));
    let zones = Zones { names: names.collect(), ..Zones::default() };
    lab.serve_names(zones, servers.clone()).map_err(|e| with_causes(&e))?;
    let server = *servers.ask.iter().find(|server| server.is_ipv4()).unwrap();
    for source in vector.probes.iter().map(|probe| &*probe.source).collect::<BTreeSet<_>>() {
        let place = Place::of(&endpoint(&lab.layout().cluster, source, Family::V4));
        for (name, learned) in &vector.learned {
            let ask = || dns::lookup(server, name, Family::V4, PATIENCE);
            let outcome = lab.run_in(&place, ask).map_err(|e| with_causes(&e))?;
            let expected = LookupOutcome::Addresses(learned.addresses.iter().collect());
            assert_eq!(outcome, expected, "{}: {source} asks for {name}", vector.id);
        }
    }
    Ok(())
}

/// Returns options with the ports and outside addresses of all vectors, so that one lab serves all of them.
fn lab_options(cluster: &Cluster, vectors: &[Vector]) -> LayoutOptions {
    let probes = || vectors.iter().flat_map(|v| &v.probes);
    let outside = probes().flat_map(|p| [&p.source, &p.destination]).filter_map(|end| document::address(end));
    let is_external = |a: &IpAddr| matches!(cluster.endpoint(*a), Endpoint::External(_));
    LayoutOptions {
        outside: outside.filter(is_external).chain(OUTSIDE).collect(),
        ports: probes().map(|p| (p.protocol, p.port)).collect::<BTreeSet<_>>(),
        ..LayoutOptions::default()
    }
}

/// Returns shorter timeouts than the default, because many probes are dropped. An answer that comes later than this to a
/// connection that should have been dropped is not noticed here; the other tests have longer timeouts.
fn short_timeouts() -> ProbeOptions {
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
    let refuses = probe::refuses(&layout.cluster, &flows);
    Probe { source, target, protocol: *protocol, port: *port, flows, refuses }
}

fn only_backend<'a>(cluster: &'a Cluster, service: &'a Service, port: &ServicePort) -> (&'a Pod, u16) {
    let mut found = backends(cluster, service)
        .filter_map(|pod| Some((pod, target_on(pod, port.protocol, &port.target)?)));
    let only = found.next().unwrap();
    assert!(found.next().is_none(), "{} has several backends", service.key);
    only
}

/// Returns the endpoint with this name in the document: `x/a`, `node:n1`, `E4` or an address.
fn endpoint(cluster: &Cluster, name: &str, family: Family) -> Endpoint {
    if let Some(address) = document::address(name) {
        return cluster.endpoint(address);
    }
    let addresses = match (name.strip_prefix("node:"), name.split_once('/')) {
        (Some(node), _) => &cluster.nodes[node].addresses,
        (None, Some((namespace, name))) => &cluster.pods[&ObjectKey::new(namespace, name)].addresses,
        (None, None) => panic!("unknown endpoint {name}"),
    };
    cluster.endpoint(addresses.iter().copied().find(|a| Family::of(*a) == family).unwrap())
}
