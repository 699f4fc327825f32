//! Sources that pods ask for by annotation, and what hostile pods ask for.

use libtest_mimic::Failed;
use palisade_agent::config::SourceCheck;
use palisade_lab::Sandbox;
use palisade_nft::{Kernel, reader::Ruleset};
use palisade_policy::{ALLOW_SOURCE_KEY, ALLOW_SOURCE_WITHIN_KEY, Family};

use super::{Cases, Ends, PATIENCE, VIRTUAL, addresses, bridge, resolution, route_virtual, routed_packets};
use crate::{
    agent,
    capture::Capture,
    harness::{ensure, until},
    testbed::{NEAR, PodNetwork, Testbed},
};

/// All that an operator may permit, and more than is wise: the addresses of pods and nodes too.
const EVERYWHERE: &str =
    "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,192.0.2.0/24,198.51.100.0/24,203.0.113.0/24,fc00::/7,2000::/3";

/// Waits until the kernel has this number of networks that pods may use, in both tables. The agent reads the interfaces again within a
/// second.
fn await_networks(testbed: &Testbed, count: usize) -> Result<(), Failed> {
    let done = until(PATIENCE, || {
        let (routed, bridged) = testbed.within(NEAR, || -> Result<_, palisade_nft::Error> {
            let mut kernel = Kernel::open()?;
            Ok((Ruleset::read(&mut kernel)?, Ruleset::read_bridge(&mut kernel)?))
        })??;
        let of = |table: &Option<Ruleset>, names: [&str; 2]| {
            let sets = table.iter().flat_map(|table| names.map(|name| table.sets.get(name)));
            sets.flatten().map(|set| set.intervals.len()).sum::<usize>()
        };
        let found =
            of(&routed, ["allowed_sources4", "allowed_sources6"]) + of(&bridged, ["allowed4", "allowed6"]);
        Ok((found == count).then_some(()))
    })?;
    done.ok_or_else(|| format!("the kernel has not {count} networks").into())
}

fn virtual_addresses() -> String {
    VIRTUAL.map(|address| address.to_string()).join(", ")
}

fn verify(testbed: &mut Testbed) -> Result<(), Failed> {
    let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
    ensure(verified.equal, || format!("{:?}", verified.differences))
}

/// The steps of an operator and of who edits pods, with how many networks the pod `bad` may use after each: none but when it has the annotation, and its
/// namespace permits that.
const STEPS: [(&str, &str, &str, usize); 6] = [
    ("bad", ALLOW_SOURCE_KEY, "", 0),
    ("", ALLOW_SOURCE_WITHIN_KEY, "10.99.0.0/24,fd99::/64", 2),
    ("bad", ALLOW_SOURCE_KEY, "10.99.0.1;fd99::1", 0),
    ("bad", ALLOW_SOURCE_KEY, "", 2),
    ("", ALLOW_SOURCE_WITHIN_KEY, "10.98.0.0/24,fd98::/64", 0),
    ("", ALLOW_SOURCE_WITHIN_KEY, "0.0.0.0/0,::/0", 0),
];

fn take(testbed: &mut Testbed, (of, key, value, count): (&str, &str, &str, usize)) -> Result<(), Failed> {
    let asked = virtual_addresses();
    testbed.annotate(of, key, if value.is_empty() { &asked } else { value })?;
    await_networks(testbed, count)
}

pub(super) fn on_a_bridge(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    agent::set_source_check(testbed.folder(), SourceCheck::Strict)?;
    route_virtual(&testbed, bridge)?;
    testbed.start(NEAR)?;
    let ends = Ends::of(&testbed)?;
    for step in STEPS {
        take(&mut testbed, step)?;
        let mut cases = Cases::default();
        addresses(&testbed, &ends, &mut cases)?;
        resolution(&testbed, &ends, &mut cases)?;
        if step.3 > 0 {
            cases.allow_unassigned();
        }
        cases.check(&ends.bad, &ends.open, SourceCheck::Strict)?;
        verify(&mut testbed)?;
    }
    Ok(())
}

/// Without a route back to them, and with one that leads through the interface but isn't the pod's.
pub(super) fn when_routed(sandbox: &Sandbox) -> Result<(), Failed> {
    for check in [SourceCheck::Enforce, SourceCheck::Strict] {
        let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
        agent::set_source_check(testbed.folder(), check)?;
        testbed.start(NEAR)?;
        let (bad, open) = (Capture::open(&testbed, "bad")?, Capture::open(&testbed, "open")?);
        for step in STEPS {
            take(&mut testbed, step)?;
            let mut cases = routed_packets(&testbed, &bad)?;
            if step.3 > 0 {
                cases.allow_unassigned();
            }
            // Without a route, an unassigned address passes with neither setting.
            cases.check(&bad, &open, SourceCheck::Strict)?;
            verify(&mut testbed)?;
        }
    }
    Ok(())
}

/// What a tenant may write, where its operator permits too much.
pub(super) fn refused(sandbox: &Sandbox, network: PodNetwork) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, network)?;
    agent::set_source_check(testbed.folder(), SourceCheck::Strict)?;
    testbed.annotate("", ALLOW_SOURCE_WITHIN_KEY, EVERYWHERE)?;
    testbed.start(NEAR)?;
    let (bad, open) = (Capture::open(&testbed, "bad")?, Capture::open(&testbed, "open")?);
    let mut asked = vec!["0.0.0.0/0,::/0".to_owned(), "10.0.0.0/8".to_owned(), "fc00::/7".to_owned()];
    for other in ["client", "iso", "far-client", NEAR] {
        for family in Family::BOTH {
            asked.push(testbed.address(other, family)?.to_string());
        }
    }
    asked.push((0..1000).map(|n| format!("10.99.{}.{}", n / 250, n % 250)).collect::<Vec<_>>().join(","));
    asked.push("x".repeat(200_000));
    for value in asked {
        // With a network that it gets, unless the value is void, so that the decision is known to be made.
        let is_void = value.contains("/0") || value.len() > 100;
        let asked = format!("{value},198.51.100.207");
        testbed.annotate("bad", ALLOW_SOURCE_KEY, &asked)?;
        await_networks(&testbed, usize::from(!is_void))?;
        let cases = match network {
            PodNetwork::Routed => routed_packets(&testbed, &bad)?,
            PodNetwork::Bridged => {
                let ends = Ends::of(&testbed)?;
                let mut cases = Cases::default();
                addresses(&testbed, &ends, &mut cases)?;
                resolution(&testbed, &ends, &mut cases)?;
                cases
            }
        };
        cases.check(&bad, &open, SourceCheck::Strict)?;
        // In between, so that the next value changes what is there.
        testbed.annotate("bad", ALLOW_SOURCE_KEY, "198.51.100.208,198.51.100.210")?;
        await_networks(&testbed, 2)?;
    }
    verify(&mut testbed)
}
