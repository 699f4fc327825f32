//! Connections that are older than the rules that deny them.
//!
//! A denied connection passes no packet in either direction once the agent is ready, whatever becomes of its
//! connection-tracking entry; one that is allowed loses nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;

use crate::{
    ensure,
    frames::{self, Tcp},
    hand,
    talk::{
        Over::{self, Tcp as OverTcp, Udp as OverUdp},
        Speaks::{self, Both, Called, Keepalive, Opener},
        Spec, Talk, Talks,
    },
    until,
    watch::{Failures, Watch},
    world::{Kind, NEAR, World, denying, ingress_from},
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("old::connections_older_than_the_agent_routed", |s| older(s, Kind::Routed)),
    ("old::connections_older_than_the_agent_bridged", |s| older(s, Kind::Bridged)),
    ("old::connections_cut_by_a_change_routed", |s| cut(s, Kind::Routed)),
    ("old::connections_cut_by_a_change_bridged", |s| cut(s, Kind::Bridged)),
    ("old::connections_begun_without_the_table_routed", |s| begun_without(s, Kind::Routed)),
    ("old::connections_begun_without_the_table_bridged", |s| begun_without(s, Kind::Bridged)),
    ("old::a_thousand_connections_older_than_the_agent_routed", |s| crowd(s, Kind::Routed)),
    ("old::a_thousand_connections_older_than_the_agent_bridged", |s| crowd(s, Kind::Bridged)),
    ("old::a_flow_that_was_cut_flows_when_its_pod_comes_back_allowed", comes_back),
];

/// How long a review may come after the commit (`LONGEST_REST` of the agent, and the review itself).
const REVIEW: Duration = Duration::from_millis(400);
/// What may be lost of datagrams after connection tracking forgot a flow: until its opener speaks again.
const RECOVERY: Duration = Duration::from_millis(500);

const fn denied(from: &'static str, to: &'static str, over: Over, speaks: Speaks) -> Spec {
    Spec { from, to, over, speaks, allowed: false }
}

const fn allowed(from: &'static str, to: &'static str, over: Over) -> Spec {
    Spec { from, to, over, speaks: Both, allowed: true }
}

const DENIED: &[Spec] = &[
    denied("bad", "srv", OverTcp, Called),
    denied("bad", "srv", OverUdp, Called),
    denied("bad", "srv", OverTcp, Opener),
    denied("bad", "srv", OverUdp, Opener),
    denied("bad", "srv", OverTcp, Keepalive),
    denied("far-bad", "srv", OverTcp, Called),
    denied("far-bad", "srv", OverUdp, Called),
    denied("outside", "srv", OverTcp, Both),
    denied("outside", "srv", OverUdp, Both),
    denied("iso", "open", OverTcp, Called),
    denied("iso", "open", OverUdp, Called),
    denied("iso", "outside", OverTcp, Both),
    denied("iso", "outside", OverUdp, Called),
    denied("bad", "both", OverTcp, Called),
    denied("both", "open", OverUdp, Called),
];

const ALLOWED: &[Spec] = &[
    allowed("client", "srv", OverTcp),
    allowed("client", "srv", OverUdp),
    allowed("far-client", "srv", OverTcp),
    allowed("far-client", "srv", OverUdp),
    // The server may call nobody itself.
    allowed("client", "both", OverTcp),
    allowed("client", "both", OverUdp),
    // Nobody may call the opener.
    allowed("srv", "open", OverTcp),
    allowed("srv", "open", OverUdp),
    allowed("srv", "outside", OverTcp),
    allowed("srv", "outside", OverUdp),
    // The server may call nobody, and everybody may call it.
    allowed("client", "iso", OverTcp),
    allowed("outside", "iso", OverUdp),
    // Nobody's policy.
    allowed("bad", "open", OverTcp),
    allowed("bad", "open", OverUdp),
    allowed("outside", "open", OverTcp),
];

