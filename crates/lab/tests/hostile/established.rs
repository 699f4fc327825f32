//! Connections that were established before the rules that deny them.
//!
//! Once the agent is ready, a denied connection passes no packet in either direction, whatever happens to its
//! connection-tracking entry. An allowed connection loses nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;

use crate::{
    commands,
    conversations::{
        Conversation, ConversationSpec, Conversations,
        Senders::{self, Both, Client, Keepalive, Server},
        Transport::{self, Tcp as OverTcp, Udp as OverUdp},
    },
    denied_traffic::{DeniedTraffic, Failures},
    frames::{self, Tcp},
    harness::{Test, ensure, until},
    testbed::{NEAR, PodNetwork, Testbed, default_policies, ingress_from},
};

pub(crate) const TESTS: &[Test] = &[
    ("established::before_the_agent_started_routed", |s| before_start(s, PodNetwork::Routed)),
    ("established::before_the_agent_started_bridged", |s| before_start(s, PodNetwork::Bridged)),
    ("established::revoked_by_a_change_routed", |s| revoked(s, PodNetwork::Routed)),
    ("established::revoked_by_a_change_bridged", |s| revoked(s, PodNetwork::Bridged)),
    ("established::while_the_table_was_missing_routed", |s| table_missing(s, PodNetwork::Routed)),
    ("established::while_the_table_was_missing_bridged", |s| table_missing(s, PodNetwork::Bridged)),
    ("established::a_thousand_before_the_agent_started_routed", |s| thousand(s, PodNetwork::Routed)),
    ("established::a_thousand_before_the_agent_started_bridged", |s| thousand(s, PodNetwork::Bridged)),
    ("established::a_revoked_flow_is_restored_when_its_pod_returns_and_it_is_allowed", pod_returns),
];

/// The time from a commit until established connections are re-evaluated: the agent's maximum pause, and the listing itself.
const REEVALUATION: Duration = Duration::from_millis(400);
/// The period in which datagrams may be lost after the entry of a flow was deleted: until the client sends again.
const RECOVERY: Duration = Duration::from_millis(500);

const fn denied(
    from: &'static str,
    to: &'static str,
    transport: Transport,
    senders: Senders,
) -> ConversationSpec {
    ConversationSpec { from, to, transport, senders, allowed: false }
}

const fn allowed(from: &'static str, to: &'static str, transport: Transport) -> ConversationSpec {
    ConversationSpec { from, to, transport, senders: Both, allowed: true }
}

const DENIED: &[ConversationSpec] = &[
    denied("bad", "srv", OverTcp, Server),
    denied("bad", "srv", OverUdp, Server),
    denied("bad", "srv", OverTcp, Client),
    denied("bad", "srv", OverUdp, Client),
    denied("bad", "srv", OverTcp, Keepalive),
    denied("far-bad", "srv", OverTcp, Server),
    denied("far-bad", "srv", OverUdp, Server),
    denied("outside", "srv", OverTcp, Both),
    denied("outside", "srv", OverUdp, Both),
    denied("iso", "open", OverTcp, Server),
    denied("iso", "open", OverUdp, Server),
    denied("iso", "outside", OverTcp, Both),
    denied("iso", "outside", OverUdp, Server),
    denied("bad", "both", OverTcp, Server),
    denied("both", "open", OverUdp, Server),
];

const ALLOWED: &[ConversationSpec] = &[
    allowed("client", "srv", OverTcp),
    allowed("client", "srv", OverUdp),
    allowed("far-client", "srv", OverTcp),
    allowed("far-client", "srv", OverUdp),
    // `both` may open no connection itself.
    allowed("client", "both", OverTcp),
    allowed("client", "both", OverUdp),
    // No other pod than the clients may connect to `srv`.
    allowed("srv", "open", OverTcp),
    allowed("srv", "open", OverUdp),
    allowed("srv", "outside", OverTcp),
    allowed("srv", "outside", OverUdp),
    // `iso` may open no connection, and every place may connect to it.
    allowed("client", "iso", OverTcp),
    allowed("outside", "iso", OverUdp),
    // No policy selects either end.
    allowed("bad", "open", OverTcp),
    allowed("bad", "open", OverUdp),
    allowed("outside", "open", OverTcp),
];

