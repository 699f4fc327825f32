//! The agent on every node. The kernel does what the reference decides, also after changes, and the probes detect a lab whose
//! nodes enforce nothing.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use libtest_mimic::Failed;
use palisade_lab::{
    Lab, LayoutOptions, Place, Sandbox,
    agent::palisade,
    probe::{Expected, ProbeOptions, Timeouts},
    with_causes,
};
use palisade_nft::{
    Hook,
    drops::{DropEvent, DropEventReader, Headers, TransportHeader},
};
use palisade_policy::{Change, Cluster, Direction, Labels, Namespace, Pod, PolicyKey, Protocol, TargetPort};

use crate::{
    clusters::*,
    harness::{Test, build, ensure, must_agree, probe_all, update},
    topology::no_enforcement,
};

pub(crate) const TESTS: &[Test] = &[
    ("enforcement::routed", |s| enforced(s, false)),
    ("enforcement::bridged", |s| enforced(s, true)),
    ("enforcement::probes_detect_a_lab_without_enforcement", without_enforcement),
    ("enforcement::changes_do_not_affect_connections_with_the_same_verdict", unaffected),
    ("enforcement::a_change_revokes_and_restores_established_connections", revoked),
    ("enforcement::denied_packets_are_reported", |s| reported(s, false)),
    ("enforcement::denied_packets_are_reported_on_bridges", |s| reported(s, true)),
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
    let mut lab = build(sandbox, &c, &LayoutOptions { bridged, ..LayoutOptions::default() }, palisade())?;
    let report = must_agree(&lab)?;
    ensure(report.counts.dropped > 50, || format!("only {} dropped", report.counts.dropped))?;
    c.apply(Change::RemovePolicy(PolicyKey::network_policy("x", "b")));
    c.apply(Change::SetPolicy(policy("c", "c", Some(vec![]), Some(vec![]))));
    c.apply(Change::SetPod(on("n1", pod("d"))));
    update(&mut lab, &c)?;
    must_agree(&lab)?;
    Ok(())
}

fn without_enforcement(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = build(sandbox, &guarded(), &LayoutOptions::default(), no_enforcement())?;
    // Long timeouts, because a probe that times out on a busy machine would count as denied.
    let patient = Timeouts { whole: Duration::from_secs(10), in_flight: 64 };
    let report = probe_all(&lab, &ProbeOptions { first: patient, ..ProbeOptions::default() })?;
    let denied = report.probes.iter().filter(|t| t.probe.expected() == Expected::Denied).count();
    ensure(denied > 50 && report.counts.mismatches == denied, || {
        format!("{} mismatches of {denied} denied connections", report.counts.mismatches)
    })?;
    let json = serde_json::to_string(&report).map_err(|e| e.to_string())?;
    ensure(json.contains("isolated by NetworkPolicy x/b, and no rule matches"), || json[..500].to_owned())
}

fn address(lab: &Lab, pod: &str, port: u16) -> SocketAddr {
    SocketAddr::new(lab.layout().pods[&key(pod)].addresses[0], port)
}