/// A world in which connection tracking is on because of others, and quick to forget.
fn tracked(sandbox: &Sandbox, kind: Kind) -> Result<World, Failed> {
    let world = World::build(sandbox, kind)?;
    hand::kube_proxy(&world, NEAR)?;
    for name in ["srv", "bad", "open", "iso", "both", "client", "far-bad", "outside"] {
        // Linux 6.15 and later; without it a stalled stream is heard of less often.
        _ = hand::sysctl(&world, name, "ipv4/tcp_rto_max_ms", "1000");
    }
    Ok(world)
}

fn everything() -> Vec<Spec> {
    DENIED.iter().chain(ALLOWED).copied().collect()
}

/// Connections without room for labels, at the first start; then whatever may make them come back.
fn older(sandbox: &Sandbox, kind: Kind) -> Result<(), Failed> {
    let mut world = tracked(sandbox, kind)?;
    world.edit(&denying())?;
    let talks = Talks::begin(&world, &everything())?;
    let (watch, mut failures, mut excused) = (Watch::open(&world)?, Failures::default(), Vec::new());

    world.start(NEAR)?;
    failures.note(watch.nothing_denied_arrives(&talks, "after the first start"));
    failures.note(talks.allowed_lost_nothing(&excused));

    excused.push((Instant::now(), Instant::now() + RECOVERY));
    hand::conntrack(&world, NEAR, "-F")?;
    failures.note(watch.nothing_denied_arrives(&talks, "after conntrack -F"));
    failures.note(talks.allowed_lost_nothing(&excused));

    world.kill(NEAR);
    world.start(NEAR)?;
    failures.note(watch.nothing_denied_arrives(&talks, "after a restart"));

    world.remove(NEAR)?;
    // Nobody remembers who opened the old ones, once the entries are gone: those that begin now have entries again.
    talks.with(|all| all.retain(|t| t.spec.allowed));
    talks.add(&world, DENIED)?;
    world.start(NEAR)?;
    failures.note(watch.nothing_denied_arrives(&talks, "after --remove and a new install"));
    failures.note(talks.allowed_lost_nothing(&excused));
    failures.into_result()
}

/// Connections that a change of policy cuts while the agent runs; then their entries vanish one way or another.
fn cut(sandbox: &Sandbox, kind: Kind) -> Result<(), Failed> {
    let mut world = tracked(sandbox, kind)?;
    world.start(NEAR)?;
    let talks = Talks::begin(&world, &everything())?;
    let (watch, mut failures) = (Watch::open(&world)?, Failures::default());
    world.set(&denying())?;
    thread::sleep(REVIEW);
    failures.note(watch.nothing_denied_arrives(&talks, "after the change"));
    failures.note(talks.allowed_lost_nothing(&[]));

    for spec in [denied("far-bad", "srv", OverTcp, Called), denied("far-bad", "srv", OverUdp, Called)] {
        for ends in entries(&talks, spec) {
            hand::conntrack(&world, NEAR, &format!("-D {ends}"))?;
        }
    }
    failures.note(watch.nothing_denied_arrives(&talks, "after conntrack -D of some"));

    // The entry goes to the state CLOSE and is forgotten at once, with its label.
    hand::sysctl(&world, NEAR, "netfilter/nf_conntrack_tcp_timeout_close", "0")?;
    reset_own_connections(&world, &watch, &talks)?;
    failures.note(watch.nothing_denied_arrives(&talks, "after a forged RST"));

    excused_flush(&world, &watch, &talks, &mut failures)?;
    failures.into_result()
}

fn excused_flush(world: &World, watch: &Watch, talks: &Talks, failures: &mut Failures) -> Result<(), Failed> {
    let excused = [(Instant::now(), Instant::now() + RECOVERY)];
    hand::conntrack(world, NEAR, "-F")?;
    failures.note(watch.nothing_denied_arrives(talks, "after conntrack -F"));
    failures.note(talks.allowed_lost_nothing(&excused));
    Ok(())
}

