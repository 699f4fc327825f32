//! A bridge that leads to pods and to another network, such as one whose pods share a network with those of other nodes.

use std::time::Duration;

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_netns::rtnetlink::{LinkEnd, Netlink};
use palisade_policy::Family;

use super::{Ends, PATIENCE};
use crate::{
    harness::{ensure, until},
    testbed::{NEAR, PodNetwork, Testbed, place},
};

/// How long a frame may take to its receiver.
const ARRIVAL: Duration = Duration::from_millis(200);

/// The indexes of the port and of its other end, on the node.
const PORT: u32 = 900;
const END: u32 = 901;

/// Adds a port to the bridge of pods that leads to no pod: its other end is on the node.
pub(super) fn add(testbed: &Testbed) -> Result<(), Failed> {
    let node = testbed.lab.namespace(&place(NEAR)).ok_or("the node has no namespace")?;
    let end = |index: u32| LinkEnd {
        name: format!("uplink{index}"),
        index,
        mac: [2, 0, 0, 0, 9, u8::try_from(index - PORT).unwrap_or(0xff)],
    };
    testbed.within(NEAR, || -> Result<(), Failed> {
        let bridge = super::bridge(testbed)?;
        let mut netlink = Netlink::open()?;
        netlink.veth(&end(PORT), &end(END), node).bridge_port(PORT, bridge, false).link_up(END);
        Ok(netlink.commit()?)
    })?
}

/// The uplink is there before the agent, or comes later; and so do pods.
pub(super) fn pods_come_and_go(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    testbed.start(NEAR)?;
    add(&testbed)?;
    let ends = Ends::of(&testbed)?;
    for (hidden, passes) in [(false, false), (true, true), (false, false)] {
        testbed.hide("far-client", hidden)?;
        for family in Family::BOTH {
            let (from, to) = (testbed.address("far-client", family)?, testbed.address("open", family)?);
            let mut number = 0_u64;
            let mut has_passed = || -> Result<bool, Failed> {
                number += 1;
                let mut mark = *b"uplink\0\0\0\0\0\0\0\0\0\0";
                mark[8..].copy_from_slice(&number.to_be_bytes());
                ends.open.drain()?;
                ends.bad.send(&ends.datagram(from, to, &mark))?;
                let arrived = || -> Result<Option<()>, Failed> {
                    Ok(ends.open.take()?.iter().any(|frame| frame.incoming && frame.has(&mark)).then_some(()))
                };
                Ok(until(ARRIVAL, arrived)?.is_some())
            };
            let seen = until(PATIENCE, || Ok((has_passed()? == passes).then_some(())))?;
            ensure(seen.is_some(), || {
                format!("hidden: {hidden}, {family:?}: not as expected, passes: {passes}")
            })?;
            // It stays so.
            ensure(has_passed()? == passes, || format!("hidden: {hidden}, {family:?}: passes: {}", !passes))?;
        }
    }
    let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
    ensure(verified.equal, || format!("{:?}", verified.differences))
}