/// Builds a testbed in which rules of another program enable connection tracking.
fn tracked(sandbox: &Sandbox, kind: PodNetwork) -> Result<Testbed, Failed> {
    let testbed = Testbed::build(sandbox, kind)?;
    commands::kube_proxy(&testbed, NEAR)?;
    for name in ["srv", "bad", "open", "iso", "both", "client", "far-bad", "outside"] {
        // Exists in Linux 6.15 and later. Without it a stalled stream retransmits less often.
        _ = commands::sysctl(&testbed, name, "ipv4/tcp_rto_max_ms", "1000");
    }
    Ok(testbed)
}

fn everything() -> Vec<ConversationSpec> {
    DENIED.iter().chain(ALLOWED).copied().collect()
}

/// Connections without room for labels in their entries, at the first start of the agent. Then everything that may let them pass
/// again: a flush, a restart, a removal and a new installation.
fn before_start(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let mut testbed = tracked(sandbox, kind)?;
    testbed.write_policies(&default_policies())?;
    let conversations = Conversations::start(&testbed, &everything())?;
    let (watch, mut failures, mut excused) =
        (DeniedTraffic::open(&testbed)?, Failures::default(), Vec::new());

    testbed.start(NEAR)?;
    failures.note(watch.expect_none(&conversations, "after the first start"));
    failures.note(conversations.expect_no_loss(&excused));

    excused.push((Instant::now(), Instant::now() + RECOVERY));
    commands::conntrack(&testbed, NEAR, "-F")?;
    failures.note(watch.expect_none(&conversations, "after conntrack -F"));
    failures.note(conversations.expect_no_loss(&excused));

    testbed.kill(NEAR);
    testbed.start(NEAR)?;
    failures.note(watch.expect_none(&conversations, "after a restart"));

    testbed.remove(NEAR)?;
    // Without entries it is unknown which end opened a connection, so new connections replace the denied ones.
    conversations.with(|all| all.retain(|t| t.spec.allowed));
    conversations.add(&testbed, DENIED)?;
    testbed.start(NEAR)?;
    failures.note(watch.expect_none(&conversations, "after --remove and a new install"));
    failures.note(conversations.expect_no_loss(&excused));
    failures.into_result()
}

/// Connections that a change of policy revokes. Then their entries are deleted, closed and flushed.
fn revoked(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let mut testbed = tracked(sandbox, kind)?;
    testbed.start(NEAR)?;
    let conversations = Conversations::start(&testbed, &everything())?;
    let (watch, mut failures) = (DeniedTraffic::open(&testbed)?, Failures::default());
    testbed.apply(&default_policies())?;
    thread::sleep(REEVALUATION);
    failures.note(watch.expect_none(&conversations, "after the change"));
    failures.note(conversations.expect_no_loss(&[]));

    for spec in [denied("far-bad", "srv", OverTcp, Server), denied("far-bad", "srv", OverUdp, Server)] {
        for ends in entries(&conversations, spec) {
            commands::conntrack(&testbed, NEAR, &format!("-D {ends}"))?;
        }
    }
    failures.note(watch.expect_none(&conversations, "after conntrack -D of two flows"));

    // An entry in the state CLOSE is removed at once, with its label.
    commands::sysctl(&testbed, NEAR, "netfilter/nf_conntrack_tcp_timeout_close", "0")?;
    reset_own_connections(&testbed, &watch, &conversations)?;
    failures.note(watch.expect_none(&conversations, "after a forged RST"));

    flush_entries(&testbed, &watch, &conversations, &mut failures)?;
    failures.into_result()
}

