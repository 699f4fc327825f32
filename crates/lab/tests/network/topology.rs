//! Without policies everything reaches everything, in both modes and both families, and every namespace is where it should
//! be.

use std::sync::Arc;

use libtest_mimic::Failed;
use palisade_lab::{
    Families, LayoutOptions, Place, Sandbox,
    enforce::{Enforce, MakeEnforcer, NoEnforcement},
    probe::{Expected, Outcome, ProbeOptions},
};
use palisade_policy::{Change, Pod};

use crate::{build, clusters::*, ensure, must_agree};

pub(crate) const TESTS: &[crate::Test] = &[
    ("topology::routed_dual_stack", |s| everything(s, false, Families::Dual)),
    ("topology::bridged_dual_stack", |s| everything(s, true, Families::Dual)),
    ("topology::routed_ipv4", |s| everything(s, false, Families::V4)),
    ("topology::bridged_ipv6", |s| everything(s, true, Families::V6)),
    ("topology::routed_ipv6", |s| everything(s, false, Families::V6)),
    ("topology::host_network_pods_listen_on_their_node", host_network),
    ("topology::pods_come_move_and_go", |s| come_move_go(s, false)),
    ("topology::bridged_pods_come_move_and_go", |s| come_move_go(s, true)),
    ("topology::a_hundred_pods_come_up_quickly", hundred),
];

pub(crate) fn nothing() -> MakeEnforcer {
    Arc::new(|_| Box::new(NoEnforcement) as Box<dyn Enforce>)
}

fn everything(sandbox: &Sandbox, bridged: bool, families: Families) -> Result<(), Failed> {
    let lab =
        build(sandbox, &four(), &LayoutOptions { bridged, families, ..LayoutOptions::default() }, nothing())?;
    let report = must_agree(&lab)?;
    ensure(report.probes.iter().all(|t| t.probe.expected() == Expected::Allowed), || {
        "all should be allowed".into()
    })?;
    // Nobody's address is translated on the way.
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
    let lab = build(sandbox, &c, &LayoutOptions::default(), nothing())?;
    let report = must_agree(&lab)?;
    let to_node_80 = report.probes.iter().filter(|t| {
        t.probe.port == 80
            && matches!(&t.outcome, Outcome::Connected { by: Some(Place::Node(n)), .. } if &**n == "n1")
    });
    ensure(to_node_80.count() > 0, || "port 80 of node n1 should be open".into())?;
    let address = lab.run_in(&Place::Pod(key("host")), || {
        std::net::TcpListener::bind((lab.layout().nodes["n1"][0], 8081))
    });
    address.map_err(|e| e.to_string())??;
    Ok(())
}

fn come_move_go(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let options = LayoutOptions { bridged, ..LayoutOptions::default() };
    let mut lab = build(sandbox, &four(), &options, nothing())?;
    must_agree(&lab)?;
    let mut c = four();
    c.apply(Change::SetPod(on("n1", pod("e"))));
    c.apply(Change::SetPod(on("n2", pod("a"))));
    c.apply(Change::RemovePod(key("d")));
    let updated = lab.update(&c).map_err(|e| crate::chain(&e))?;
    ensure(updated.added == [key("a"), key("e")], || format!("added {:?}", updated.added))?;
    ensure(updated.removed == [key("a"), key("d")], || format!("removed {:?}", updated.removed))?;
    let report = must_agree(&lab)?;
    ensure(!format!("{:?}", report.probes).contains("x/d"), || "d is gone".into())?;
    // A third node appears with a pod, and a node vanishes with its pods.
    c.apply(Change::SetPod(on("n3", pod("f"))));
    for name in ["b", "e"] {
        c.apply(Change::RemovePod(key(name)));
    }
    lab.update(&c).map_err(|e| crate::chain(&e))?;
    let nodes: Vec<String> = lab.nodes().map(|(n, _)| n.to_string()).collect();
    ensure(nodes == ["n2", "n3"], || format!("{nodes:?}"))?;
    must_agree(&lab)?;
    Ok(())
}

fn hundred(sandbox: &Sandbox) -> Result<(), Failed> {
    let c = cluster((0..100).map(|i| pod(&format!("p{i}"))));
    let began = std::time::Instant::now();
    let lab = build(sandbox, &c, &LayoutOptions::default(), nothing())?;
    let took = began.elapsed();
    println!("100 pods came up in {took:?}");
    ensure(took.as_secs() < 10, || format!("100 pods took {took:?}"))?;
    let options = ProbeOptions { max_probes: Some(2000), ..Default::default() };
    let plan = palisade_lab::probe::Plan::of(lab.layout(), &options);
    let report = palisade_lab::probe::run(&lab, &plan, &options, |_, _| {}).map_err(|e| crate::chain(&e))?;
    println!("2000 probes took {:?}, {} tries over", report.durations.total, report.counts.retried);
    ensure(report.agrees(), || format!("{:?}", report.mismatches[0].in_words()))?;
    ensure(report.counts.probed == 2000, || "2000 were asked for".into())?;
    ensure(report.not_probed.iter().any(|n| n.why.contains("sample")), || "the sample must be said".into())?;
    Ok(())
}
