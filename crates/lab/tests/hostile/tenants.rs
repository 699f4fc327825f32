//! A tenant's policy that is made to cost: everybody else's changes are enforced all the same.

use std::{
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;
use serde_json::{Value, json};

use crate::{
    agent, ensure,
    flood::{Flood, Ports},
    until,
    world::{Kind, NEAR, World, denying, ingress_from, policy},
};

pub(crate) const TESTS: &[crate::Test] = &[("tenants::a_costly_policy_delays_nobody_elses_changes", costly)];

/// Rules of the hostile policy: 300 kB of manifest.
const RULES: usize = 3200;

/// From the edit of a file to the first packet that it changes. A debug build reads all manifests at each edit, the hostile
/// ones included; a release build takes a fraction of it.
const BOUND: Duration = Duration::from_secs(3);
/// The hostile policy itself may take so long to be in force, or to be refused.
const BOUND_OF_HOSTILE: Duration = Duration::from_secs(10);

/// A tenant's rules on a pod of his: each lets in a whole network but for one address of its own, on a port of its own.
fn hostile() -> Value {
    let rule = |i: usize| {
        let except = format!("20.0.{}.{}/32", i / 256, i % 256);
        let peer = json!({"ipBlock": {"cidr": "20.0.0.0/8", "except": [except]}});
        json!({"from": [peer], "ports": [{"protocol": "TCP", "port": 1000 + i}]})
    };
    let rules: Vec<Value> = (0..RULES).map(rule).collect();
    policy("hostile", "open", json!({"policyTypes": ["Ingress"], "ingress": rules}))
}

fn costly(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut world = World::build(sandbox, Kind::Routed)?;
    world.edit(&denying())?;
    world.start(NEAR)?;
    let begin = |to| Flood::begin(&world, ("bad", to), Family::V4, Ports::Fresh, Duration::from_millis(4));
    let (to_srv, to_open) = (begin("srv")?, begin("open")?);
    let settled = |flood: &Flood, passes: bool| {
        // Nothing for as long as many datagrams take, or anything since the last look.
        let since = Instant::now();
        until(BOUND_OF_HOSTILE, || {
            let last = flood.last_arrived(since);
            let quiet = since.max(last.unwrap_or(since)).elapsed() > Duration::from_millis(100);
            Ok(if passes {
                last.map(|_| since.elapsed())
            } else {
                quiet.then(|| last.unwrap_or(since) - since)
            })
        })
    };
    ensure(settled(&to_open, true)?.is_some(), || "nothing reaches the tenant's pod before".into())?;

    world.edit(&[hostile()])?;
    let written = Instant::now();
    // The agent is at work on it.
    thread::sleep(Duration::from_millis(200));
    let mut slowest = Duration::ZERO;
    for turn in 0..6 {
        let opens = turn % 2 == 0;
        let clients: &[&str] =
            if opens { &["client", "far-client", "bad"] } else { &["client", "far-client"] };
        world.edit(&[ingress_from("srv", clients)])?;
        let took = settled(&to_srv, opens)?.ok_or_else(|| {
            let log = agent::tail(world.folder(), &NEAR.into());
            format!("a change of another pod's policy is not enforced {BOUND_OF_HOSTILE:?} after it:\n{log}")
        })?;
        slowest = slowest.max(took);
    }
    println!("the slowest change of another pod's policy took {} ms", slowest.as_millis());
    ensure(slowest < BOUND, || format!("a change of another pod's policy took {slowest:?}"))?;

    // The tenant's own pod has his rules, or is closed: nobody of another network gets in.
    settled(&to_open, false)?.ok_or("the hostile policy is neither in force nor is its pod closed")?;
    println!(
        "the tenant's pod is closed to others {} ms after the edit, at the latest",
        written.elapsed().as_millis()
    );
    world.taken_in()
}
