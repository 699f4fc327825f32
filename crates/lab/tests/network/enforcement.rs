//! The real agent on every node: what the kernel does is what the reference says, also after changes. And a lab whose nodes
//! enforce nothing is found out.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use libtest_mimic::Failed;
use palisade_lab::{Lab, LayoutOptions, Place, Sandbox, agent::palisade};
use palisade_nft::{
    Hook,
    drops::{Event, Headers, Reader, Transport},
};
use palisade_policy::{Change, Cluster, Direction, Labels, Namespace, Pod, PolicyKey, Protocol, TargetPort};

use crate::{build, clusters::*, ensure, must_agree, probe_all, topology::nothing};

pub(crate) const TESTS: &[crate::Test] = &[
    ("enforcement::routed", |s| enforced(s, false)),
    ("enforcement::bridged", |s| enforced(s, true)),
    ("enforcement::a_lab_without_enforcement_is_found_out", found_out),
    ("enforcement::changes_touch_nothing_that_both_sides_agree_on", undisturbed),
    ("enforcement::what_a_change_denies_is_cut_and_what_it_allows_again_goes_on", cut),
    ("enforcement::denied_packets_are_told", |s| told(s, false)),
    ("enforcement::denied_packets_are_told_on_bridges", |s| told(s, true)),
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
    lab.update(&c).map_err(|e| crate::chain(&e))?;
    must_agree(&lab)?;
    Ok(())
}

fn found_out(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = build(sandbox, &guarded(), &LayoutOptions::default(), nothing())?;
    let report = probe_all(&lab)?;
    let denied =
        report.probes.iter().filter(|t| t.probe.expected() == palisade_lab::probe::Expected::Denied).count();
    ensure(denied > 50 && report.counts.mismatches == denied, || {
        format!("{} mismatches of {denied} denied connections", report.counts.mismatches)
    })?;
    let json = serde_json::to_string(&report).map_err(|e| e.to_string())?;
    ensure(json.contains("isolated by NetworkPolicy x/b, and no rule matches"), || json[..500].to_owned())
}

fn address(lab: &Lab, pod: &str, port: u16) -> SocketAddr {
    SocketAddr::new(lab.layout().pods[&key(pod)].addresses[0], port)
}

/// One change after the other of every kind, while new connections are made without pause: what old and new rules allow
/// always passes, what both deny never does.
fn undisturbed(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = guarded();
    let mut lab = build(sandbox, &c, &LayoutOptions::default(), palisade())?;
    let (web, dns) = (address(&lab, "b", 80), address(&lab, "b", 53));
    let namespace = |name: &str| {
        let place = Place::Pod(key(name));
        lab.namespace(&place).ok_or("no such pod")?.try_clone().map_err(Failed::from)
    };
    let (allowed_from, denied_from) = (namespace("a")?, namespace("c")?);
    let (over, made, sent) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let allowed = || -> io::Result<()> {
        while !over.load(Ordering::Relaxed) {
            let mut line = String::new();
            // A lost first packet would be sent again after a second: one that takes so long was dropped.
            let mut stream = TcpStream::connect_timeout(&web, Duration::from_millis(900))?;
            stream.read_to_string(&mut line)?;
            made.fetch_add(1, Ordering::Relaxed);
            // Not so fast that connection tracking fills up with what is over.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let denied = || -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        while !over.load(Ordering::Relaxed) {
            socket.send_to(b"who", dns)?;
            if socket.recv(&mut [0; 64]).is_ok() {
                return Err(io::Error::other("a denied packet was answered"));
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let mut changed = || -> Result<(), Failed> {
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
            lab.update(&c).map_err(|e| crate::chain(&e))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let passing = scope.spawn(|| allowed_from.run(allowed));
        let blocked = scope.spawn(|| denied_from.run(denied));
        let result = changed();
        over.store(true, Ordering::Relaxed);
        passing.join().map_err(|_| "panicked")???;
        blocked.join().map_err(|_| "panicked")???;
        result
    })?;
    let (made, sent) = (made.into_inner(), sent.into_inner());
    println!("60 changes under {made} allowed connections and {sent} denied packets");
    ensure(made > 60 && sent > 60, || format!("only {made} connections and {sent} packets"))
}

/// A conversation under way, as connection tracking sees it: the same two sockets all along.
fn cut(sandbox: &Sandbox) -> Result<(), Failed> {
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
        .map_err(|e| crate::chain(&e))??;
    let answered = || (0..3).any(|_| socket.send(b"who").is_ok() && socket.recv(&mut [0; 64]).is_ok());
    ensure(answered(), || "nothing forbids it yet".into())?;
    let mut closed = open.clone();
    closed.apply(Change::SetPolicy(policy("c", "c", Some(vec![]), None)));
    lab.update(&closed).map_err(|e| crate::chain(&e))?;
    ensure(!answered(), || "a denied conversation goes on".into())?;
    lab.update(&open).map_err(|e| crate::chain(&e))?;
    ensure(answered(), || "an allowed conversation stays cut".into())
}

/// A node hears of every packet that it denies, in both families and directions, from pods of its own and of others.
fn told(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let lab = build(sandbox, &guarded(), &LayoutOptions { bridged, ..LayoutOptions::default() }, palisade())?;
    let pods = &lab.layout().pods;
    // `b` lets nobody but `a` in; `d` may go to `c` alone.
    for (node, from, to, direction) in [
        ("n1", "c", "b", Direction::Ingress),
        ("n2", "d", "c-node", Direction::Egress),
        ("n2", "d", "a", Direction::Egress),
    ] {
        let mut reader =
            lab.run_in(&Place::Node(node.into()), || Reader::open(GROUP))?.map_err(|e| crate::chain(&e))?;
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
            ensure(reader.wait(Duration::from_secs(10))?, || format!("{from} to {target}: nothing is told"))?;
            let Some(Event::Dropped(drop)) = reader.read()? else { return Err("no drop is told".into()) };
            let transport = Transport::Ports { source: sent.port(), destination: 5353 };
            let (source, protocol) = (sent.ip(), Protocol::Udp);
            let headers = Headers { source, destination: target, protocol, transport };
            ensure(drop.headers == headers && drop.direction == direction, || format!("{drop:?}"))?;
            ensure(drop.hook == Some(Hook::Forward) && drop.outgoing.is_some(), || format!("{drop:?}"))?;
        }
    }
    Ok(())
}

/// The agent's own.
const GROUP: u16 = 9043;
