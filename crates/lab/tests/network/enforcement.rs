//! The real agent on every node: what the kernel does is what the reference says, also after changes. And a lab whose nodes
//! enforce nothing is found out.

use libtest_mimic::Failed;
use palisade_lab::{Options, Sandbox, agent::palisade};
use palisade_policy::{Change, Cluster, Protocol, cluster::TargetPort};

use crate::{build, clusters::*, ensure, must_agree, probe_all, topology::nothing};

pub(crate) const TESTS: &[(&str, fn(&Sandbox) -> Result<(), Failed>)] = &[
    ("enforcement::routed", |s| enforced(s, false)),
    ("enforcement::bridged", |s| enforced(s, true)),
    ("enforcement::a_lab_without_enforcement_is_found_out", found_out),
];

fn guarded() -> Cluster {
    let mut c = four();
    c.apply(Change::SetService(service("svc", "b", &[(Protocol::Tcp, 8000, TargetPort::Number(80))])));
    let web_from_a = rule(Some(vec![pods("a")]), Some(vec![ports(Protocol::Tcp, 80, 80)]));
    let from_outside = rule(
        Some(vec![
            block("203.0.113.0/24", &["203.0.113.128/25"]),
            block("2001:db8:1::/48", &["2001:db8:1:2::/64"]),
        ]),
        Some(vec![ports(Protocol::Udp, 50, 60), ports(Protocol::Sctp, 7777, 7777)]),
    );
    c.apply(Change::SetPolicy(policy("b", "b", Some(vec![web_from_a, from_outside]), None)));
    let to_c = rule(Some(vec![pods("c")]), None);
    c.apply(Change::SetPolicy(policy("d", "d", None, Some(vec![to_c]))));
    c
}

fn enforced(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let mut c = guarded();
    let mut lab = build(sandbox, &c, &Options { bridged, ..Options::default() }, palisade())?;
    let report = must_agree(&lab)?;
    ensure(report.counts.dropped > 50, || format!("only {} dropped", report.counts.dropped))?;
    c.apply(Change::RemovePolicy(palisade_policy::PolicyKey::network_policy("x", "b")));
    c.apply(Change::SetPolicy(policy("c", "c", Some(vec![]), Some(vec![]))));
    c.apply(Change::SetPod(on("n1", pod("d"))));
    lab.update(&c).map_err(|e| crate::chain(&e))?;
    must_agree(&lab)?;
    Ok(())
}

fn found_out(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = build(sandbox, &guarded(), &Options::default(), nothing())?;
    let report = probe_all(&lab)?;
    let denied =
        report.probes.iter().filter(|t| t.probe.expected() == palisade_lab::probe::Expected::Denied).count();
    ensure(denied > 50 && report.counts.mismatches == denied, || {
        format!("{} mismatches of {denied} denied connections", report.counts.mismatches)
    })?;
    let json = serde_json::to_string(&report).map_err(|e| e.to_string())?;
    ensure(json.contains("isolated by NetworkPolicy x/b, and no rule matches"), || json[..500].to_owned())
}
