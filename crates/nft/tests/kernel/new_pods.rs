//! The table for pods that have just started: real packets over the loopback device.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Instant,
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel,
    conntrack::{self, delete_older},
    new_pods::{NEW_PODS_TABLE, NewPods, remove},
};
use palisade_policy::NodePlan;

use crate::{
    revocation::{PATIENCE, SILENCE, address_on_loopback, dial, loopback_up, only_egress_to, passes},
    sandbox::{trial, trial_with_nft},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("only_connections_that_began_since_the_start_of_a_pod_pass", newer_ones),
        trial("answers_to_what_policies_deny_do_not_pass_as_established", unanswered),
        trial("a_pod_does_not_get_the_connections_of_another_new_pod_with_its_address", reused),
        trial("connections_of_a_new_pod_are_kept_however_many_it_opens_meanwhile", many),
        trial_with_nft("connections_of_new_pods_are_forgotten_with_the_last_of_these", forgotten),
        trial_with_nft("another_run_takes_new_pods_over", taken_over),
        trial_with_nft("new_pods_are_distinguished_whatever_other_programs_do", other_programs),
    ]
}

const ENDS: [[&str; 2]; 2] = [["127.0.0.2", "127.0.0.3"], ["fd00::1", "fd00::2"]];

fn ends() -> impl Iterator<Item = [IpAddr; 2]> {
    loopback_up();
    for address in ENDS[1] {
        address_on_loopback(address.parse().unwrap());
    }
    ENDS.into_iter().map(|ends| ends.map(|end| end.parse().unwrap()))
}

/// An open connection, and its other end.
fn connected(from: IpAddr, to: &TcpListener) -> (TcpStream, TcpStream) {
    let client = dial(from, to.local_addr().unwrap(), PATIENCE).unwrap();
    (client, to.accept().unwrap().0)
}

