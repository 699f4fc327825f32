//! A tenant's policy that is expensive to compile. It must not delay changes of other tenants' policies.

use std::{
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;
use serde_json::{Value, json};

use crate::{
    agent,
    flood::{Flood, Ports},
    harness::{Test, ensure, until},
    testbed::{NEAR, PodNetwork, Testbed, default_policies, ingress_from, policy},
};

pub(crate) const TESTS: &[Test] = &[("costly_policy::does_not_delay_other_tenants_changes", costly)];

/// The number of rules of the expensive policy: 300 kB of manifest.
const RULES: usize = 3200;

/// The maximum time from a change of a file to its effect on packets. A debug build reads all manifests at each change, including
/// the expensive ones; a release build is many times faster.
const BOUND: Duration = Duration::from_secs(6);
/// The maximum time until the expensive policy itself is enforced, or its pod is closed.
const BOUND_OF_EXPENSIVE: Duration = Duration::from_secs(10);

/// Returns a tenant's policy on one of the tenant's pods. Each rule accepts a network with one address excepted, on one port;
/// addresses and ports differ in all rules.
fn expensive() -> Value {
    let rule = |i: usize| {
        let except = format!("20.0.{}.{}/32", i / 256, i % 256);
        let peer = json!({"ipBlock": {"cidr": "20.0.0.0/8", "except": [except]}});
        json!({"from": [peer], "ports": [{"protocol": "TCP", "port": 1000 + i}]})
    };
    let rules: Vec<Value> = (0..RULES).map(rule).collect();
    policy("expensive", "open", json!({"policyTypes": ["Ingress"], "ingress": rules}))
}

fn costly(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
    testbed.write_policies(&default_policies())?;
    testbed.start(NEAR)?;
    let start = |to| Flood::start(&testbed, ("bad", to), Family::V4, Ports::Fresh, Duration::from_millis(4));
    let (to_srv, to_open) = (start("srv")?, start("open")?);
    let await_change = |flood: &Flood, passes: bool| {
        // Stopped: no arrival for the time of many datagrams. Started: any arrival since the call.
        let since = Instant::now();
        until(BOUND_OF_EXPENSIVE, || {
            let last = flood.last_arrived(since);
            let quiet = since.max(last.unwrap_or(since)).elapsed() > Duration::from_millis(100);
            Ok(if passes {
                last.map(|_| since.elapsed())
            } else {
                quiet.then(|| last.unwrap_or(since) - since)
            })
        })
    };
    ensure(await_change(&to_open, true)?.is_some(), || {
        "no datagram reaches the tenant's pod before the policy".into()
    })?;

    testbed.write_policies(&[expensive()])?;
    let written = Instant::now();
    // The agent is busy with the expensive policy.
    thread::sleep(Duration::from_millis(200));
    let mut slowest = Duration::ZERO;
    for change in 0..6 {
        let opens = change % 2 == 0;
        let clients: &[&str] =
            if opens { &["client", "far-client", "bad"] } else { &["client", "far-client"] };
        testbed.write_policies(&[ingress_from("srv", clients)])?;
        let took = await_change(&to_srv, opens)?.ok_or_else(|| {
            let log = agent::tail(testbed.folder(), &NEAR.into());
            format!(
                "a change of another pod's policy is not enforced {BOUND_OF_EXPENSIVE:?} after it:\n{log}"
            )
        })?;
        slowest = slowest.max(took);
    }
    println!("the slowest change of another pod's policy took {} ms", slowest.as_millis());
    ensure(slowest < BOUND, || format!("a change of another pod's policy took {slowest:?}"))?;

    // The tenant's pod has the tenant's rules or is closed: other networks are denied.
    await_change(&to_open, false)?
        .ok_or("the expensive policy is not enforced, and its pod is not closed")?;
    println!(
        "the tenant's pod denies other networks at the latest {} ms after the change",
        written.elapsed().as_millis()
    );
    testbed.await_agents()
}
