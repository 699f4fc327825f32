//! Connectivity without policies: every endpoint reaches every other, in both modes and both families.

use std::sync::Arc;

use libtest_mimic::Failed;
use palisade_lab::{
    Families, LayoutOptions, Place, Sandbox,
    enforce::{Enforce, MakeEnforcer, NoEnforcement},
    probe::{self, Expected, Outcome, ProbeOptions},
    with_causes,
};
use palisade_policy::{Change, Pod};

use crate::{
    clusters::*,
    harness::{Test, build, ensure, must_agree, update},
};

pub(crate) const TESTS: &[Test] = &[
    ("topology::routed_dual_stack", |s| everything(s, false, Families::Dual)),
    ("topology::bridged_dual_stack", |s| everything(s, true, Families::Dual)),
    ("topology::routed_ipv4", |s| everything(s, false, Families::V4)),
    ("topology::bridged_ipv6", |s| everything(s, true, Families::V6)),
    ("topology::routed_ipv6", |s| everything(s, false, Families::V6)),
    ("topology::host_network_pods_listen_on_their_node", host_network),
    ("topology::pods_are_added_moved_and_removed", |s| changed(s, false)),
    ("topology::bridged_pods_are_added_moved_and_removed", |s| changed(s, true)),
    ("topology::a_hundred_pods_are_built_in_ten_seconds", hundred),
];

pub(crate) fn no_enforcement() -> MakeEnforcer {
    Arc::new(|_| Box::new(NoEnforcement) as Box<dyn Enforce>)
}

fn everything(sandbox: &Sandbox, bridged: bool, families: Families) -> Result<(), Failed> {
    let lab = build(
        sandbox,
        &four(),
        &LayoutOptions { bridged, families, ..LayoutOptions::default() },
        no_enforcement(),
    )?;
    let report = must_agree(&lab)?;
    ensure(report.probes.iter().all(|t| t.probe.expected() == Expected::Allowed), || {
        "not all connections are allowed".into()
    })?;
    // No address is translated on the way.
    for tried in &report.probes {
        if let Outcome::Connected { seen_from: Some(client), .. } = tried.outcome {
            let source = tried.probe.source.address();
            ensure(client == source, || format!("{source} was seen as {client}"))?;
        }
    }
    Ok(())
}

fn host_network(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = four();
    c.apply(Change::SetPod(Pod { host_network: true, ..on("n1", pod("host")) }));
    let lab = build(sandbox, &c, &LayoutOptions::default(), no_enforcement())?;
    let report = must_agree(&lab)?;
    let to_node_80 = report.probes.iter().filter(|t| {
        t.probe.port == 80
            && matches!(&t.outcome, Outcome::Connected { by: Some(Place::Node(n)), .. } if &**n == "n1")
    });
    ensure(to_node_80.count() > 0, || "port 80 of node n1 is closed".into())?;
    let address = lab.run_in(&Place::Pod(key("host")), || {
        std::net::TcpListener::bind((lab.layout().nodes["n1"][0], 8081))
    });
    address.map_err(|e| e.to_string())??;
    Ok(())
}

fn changed(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let options = LayoutOptions { bridged, ..LayoutOptions::default() };
    let mut lab = build(sandbox, &four(), &options, no_enforcement())?;
    must_agree(&lab)?;
    let mut c = four();
    c.apply(Change::SetPod(on("n1", pod("e"))));
    c.apply(Change::SetPod(on("n2", pod("a"))));
    c.apply(Change::RemovePod(key("d")));
    let updated = update(&mut lab, &c)?;
    ensure(updated.added == [key("a"), key("e")], || format!("added {:?}", updated.added))?;
    ensure(updated.removed == [key("a"), key("d")], || format!("removed {:?}", updated.removed))?;
    let report = must_agree(&lab)?;
    ensure(!format!("{:?}", report.probes).contains("x/d"), || "the report has the deleted pod x/d".into())?;
    // A third node is added with a pod, and a node is removed with its pods.
    c.apply(Change::SetPod(on("n3", pod("f"))));
    for name in ["b", "e"] {
        c.apply(Change::RemovePod(key(name)));
    }
    update(&mut lab, &c)?;
    let nodes: Vec<String> = lab.nodes().map(|(n, _)| n.to_string()).collect();
    ensure(nodes == ["n2", "n3"], || format!("{nodes:?}"))?;
    must_agree(&lab)?;
    Ok(())
}

fn hundred(sandbox: &Sandbox) -> Result<(), Failed> {
    let c = cluster((0..100).map(|i| pod(&format!("p{i}"))));
    let began = std::time::Instant::now();
    let lab = build(sandbox, &c, &LayoutOptions::default(), no_enforcement())?;
    let took = began.elapsed();
    println!("100 pods were built in {took:?}");
    ensure(took.as_secs() < 10, || format!("100 pods took {took:?}"))?;
    let options = ProbeOptions { max_probes: Some(2000), ..Default::default() };
    let plan = probe::Plan::of(lab.layout(), &options);
    let report = probe::run(&lab, &plan, &options, |_, _| {}).map_err(|e| with_causes(&e))?;
    println!("2000 probes took {:?}, {} repeated", report.durations.total, report.counts.retried);
    ensure(report.agrees(), || format!("{:?}", report.mismatches[0].summary()))?;
    ensure(report.counts.probed == 2000, || "not 2000 probes".into())?;
    ensure(report.not_probed.iter().any(|n| n.why.contains("sample")), || {
        "the report does not mention the sample".into()
    })?;
    Ok(())
}