/// Makes changes of every kind while new connections are made continuously. A connection that old and new rules allow is always
/// made, and one that both deny is never made.
fn unaffected(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = guarded();
    let mut lab = build(sandbox, &c, &LayoutOptions::default(), palisade())?;
    let (web, dns) = (address(&lab, "b", 80), address(&lab, "b", 53));
    let namespace = |name: &str| {
        let place = Place::Pod(key(name));
        lab.namespace(&place).ok_or("no such pod")?.try_clone().map_err(Failed::from)
    };
    let (allowed_from, denied_from) = (namespace("a")?, namespace("c")?);
    let (stop, made, sent) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let allowed = || -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let mut line = String::new();
            // TCP repeats a lost SYN after one second, so a connection that takes longer than this lost a packet.
            let mut stream = TcpStream::connect_timeout(&web, Duration::from_millis(900))?;
            stream.read_to_string(&mut line)?;
            made.fetch_add(1, Ordering::Relaxed);
            // Limits the rate, so that finished connections don't fill the connection-tracking table.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let denied = || -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        while !stop.load(Ordering::Relaxed) {
            socket.send_to(b"who", dns)?;
            if socket.recv(&mut [0; 64]).is_ok() {
                return Err(io::Error::other("a denied packet was answered"));
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let mut apply_changes = || -> Result<(), Failed> {
        for i in 0..60 {
            let flag = i % 2 == 0;
            let on_b = rule(Some(vec![pods("d")]), flag.then(|| vec![ports(Protocol::Tcp, 80, 80)]));
            c.apply(match i / 10 {
                0 if flag => Change::SetPolicy(policy("more", "b", Some(vec![on_b]), None)),
                0 => Change::RemovePolicy(PolicyKey::network_policy("x", "more")),
                1 => {
                    Change::SetNamespace(Namespace::new("x", &Labels::from_iter([("turn", format!("{i}"))])))
                }
                2 => Change::SetPod(Pod {
                    labels: Labels::from_iter([("app", if flag { "a" } else { "d" })]),
                    ..on("n2", pod("d"))
                }),
                3 => Change::SetPod(on(if flag { "n1" } else { "n2" }, pod("d"))),
                4 if flag => Change::SetPod(on("n2", pod("guest"))),
                4 => Change::RemovePod(key("guest")),
                _ => Change::SetPolicy(policy("b-too", "b", Some(vec![on_b]), None)),
            });
            update(&mut lab, &c)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let passing = scope.spawn(|| allowed_from.run(allowed));
        let blocked = scope.spawn(|| denied_from.run(denied));
        let result = apply_changes();
        stop.store(true, Ordering::Relaxed);
        passing.join().map_err(|_| "panicked")???;
        blocked.join().map_err(|_| "panicked")???;
        result
    })?;
    let (made, sent) = (made.into_inner(), sent.into_inner());
    println!("60 changes under {made} allowed connections and {sent} denied packets");
    ensure(made > 60 && sent > 60, || format!("only {made} connections and {sent} packets"))
}

/// Revokes and restores an established connection: the same two sockets all the time.
fn revoked(sandbox: &Sandbox) -> Result<(), Failed> {
    let open = four();
    let mut lab = build(sandbox, &open, &LayoutOptions::default(), palisade())?;
    let dns = address(&lab, "c", 53);
    let socket = lab
        .run_in(&Place::Pod(key("a")), || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(dns)?;
            socket.set_read_timeout(Some(Duration::from_millis(400)))?;
            Ok(socket)
        })
        .map_err(|e| with_causes(&e))??;
    let answered = || (0..3).any(|_| socket.send(b"who").is_ok() && socket.recv(&mut [0; 64]).is_ok());
    ensure(answered(), || "a connection is not answered although no policy denies it".into())?;
    let mut closed = open.clone();
    closed.apply(Change::SetPolicy(policy("c", "c", Some(vec![]), None)));
    update(&mut lab, &closed)?;
    ensure(!answered(), || "a denied connection is still answered".into())?;
    update(&mut lab, &open)?;
    ensure(answered(), || "a connection that is allowed again is not answered".into())
}

/// Every denied packet is reported on its node, in both families and directions, from local and from other pods.
fn reported(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let lab = build(sandbox, &guarded(), &LayoutOptions { bridged, ..LayoutOptions::default() }, palisade())?;
    let pods = &lab.layout().pods;
    // `b` accepts only `a`; `d` may connect only to `c`.
    for (node, from, to, direction) in [
        ("n1", "c", "b", Direction::Ingress),
        ("n2", "d", "c-node", Direction::Egress),
        ("n2", "d", "a", Direction::Egress),
    ] {
        let mut reader = lab
            .run_in(&Place::Node(node.into()), || DropEventReader::open(GROUP))?
            .map_err(|e| with_causes(&e))?;
        let targets = match to {
            "c-node" => lab.layout().nodes["n1"].clone(),
            pod => pods[&key(pod)].addresses.clone(),
        };
        ensure(targets.len() == 2, || "both families".into())?;
        for target in targets {
            let sent = lab.run_in(&Place::Pod(key(from)), || -> io::Result<SocketAddr> {
                let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect((target, 5353))?;
                socket.send(b"x")?;
                socket.local_addr()
            })??;
            ensure(reader.wait(Duration::from_secs(60))?, || format!("{from} to {target}: no drop event"))?;
            let Some(DropEvent::Dropped(drop)) = reader.read()? else {
                return Err("the event is no drop".into());
            };
            let transport = TransportHeader::Ports { source: sent.port(), destination: 5353 };
            let (source, protocol) = (sent.ip(), Protocol::Udp);
            let headers = Headers { source, destination: target, protocol, transport };
            ensure(drop.headers == headers && drop.direction == direction, || format!("{drop:?}"))?;
            ensure(drop.hook == Some(Hook::Forward) && drop.outgoing.is_some(), || format!("{drop:?}"))?;
        }
    }
    Ok(())
}

/// The agent's nflog group.
const GROUP: u16 = 9043;
