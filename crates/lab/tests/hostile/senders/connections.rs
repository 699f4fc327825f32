//! Forged packets within established connections of other pods.

use std::net::UdpSocket;

use libtest_mimic::Failed;
use palisade_agent::config::SourceCheck;
use palisade_lab::Sandbox;
use palisade_policy::Family;

use super::{Cases, PATIENCE, Passes};
use crate::{
    capture::Capture,
    frames::{self, UDP},
    harness::ensure,
    testbed::{NEAR, PodNetwork, Testbed},
};

/// The ports of the connections.
const CLIENT_PORT: u16 = 40_100;
const SERVER_PORT: u16 = 7300;

/// A pod writes into connections of other pods, as either end: of two pods of its node, and of one of them with a pod of another node.
pub(super) fn forged(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, kind)?;
    testbed.start(NEAR)?;
    let bad = Capture::open(&testbed, "bad")?;
    let open = Capture::open(&testbed, "open")?;
    for peer in ["client", "far-client"] {
        let mut cases = Cases::default();
        for family in Family::BOTH {
            let server = within_connection(&testbed, peer, family)?;
            let (source, to) = (testbed.address(peer, family)?, testbed.address("open", family)?);
            let own = testbed.address("bad", family)?;
            let hop = frames::next_hop(&testbed, "bad", "open")?;
            for (what, from, passes) in [("its own", own, Passes::Always), (peer, source, Passes::Unchecked)]
            {
                // From the client to the server, and as the server's answer, in a connection that `open` has opened.
                for (sport, dport) in [(CLIENT_PORT, SERVER_PORT), (SERVER_PORT, CLIENT_PORT)] {
                    cases.add(format!("{what}, {from} {sport} to {dport}"), passes, |mark| {
                        let inner = frames::udp((from, sport), (to, dport), mark);
                        frames::ethernet(hop, bad.mac, &frames::ip(from, to, UDP, 64, &inner))
                    });
                }
            }
            drop(server);
        }
        cases.check(&bad, &open, SourceCheck::Enforce)?;
        // The connections themselves go on.
        Family::BOTH
            .into_iter()
            .try_for_each(|family| within_connection(&testbed, peer, family).map(drop))?;
    }
    let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
    ensure(verified.equal, || format!("{:?}", verified.differences))
}

/// Lets a pod and `open` exchange datagrams, each as the client of the other. Returns the sockets of `open`.
fn within_connection(testbed: &Testbed, peer: &str, family: Family) -> Result<[UdpSocket; 2], Failed> {
    let (other, open) = (testbed.address(peer, family)?, testbed.address("open", family)?);
    let bind = |pod: &str, address, port| -> Result<UdpSocket, Failed> {
        let socket = testbed.within(pod, || UdpSocket::bind((address, port)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let mut out = Vec::new();
    for (here, there) in [(SERVER_PORT, CLIENT_PORT), (CLIENT_PORT, SERVER_PORT)] {
        let (a, b) = (bind("open", open, here)?, bind(peer, other, there)?);
        let (client, server, to) =
            if here == CLIENT_PORT { (&a, &b, (other, there)) } else { (&b, &a, (open, here)) };
        client.send_to(b"asks", to)?;
        let (_, from) = server.recv_from(&mut [0; 8])?;
        server.send_to(b"answers", from)?;
        client.recv_from(&mut [0; 8])?;
        out.push(a);
    }
    out.try_into().map_err(|_| "two sockets".into())
}