fn flush_entries(
    testbed: &Testbed,
    watch: &DeniedTraffic,
    conversations: &Conversations,
    failures: &mut Failures,
) -> Result<(), Failed> {
    let excused = [(Instant::now(), Instant::now() + RECOVERY)];
    commands::conntrack(testbed, NEAR, "-F")?;
    failures.note(watch.expect_none(conversations, "after conntrack -F"));
    failures.note(conversations.expect_no_loss(&excused));
    Ok(())
}

/// Returns the tuples of all conversations with this spec, as arguments of `conntrack`.
fn entries(conversations: &Conversations, spec: ConversationSpec) -> Vec<String> {
    let same = |t: &&Conversation| {
        let is = t.spec;
        (is.from, is.to, is.transport, is.senders) == (spec.from, spec.to, spec.transport, spec.senders)
    };
    conversations.with(|all| {
        let ends = all.iter().filter(same).map(|t| (t.family, t.tuple));
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

/// Resets the denied connections on which the server sends, by an RST from the client. Connection tracking accepts it with the
/// sequence number that the server acknowledged last.
fn reset_own_connections(
    testbed: &Testbed,
    watch: &DeniedTraffic,
    conversations: &Conversations,
) -> Result<(), Failed> {
    let (bad, srv) = (&watch.captures["bad"], &watch.captures["srv"]);
    let gateway = frames::next_hop(testbed, "bad", "srv")?;
    let pushed = conversations.with(|all| {
        let is_sender =
            |t: &&Conversation| t.spec.from == "bad" && t.spec.to == "srv" && t.spec.transport == OverTcp;
        all.iter().filter(is_sender).filter(|t| t.spec.senders == Server).map(|t| t.tuple).collect::<Vec<_>>()
    });
    ensure(pushed.len() == 2, || "not one conversation of each family".into())?;
    for ends in pushed {
        let acknowledged = until(Duration::from_secs(60), || {
            let mut frames = srv.take()?.into_iter().filter(|f| !f.incoming);
            Ok(frames.find_map(|f| f.numbers().filter(|_| f.five_tuple() == Some(ends.reversed()))))
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
    let closed_entry = |text: String| (!text.contains("ESTABLISHED")).then_some(());
    let closed = until(Duration::from_secs(60), || {
        let mut all = String::new();
        for ends in entries(conversations, denied("bad", "srv", OverTcp, Server)) {
            all += &commands::conntrack(testbed, NEAR, &format!("-L {ends}"))?;
        }
        Ok(closed_entry(all))
    })?;
    closed.ok_or_else(|| "connection tracking does not take the forged RST".into())
}

/// Connections that were opened, or lost their entries, while the table or its rules were missing.
fn table_missing(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let mut testbed = tracked(sandbox, kind)?;
    testbed.write_policies(&default_policies())?;
    let conversations = Conversations::start(&testbed, &everything())?;
    let (watch, mut failures, mut excused) =
        (DeniedTraffic::open(&testbed)?, Failures::default(), Vec::new());
    testbed.start(NEAR)?;
    failures.note(watch.expect_none(&conversations, "after the first start"));

    // The agent is stopped, so that connections can be opened before it repairs the table.
    testbed.agent(NEAR)?.freeze(true)?;
    commands::nft(&testbed, NEAR, "delete table inet palisade")?;
    conversations.add(&testbed, &everything())?;
    testbed.agent(NEAR)?.freeze(false)?;
    testbed.agent(NEAR)?.await_equal()?;
    thread::sleep(REEVALUATION);
    failures.note(watch.expect_none(&conversations, "after the table was deleted and repaired"));

    testbed.agent(NEAR)?.freeze(true)?;
    commands::nft(&testbed, NEAR, "flush chain inet palisade forward")?;
    excused.push((Instant::now(), Instant::now() + RECOVERY));
    commands::conntrack(&testbed, NEAR, "-F")?;
    conversations.add(&testbed, DENIED)?;
    testbed.agent(NEAR)?.freeze(false)?;
    testbed.agent(NEAR)?.await_equal()?;
    thread::sleep(REEVALUATION);
    failures.note(watch.expect_none(&conversations, "after the chain was flushed and repaired"));
    failures.note(conversations.expect_no_loss(&excused));
    failures.into_result()
}

/// A flow was revoked, and its pod was missing when the agent restarted. It passes again once the pod is back and the flow is
/// allowed.
fn pod_returns(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = tracked(sandbox, PodNetwork::Routed)?;
    testbed.start(NEAR)?;
    let flow = denied("far-bad", "srv", OverUdp, Both);
    let conversations = Conversations::start(&testbed, &[flow, denied("far-bad", "srv", OverTcp, Both)])?;
    testbed.apply(&[ingress_from("srv", &["client"])])?;
    let (watch, mut failures) = (DeniedTraffic::open(&testbed)?, Failures::default());
    thread::sleep(REEVALUATION);
    failures.note(watch.expect_none(&conversations, "after the change"));

    testbed.kill(NEAR);
    testbed.hide("srv", true)?;
    testbed.delete("to-srv")?;
    testbed.start(NEAR)?;
    testbed.hide("srv", false)?;
    let before = conversations.with(|all| all.iter().map(Conversation::received).collect::<Vec<_>>());
    let restored = until(Duration::from_secs(4), || {
        let now = conversations.with(|all| all.iter().map(Conversation::received).collect::<Vec<_>>());
        let more = before.iter().zip(&now).all(|(b, n)| n.0 > b.0 + 10 && n.1 > b.1 + 10);
        Ok(more.then_some(()))
    })?;
    failures.note(restored.ok_or_else(|| {
        let stuck = conversations.with(|all| {
            let stuck = all
                .iter()
                .zip(&before)
                .filter(|(t, b)| t.received().0 <= b.0 + 10 || t.received().1 <= b.1 + 10);
            stuck.map(|(t, _)| t.to_string()).collect::<Vec<_>>()
        });
        format!("allowed again, but still revoked: {}", stuck.join("; ")).into()
    }));
    failures.into_result()
}

/// A thousand connections without room for labels in their entries, half of them denied.
fn thousand(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    /// The number of conversations of each spec and family.
    const EACH: usize = 50;
    /// Longer than the default, because a thousand conversations keep a core busy.
    const PAUSE: Duration = Duration::from_millis(150);
    let mut testbed = tracked(sandbox, kind)?;
    testbed.write_policies(&default_policies())?;
    let specs = [
        denied("bad", "srv", OverTcp, Server),
        denied("bad", "srv", OverUdp, Server),
        denied("far-bad", "srv", OverTcp, Both),
        denied("iso", "open", OverUdp, Server),
        denied("iso", "open", OverTcp, Server),
        allowed("client", "srv", OverTcp),
        allowed("client", "srv", OverUdp),
        allowed("far-client", "srv", OverTcp),
        allowed("srv", "open", OverUdp),
        allowed("client", "iso", OverTcp),
    ];
    let specs: Vec<ConversationSpec> = specs.into_iter().flat_map(|spec| [spec; EACH]).collect();
    let conversations = Conversations::start_with(&testbed, &specs, PAUSE)?;
    let number = conversations.with(|all| all.len());
    ensure(number == 1000, || format!("{number} conversations"))?;
    let (watch, mut failures) = (DeniedTraffic::open(&testbed)?, Failures::default());
    let begin = Instant::now();
    testbed.start(NEAR)?;
    println!("ready {} ms after the agent was started", begin.elapsed().as_millis());
    failures.note(watch.expect_none(&conversations, "after the first start"));
    failures.note(conversations.expect_no_loss(&[]));
    flush_entries(&testbed, &watch, &conversations, &mut failures)?;
    failures.into_result()
}
