//! What policies in audit mode would deny passes, is logged and counted: real packets over the loopback device.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel,
    drops::{Counters, Counts, DropEvent, DropEventReader, Tally},
    reader::Ruleset,
};
use palisade_policy::{
    AuditPlan, Direction, NodePlan, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};

use crate::{
    agreement::shape,
    drops::{group, next},
    revocation::{PATIENCE, SILENCE, dial, loopback_up},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_audit_would_deny_passes_and_is_logged_and_counted", packets),
        trial("an_enforced_denial_is_no_audited_packet", enforced_first),
        trial("audit_needs_nothing_in_the_kernel_while_no_policy_is_in_audit_mode", nothing),
        trial("verify_and_repair_see_a_changed_audit_chain", repaired),
    ]
}

const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const ENFORCED: PolicyTableId = PolicyTableId([1; 16]);
const AUDITED: PolicyTableId = PolicyTableId([2; 16]);

fn table(rest: Traffic) -> PolicyTable {
    PolicyTable { direction: Direction::Egress, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest }
}

fn udp(port: u16) -> Traffic {
    Traffic::of(Protocol::Udp, PortSet::range(port, port))
}

/// A pod that may send nothing but this traffic if every policy were enforced, and everything now.
fn audited(rest: Traffic) -> NodePlan {
    let audit = AuditPlan { egress: BTreeMap::from([(POD, AUDITED)]), ..AuditPlan::default() };
    NodePlan { audit, tables: BTreeMap::from([(AUDITED, table(rest))]), ..NodePlan::default() }
}

fn counts(enforcer: &mut Enforcer) -> Counts {
    Tally::default().add(Counters::read(enforcer.kernel()).unwrap())
}

/// The destination port and kind of the next packets that the kernel logs.
fn logged<const N: usize>(reader: &mut DropEventReader) -> [(Option<u16>, bool); N] {
    std::array::from_fn(|_| match next(reader) {
        DropEvent::Dropped(packet) => (packet.port(), packet.audited),
        other => panic!("{other:?}"),
    })
}

fn packets() {
    loopback_up();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &audited(udp(53))).unwrap();
    let mut reader = DropEventReader::open(group()).unwrap();
    let receiver = UdpSocket::bind((PEER, 0)).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let sender = UdpSocket::bind((POD, 0)).unwrap();
    sender.send_to(b"allowed by all", (PEER, 53)).unwrap();
    sender.send_to(b"x", (PEER, port)).unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1, "the packet passes");
    let listener = TcpListener::bind((PEER, 0)).unwrap();
    dial(POD, listener.local_addr().unwrap(), PATIENCE).unwrap();
    let web = listener.local_addr().unwrap().port();
    assert_eq!(logged(&mut reader), [(Some(port), true), (Some(web), true)]);
    // Only the first packet of each connection: later ones are accepted before.
    assert_eq!(counts(&mut enforcer), Counts { audited_egress: 2, ..Counts::default() });

    // Enforced, the same table drops, and the audit maps are empty again.
    let plan = NodePlan {
        egress: BTreeMap::from([(POD, AUDITED)]),
        tables: BTreeMap::from([(AUDITED, table(udp(53)))]),
        ..NodePlan::default()
    };
    enforcer.commit(&enforcer.programmed().delta_to(&plan)).unwrap();
    dial(POD, listener.local_addr().unwrap(), SILENCE).unwrap_err();
    assert_eq!(logged(&mut reader), [(Some(web), false)]);
    assert!(enforcer.verify().unwrap().agrees());
    enforcer.remove().unwrap();
}

fn enforced_first() {
    loopback_up();
    let mut plan = audited(udp(1));
    plan.egress.insert(POD, ENFORCED);
    plan.tables.insert(ENFORCED, table(Traffic::of(Protocol::Udp, PortSet::all())));
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let mut reader = DropEventReader::open(group()).unwrap();
    dial(POD, SocketAddr::new(PEER, 80), SILENCE).unwrap_err();
    let [(_, first)] = logged(&mut reader);
    assert!(!first, "TCP is denied by the enforced table");
    let tcp = counts(&mut enforcer).egress;
    UdpSocket::bind((POD, 0)).unwrap().send_to(b"x", (PEER, 53)).unwrap();
    let now = counts(&mut enforcer);
    assert_eq!(now, Counts { egress: now.egress.max(tcp), audited_egress: 1, ..Counts::default() });
    assert!(enforcer.verify().unwrap().agrees());
    enforcer.remove().unwrap();
}

/// No chain, set or element is left when the last policy leaves audit mode.
fn nothing() {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let before = shape(&mut enforcer);
    assert!(before.chains.keys().all(|chain| chain == "audit" || !chain.starts_with("audit")), "{before:?}");
    let plan = audited(udp(53));
    enforcer.commit(&NodePlan::default().delta_to(&plan)).unwrap();
    assert_ne!(shape(&mut enforcer), before);
    enforcer.commit(&plan.delta_to(&NodePlan::default())).unwrap();
    assert_eq!(shape(&mut enforcer), before);
    enforcer.remove().unwrap();
}

fn repaired() {
    let plan = audited(udp(53));
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let right = shape(&mut enforcer);
    // Another enforcer with another plan writes to the same table.
    let (mut other, _) = Enforcer::start(Kernel::open().unwrap(), &audited(udp(54))).unwrap();
    assert_ne!(shape(&mut other), right);
    let found = enforcer.verify().unwrap();
    assert!(found.differences.iter().any(|d| d.to_string().contains("audit")), "{:?}", found.differences);
    enforcer.repair().unwrap();
    assert!(enforcer.verify().unwrap().agrees());
    assert_eq!(shape(&mut enforcer), right);
    // The plan of a previous run is taken over without a change.
    drop(enforcer);
    let (mut again, commit) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    assert!(commit.transactions <= 1, "{commit:?}");
    assert_eq!(shape(&mut again), right);
    again.remove().unwrap();
    assert!(Ruleset::read(again.kernel()).unwrap().is_none());
}