/// The ends of all conversations of a kind, as arguments of `conntrack`.
fn entries(talks: &Talks, spec: Spec) -> Vec<String> {
    let same = |t: &&Talk| {
        let is = t.spec;
        (is.from, is.to, is.over, is.speaks) == (spec.from, spec.to, spec.over, spec.speaks)
    };
    talks.with(|all| {
        let ends = all.iter().filter(same).map(|t| (t.family, t.ends));
        ends.map(|(family, e)| {
            format!(
                "-f {} -p {} -s {} -d {} --sport {} --dport {}",
                if family == Family::V4 { "ipv4" } else { "ipv6" },
                if e.protocol == 6 { "tcp" } else { "udp" },
                e.source.0,
                e.destination.0,
                e.source.1,
                e.destination.1
            )
        })
        .collect()
    })
}

/// The denied client resets the connections by which the server pushes, with the number that connection tracking takes:
/// the one that the server acknowledged last.
fn reset_own_connections(world: &World, watch: &Watch, talks: &Talks) -> Result<(), Failed> {
    let (bad, srv) = (&watch.taps["bad"], &watch.taps["srv"]);
    let gateway = frames::next_hop(world, "bad", "srv")?;
    let pushed = talks.with(|all| {
        let pushed = |t: &&Talk| t.spec.from == "bad" && t.spec.to == "srv" && t.spec.over == OverTcp;
        all.iter().filter(pushed).filter(|t| t.spec.speaks == Called).map(|t| t.ends).collect::<Vec<_>>()
    });
    ensure(pushed.len() == 2, || "one of each family".into())?;
    for ends in pushed {
        let acknowledged = until(Duration::from_secs(5), || {
            let mut frames = srv.take()?.into_iter().filter(|f| !f.incoming);
            Ok(frames.find_map(|f| f.numbers().filter(|_| f.ends() == Some(ends.reversed()))))
        })?;
        let (_, acknowledged) = acknowledged.ok_or("the server does not retransmit")?;
        let reset =
            Tcp { sequence: acknowledged, flags: frames::RST, ..Tcp::new(ends.source.1, ends.destination.1) };
        let packet = frames::ip(
            ends.source.0,
            ends.destination.0,
            6,
            64,
            &reset.bytes(ends.source.0, ends.destination.0, b""),
        );
        bad.send(&frames::ethernet(gateway, bad.mac, &packet))?;
    }
    let gone = |text: String| (!text.contains("ESTABLISHED")).then_some(());
    let closed = until(Duration::from_secs(2), || {
        let mut all = String::new();
        for ends in entries(talks, denied("bad", "srv", OverTcp, Called)) {
            all += &hand::conntrack(world, NEAR, &format!("-L {ends}"))?;
        }
        Ok(gone(all))
    })?;
    closed.ok_or_else(|| "connection tracking does not take the forged RST".into())
}

/// Connections that began, or lost their entries, while the table was missing.
fn begun_without(sandbox: &Sandbox, kind: Kind) -> Result<(), Failed> {
    let mut world = tracked(sandbox, kind)?;
    world.edit(&denying())?;
    let talks = Talks::begin(&world, &everything())?;
    let (watch, mut failures, mut excused) = (Watch::open(&world)?, Failures::default(), Vec::new());
    world.start(NEAR)?;
    failures.note(watch.nothing_denied_arrives(&talks, "after the first start"));

    // The agent sleeps, so that there is time to begin something.
    world.agent(NEAR)?.freeze(true)?;
    hand::nft(&world, NEAR, "delete table inet palisade")?;
    talks.add(&world, &everything())?;
    world.agent(NEAR)?.freeze(false)?;
    world.agent(NEAR)?.equal()?;
    thread::sleep(REVIEW);
    failures.note(watch.nothing_denied_arrives(&talks, "after the table was deleted and mended"));

    world.agent(NEAR)?.freeze(true)?;
    hand::nft(&world, NEAR, "flush chain inet palisade forward")?;
    excused.push((Instant::now(), Instant::now() + RECOVERY));
    hand::conntrack(&world, NEAR, "-F")?;
    talks.add(&world, DENIED)?;
    world.agent(NEAR)?.freeze(false)?;
    world.agent(NEAR)?.equal()?;
    thread::sleep(REVIEW);
    failures.note(watch.nothing_denied_arrives(&talks, "after the chain was flushed and mended"));
    failures.note(talks.allowed_lost_nothing(&excused));
    failures.into_result()
}

