//! Service translation: connections to services reach their backends.

use libtest_mimic::Failed;
use palisade_lab::{
    LayoutOptions, Place, Sandbox,
    agent::palisade,
    probe::{Expected, Outcome, ProbeResult, Target},
};
use palisade_policy::{Change, Labels, Pod, Protocol, TargetPort};

use crate::{
    clusters::*,
    harness::{Test, build, ensure, must_agree, update},
    topology::no_enforcement,
};

pub(crate) const TESTS: &[Test] = &[
    ("translation::routed", |s| translated(s, false)),
    ("translation::bridged", |s| translated(s, true)),
    ("translation::reached_from_outside_addresses", reached_from_outside_addresses),
    ("translation::is_updated_after_changes", updated),
];

fn cluster_with_services() -> palisade_policy::Cluster {
    let mut c = four();
    // Two backends on two nodes, with different numbers for the same port name.
    for (name, node, number) in [("w1", "n1", 8080), ("w2", "n2", 9090)] {
        let mut w = on(node, pod(name));
        w.labels = Labels::from_iter([("app", "web")]);
        w.ports = std::sync::Arc::new([palisade_policy::ContainerPort {
            name: Some("http".into()),
            protocol: Protocol::Tcp,
            port: number,
            host_port: None,
        }]);
        c.apply(Change::SetPod(w));
    }
    c.apply(Change::SetService(service("web", "web", &[(Protocol::Tcp, 80, named("http"))])));
    let udp = (Protocol::Udp, 5353, TargetPort::Number(53));
    let sctp = (Protocol::Sctp, 7000, TargetPort::Number(7777));
    c.apply(Change::SetService(service(
        "single",
        "a",
        &[(Protocol::Tcp, 8000, TargetPort::Number(80)), udp, sctp],
    )));
    c.apply(Change::SetService(service("empty", "nobody", &[(Protocol::Tcp, 80, TargetPort::Number(80))])));
    c
}

/// External IPs, addresses of load balancers and node ports lead to the same pods as cluster IPs, and policies decide about
/// the pods: the engine and the packets agree for each.
fn reached_from_outside_addresses(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = cluster_with_services();
    let mut web = service("web", "web", &[(Protocol::Tcp, 80, named("http"))]);
    web.ports[0].node_port = Some(30_080);
    web.access.external_ips = vec!["203.0.113.60".parse()?];
    web.access.load_balancer = vec!["203.0.113.50".parse()?];
    c.apply(Change::SetService(web));
    let mut local = service("single", "a", &[(Protocol::Tcp, 8000, TargetPort::Number(80))]);
    local.ports[0].node_port = Some(30_081);
    local.access.external_local = true;
    c.apply(Change::SetService(local));
    let from_c = rule(Some(vec![pods("c")]), None);
    c.apply(Change::SetPolicy(policy("web", "web", Some(vec![from_c]), None)));
    let lab = build(sandbox, &c, &LayoutOptions::default(), palisade())?;
    let report = must_agree(&lab)?;
    let ports = |name: &str, port: u16| -> Vec<_> {
        to_service(&report, name).into_iter().filter(|t| t.probe.port == port).collect()
    };
    for address in ["203.0.113.60", "203.0.113.50"] {
        let to = |t: &&&ProbeResult| t.probe.target.address().to_string() == address;
        let all = ports("web", 80);
        let reached: Vec<_> = all.iter().filter(to).collect();
        ensure(!reached.is_empty(), || format!("{address} is not probed"))?;
        ensure(reached.iter().any(|t| t.probe.expected() == Expected::Denied), || {
            format!("{address} is open")
        })?;
    }
    ensure(ports("web", 30_080).len() >= 8, || "the node port is not probed on every node".into())?;
    // The pod of this service is on n1.
    let node_port = ports("single", 30_081);
    let nowhere = |t: &&ProbeResult| t.probe.expected() == Expected::NoBackend;
    let (on_n2, on_n1): (Vec<&ProbeResult>, Vec<&ProbeResult>) =
        node_port.into_iter().partition(|t| lab.layout().nodes["n2"].contains(&t.probe.target.address()));
    ensure(!on_n2.is_empty() && on_n2.iter().all(nowhere), || "n2 leads to a pod of n1".into())?;
    ensure(!on_n1.is_empty() && !on_n1.iter().any(nowhere), || "n1 leads nowhere".into())
}

fn to_service<'a>(report: &'a palisade_lab::probe::Report, name: &str) -> Vec<&'a ProbeResult> {
    let of = key(name);
    let is = |t: &&ProbeResult| matches!(&t.probe.target, Target::Service { key, .. } if *key == of);
    report.probes.iter().filter(is).collect()
}

fn translated(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let lab = build(
        sandbox,
        &cluster_with_services(),
        &LayoutOptions { bridged, ..LayoutOptions::default() },
        no_enforcement(),
    )?;
    let report = must_agree(&lab)?;
    let web = to_service(&report, "web");
    for backend in ["w1", "w2"] {
        let by = Place::Pod(key(backend));
        let answered =
            |t: &&&ProbeResult| matches!(&t.outcome, Outcome::Connected { by: Some(b), .. } if *b == by);
        ensure(web.iter().filter(answered).count() > 3, || format!("{backend} never answered for web"))?;
    }
    // Connections of a pod to itself are masqueraded; all others keep their source address.
    let single = to_service(&report, "single");
    let mut hairpins = 0;
    for tried in single {
        let Outcome::Connected { seen_from: Some(client), .. } = tried.outcome else {
            return Err(format!("{tried:?}").into());
        };
        let source = &tried.probe.source;
        let itself = Place::of(source) == Place::Pod(key("a"));
        hairpins += usize::from(itself);
        ensure((client != source.address()) == itself, || format!("{source} was seen as {client}"))?;
        if itself {
            ensure(lab.layout().nodes["n1"].contains(&client), || {
                format!("{source} was masqueraded as {client}")
            })?;
        }
    }
    ensure(hairpins == 6, || {
        format!("{hairpins} hairpin connections instead of 6: TCP, UDP and SCTP in both families")
    })?;
    let empty = to_service(&report, "empty");
    ensure(!empty.is_empty() && empty.iter().all(|t| t.probe.expected() == Expected::NoBackend), || {
        "the service has a backend".into()
    })?;
    let not_refused = empty.iter().find(|t| t.outcome != Outcome::Refused);
    ensure(not_refused.is_none(), || format!("{not_refused:?}"))
}

fn updated(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = cluster_with_services();
    let mut lab = build(sandbox, &c, &LayoutOptions::default(), no_enforcement())?;
    must_agree(&lab)?;
    c.apply(Change::SetPod(Pod { labels: Labels::from_iter([("app", "nobody")]), ..on("n1", pod("b")) }));
    c.apply(Change::RemovePod(key("w1")));
    c.apply(Change::RemoveService(key("single")));
    update(&mut lab, &c)?;
    let report = must_agree(&lab)?;
    let by_b = |t: &&ProbeResult| matches!(&t.outcome, Outcome::Connected { by: Some(Place::Pod(k)), .. } if *k == key("b"));
    ensure(to_service(&report, "empty").iter().all(by_b), || "b is not the backend of the service".into())?;
    ensure(to_service(&report, "single").is_empty(), || "the deleted service is probed".into())
}