fn refused(from: &mut TcpStream, to: &mut TcpStream) {
    assert_eq!(passes(from, to, SILENCE).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// As a client and as a server, and whatever is deleted later.
fn newer_ones() {
    for [pod, peer] in ends() {
        // Connection tracking begins with the first table that needs it.
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
        let mut kernel = Kernel::open().unwrap();
        let (mut new_pods, left) = NewPods::adopt(&mut kernel).unwrap();
        assert!(left.is_empty());
        for (client, server) in [(pod, peer), (peer, pod)] {
            let listener = TcpListener::bind((server, 0)).unwrap();
            let (mut old, mut old_end) = connected(client, &listener);
            passes(&mut old, &mut old_end, PATIENCE).unwrap();
            passes(&mut old_end, &mut old, PATIENCE).unwrap();
            assert!(new_pods.add(&mut kernel, "pod", &[pod]).unwrap());
            refused(&mut old, &mut old_end);
            refused(&mut old_end, &mut old);

            let (mut new, mut new_end) = connected(client, &listener);
            passes(&mut new, &mut new_end, PATIENCE).unwrap();
            passes(&mut new_end, &mut new, PATIENCE).unwrap();
            assert!(new_pods.add(&mut kernel, "pod", &[pod]).unwrap(), "once more");
            passes(&mut new, &mut new_end, PATIENCE).expect("its connections are still known");

            assert!(delete_older(&mut kernel, &[pod].into()).unwrap() >= 1);
            let listed = conntrack::list(&mut kernel, &[pod].into()).unwrap();
            let port = new.local_addr().unwrap().port();
            // What the older one sends again is the first packet of a connection, to which the policies apply.
            assert!(listed.iter().any(|entry| entry.source_port == port), "{listed:?}");
            new_pods.retain(&mut kernel, |_| false).unwrap();
            passes(&mut new_end, &mut new, PATIENCE).unwrap();
            passes(&mut new, &mut new_end, PATIENCE).unwrap();
        }
        enforcer.remove().unwrap();
        assert!(!remove(&mut kernel).unwrap(), "it went with the agent's other tables");
    }
}

/// A packet that the policies deny doesn't make its connection known, also if an unanswered one before it was allowed.
fn unanswered() {
    for [pod, peer] in ends() {
        let [of_pod, of_peer] = [pod, peer].map(|address| UdpSocket::bind((address, 0)).unwrap());
        let [at_pod, at_peer]: [SocketAddr; 2] =
            [&of_pod, &of_peer].map(|socket| socket.local_addr().unwrap());
        for socket in [&of_pod, &of_peer] {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
        }
        let receives = |socket: &UdpSocket| socket.recv(&mut [0]).is_ok();
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
        of_pod.send_to(b"x", at_peer).unwrap();
        assert!(receives(&of_peer));
        let (mut denying, _) =
            Enforcer::start(Kernel::open().unwrap(), &only_egress_to(pod, 1)).unwrap();
        let mut new_pods = NewPods::default();
        assert!(new_pods.add(denying.kernel(), "pod", &[pod]).unwrap());
        of_pod.send_to(b"x", at_peer).unwrap();
        assert!(!receives(&of_peer), "denied by the policies");
        of_peer.send_to(b"x", at_pod).expect_err("it does not leave its host");
        assert!(!receives(&of_pod), "as an answer in a connection that is older");
        assert_eq!(delete_older(denying.kernel(), &[pod].into()).unwrap(), 1);
        of_peer.send_to(b"x", at_pod).unwrap();
        assert!(receives(&of_pod), "no policy denies what its node sends");
        assert_eq!(delete_older(denying.kernel(), &[pod].into()).unwrap(), 0);
        enforcer.remove().unwrap();
    }
}

fn reused() {
    let [pod, peer] = ends().next().unwrap();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let mut kernel = Kernel::open().unwrap();
    let mut new_pods = NewPods::default();
    let other: IpAddr = "10.0.0.9".parse().unwrap();
    assert!(new_pods.add(&mut kernel, "first", &[pod]).unwrap());
    assert!(new_pods.add(&mut kernel, "other", &[other]).unwrap());
    let listener = TcpListener::bind((peer, 0)).unwrap();
    let (mut old, mut old_end) = connected(pod, &listener);
    // The first pod ends, while another one is still new.
    new_pods.retain(&mut kernel, |address| *address == other).unwrap();
    assert!(!new_pods.add(&mut kernel, "second", &[pod]).unwrap(), "connections of the first are known");
    assert!(new_pods.add(&mut kernel, "first", &[pod]).unwrap());
    new_pods.retain(&mut kernel, |_| false).unwrap();
    assert!(new_pods.add(&mut kernel, "second", &[pod]).unwrap());
    refused(&mut old, &mut old_end);
    refused(&mut old_end, &mut old);
    // One that another new pod has opened to the address before is older than the pod with this address.
    new_pods.retain(&mut kernel, |_| false).unwrap();
    delete_older(&mut kernel, &[pod].into()).unwrap();
    assert!(new_pods.add(&mut kernel, "client", &[peer]).unwrap());
    let listener = TcpListener::bind((pod, 0)).unwrap();
    let (mut old, mut old_end) = connected(peer, &listener);
    passes(&mut old, &mut old_end, PATIENCE).unwrap();
    assert!(new_pods.add(&mut kernel, "third", &[pod]).unwrap());
    refused(&mut old, &mut old_end);
    assert!(delete_older(&mut kernel, &[pod].into()).unwrap() >= 1);
    enforcer.remove().unwrap();
}

/// The kernel makes room for the connections of the set meanwhile.
fn many() {
    let [pod, peer] = ends().next().unwrap();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let mut kernel = Kernel::open().unwrap();
    for round in 0..20 {
        let mut new_pods = NewPods::default();
        assert!(new_pods.add(&mut kernel, &format!("pod-{round}"), &[pod]).unwrap());
        thread::scope(|scope| {
            let opening = scope.spawn(move || {
                let socket = UdpSocket::bind((pod, 0)).unwrap();
                for port in 1..5_000 {
                    // The peer's host refuses some.
                    _ = socket.send_to(b"x", (peer, port));
                }
            });
            while !opening.is_finished() {
                assert_eq!(delete_older(&mut kernel, &[pod].into()).unwrap(), 0, "round {round}");
            }
        });
        new_pods.retain(&mut kernel, |_| false).unwrap();
        remove(&mut kernel).unwrap();
        delete_older(&mut kernel, &[pod].into()).unwrap();
    }
    enforcer.remove().unwrap();
}

fn forgotten() {
    let [pod, peer] = ends().next().unwrap();
    let mut kernel = Kernel::open().unwrap();
    let mut new_pods = NewPods::default();
    new_pods.add(&mut kernel, "both", &[pod, peer]).unwrap();
    let _open = connected(pod, &TcpListener::bind((peer, 0)).unwrap());
    let connections = || {
        let output = Command::new("nft").args(["list", "set", "inet", NEW_PODS_TABLE, "connections4"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(connections().contains("elements"));
    new_pods.retain(&mut kernel, |address| *address == peer).unwrap();
    assert!(connections().contains("elements"), "another pod is new");
    new_pods.retain(&mut kernel, |_| false).unwrap();
    assert!(connections().contains("typeof ip saddr . ct id") && !connections().contains("elements"));
}

fn taken_over() {
    let mut kernel = Kernel::open().unwrap();
    let pods: BTreeSet<IpAddr> =
        ["10.0.0.1", "10.0.0.2", "fd00::7"].map(|text| text.parse().unwrap()).into();
    let addresses: Vec<IpAddr> = pods.iter().copied().collect();
    NewPods::default().add(&mut kernel, "pods", &addresses).unwrap();
    let (mut next, left) = NewPods::adopt(&mut kernel).unwrap();
    assert_eq!(left, pods);
    assert!(!next.add(&mut kernel, "pods", &addresses[..1]).unwrap(), "it may be another pod's");
    next.retain(&mut kernel, |_| false).unwrap();
    let (_, left) = NewPods::adopt(&mut kernel).unwrap();
    assert!(left.is_empty());
    next.tidy(&mut kernel).unwrap();
    assert!(crate::listing::list().contains(NEW_PODS_TABLE), "another pod may start soon");
    let begin = Instant::now();
    while crate::listing::list().contains(NEW_PODS_TABLE) {
        assert!(begin.elapsed() < PATIENCE, "no pod has started for a while");
        thread::sleep(SILENCE);
        next.tidy(&mut kernel).unwrap();
    }
    assert!(next.add(&mut kernel, "pods", &addresses).unwrap());
    // One of another version, whose rules mean something else.
    nft(&["add rule inet palisade_new_pods check_to4 counter"]);
    let (_, left) = NewPods::adopt(&mut kernel).unwrap();
    assert!(left.is_empty() && crate::listing::list().is_empty());
}

fn other_programs() {
    let mut kernel = Kernel::open().unwrap();
    let mut new_pods = NewPods::default();
    let [first, second, third]: [IpAddr; 3] =
        ["10.0.0.1", "10.0.0.2", "fd00::7"].map(|text| text.parse().unwrap());
    new_pods.add(&mut kernel, "first", &[first, third]).unwrap();
    let listing = crate::listing::list();
    for expected in [
        "typeof ip saddr . ct id",
        "typeof ip6 saddr . ct id",
        "ct state new add @connections4 { ip daddr . ct id } return",
        "ct state established,related ct status confirmed ip6 saddr . ct id != @connections6 counter packets 0 bytes 0 drop",
        "priority filter + 1",
        "fd00::7",
    ] {
        assert!(listing.contains(expected), "no {expected:?} in {listing}");
    }
    nft(&["flush ruleset"]);
    new_pods.add(&mut kernel, "second", &[second]).unwrap();
    let listing = crate::listing::list();
    for address in [first, second, third] {
        assert!(listing.contains(&address.to_string()), "no {address} in {listing}");
    }
    nft(&["delete element inet palisade_new_pods pods4 { 10.0.0.1 }"]);
    new_pods.retain(&mut kernel, |_| false).unwrap();
    assert!(!crate::listing::list().contains("elements"));
    for _ in 0..2 {
        nft(&["flush ruleset"]);
        new_pods.add(&mut kernel, "first", &[first]).unwrap();
        nft(&["flush ruleset"]);
        new_pods.retain(&mut kernel, |_| false).unwrap();
    }
}

fn nft(commands: &[&str]) {
    for command in commands {
        assert!(Command::new("nft").arg(command).status().unwrap().success(), "{command}");
    }
}