/// A flow that was cut, and whose pod was gone when the agent started anew, flows once the pod is back and it is allowed.
fn comes_back(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut world = tracked(sandbox, Kind::Routed)?;
    world.start(NEAR)?;
    let flow = denied("far-bad", "srv", OverUdp, Both);
    let talks = Talks::begin(&world, &[flow, denied("far-bad", "srv", OverTcp, Both)])?;
    world.set(&[ingress_from("srv", &["client"])])?;
    let (watch, mut failures) = (Watch::open(&world)?, Failures::default());
    thread::sleep(REVIEW);
    failures.note(watch.nothing_denied_arrives(&talks, "after the change"));

    world.kill(NEAR);
    world.hide("srv", true)?;
    world.unset("to-srv")?;
    world.start(NEAR)?;
    world.hide("srv", false)?;
    let before = talks.with(|all| all.iter().map(Talk::heard).collect::<Vec<_>>());
    let flows = until(Duration::from_secs(4), || {
        let now = talks.with(|all| all.iter().map(Talk::heard).collect::<Vec<_>>());
        let more = before.iter().zip(&now).all(|(b, n)| n.0 > b.0 + 10 && n.1 > b.1 + 10);
        Ok(more.then_some(()))
    })?;
    failures.note(flows.ok_or_else(|| {
        let stuck = talks.with(|all| {
            let stuck =
                all.iter().zip(&before).filter(|(t, b)| t.heard().0 <= b.0 + 10 || t.heard().1 <= b.1 + 10);
            stuck.map(|(t, _)| t.to_string()).collect::<Vec<_>>()
        });
        format!("allowed again, and still cut: {}", stuck.join("; ")).into()
    }));
    failures.into_result()
}

/// A thousand connections without room for labels, half of them denied.
fn crowd(sandbox: &Sandbox, kind: Kind) -> Result<(), Failed> {
    /// Of each kind and family.
    const EACH: usize = 50;
    /// A thousand of them keep a core busy as it is.
    const PAUSE: Duration = Duration::from_millis(150);
    let mut world = tracked(sandbox, kind)?;
    world.edit(&denying())?;
    let kinds = [
        denied("bad", "srv", OverTcp, Called),
        denied("bad", "srv", OverUdp, Called),
        denied("far-bad", "srv", OverTcp, Both),
        denied("iso", "open", OverUdp, Called),
        denied("iso", "open", OverTcp, Called),
        allowed("client", "srv", OverTcp),
        allowed("client", "srv", OverUdp),
        allowed("far-client", "srv", OverTcp),
        allowed("srv", "open", OverUdp),
        allowed("client", "iso", OverTcp),
    ];
    let specs: Vec<Spec> = kinds.into_iter().flat_map(|spec| [spec; EACH]).collect();
    let talks = Talks::begin_with(&world, &specs, PAUSE)?;
    let number = talks.with(|all| all.len());
    ensure(number == 1000, || format!("{number} conversations"))?;
    let (watch, mut failures) = (Watch::open(&world)?, Failures::default());
    let begin = Instant::now();
    world.start(NEAR)?;
    println!("ready {} ms after the agent was started", begin.elapsed().as_millis());
    failures.note(watch.nothing_denied_arrives(&talks, "after the first start"));
    failures.note(talks.allowed_lost_nothing(&[]));
    excused_flush(&world, &watch, &talks, &mut failures)?;
    failures.into_result()
}
