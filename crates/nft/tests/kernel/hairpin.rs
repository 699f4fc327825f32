//! What a pod may use of itself through a service, if cluster-wide policies restrict it.

use std::{collections::BTreeMap, io::ErrorKind, net::IpAddr, net::TcpListener};

use libtest_mimic::Trial;
use nix::libc::EEXIST;
use palisade_nft::{
    Enforcer, Error, Hook, Kernel, LOG_AUDIT_EGRESS, LOG_EGRESS, NetlinkSocket, Transport,
    reader::{Packet, Ruleset, Target},
};
use palisade_policy::{
    AddressChanges, Deciding, Direction, NodePlan, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic, Verdict,
};
use palisade_testkit::seeds;

use crate::{
    agreement::shape,
    random::{PORTS, Random, World},
    revocation::{PATIENCE, SILENCE, dial, loopback_up},
    sandbox::trial,
    scripted::{Fault, kernel},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("every_pod_may_use_of_itself_what_the_plan_allows", all_pods),
        trial("packets_of_a_pod_to_itself_are_evaluated_by_its_hairpin", packets),
        trial("hairpins_share_row_chains_and_unused_ones_are_deleted", chains),
        trial("a_refused_hairpin_changes_nothing", refused),
        trial("an_older_table_without_hairpin_maps_is_completed", completed),
        trial("a_hairpin_map_that_another_program_changed_is_repaired", repaired),
    ]
}

fn web() -> Traffic {
    Traffic::of(Protocol::Tcp, PortSet::range(80, 80))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to_itself(pod: IpAddr, hook: Hook, protocol: Protocol, port: u16) -> Packet {
    Packet { hook, ..Packet::new(pod, pod, protocol, port) }
}

/// Two pods with a hairpin: the first isolated by a table that allows nothing, the second not isolated.
fn plan(traffic: &Traffic) -> NodePlan {
    let id = PolicyTableId([1; 16]);
    let table = PolicyTable {
        direction: Direction::Ingress,
        exact: BTreeMap::new(),
        ranges: BTreeMap::new(),
        rest: Traffic::none(),
    };
    let pods = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"].map(address);
    NodePlan {
        ingress: BTreeMap::from([(pods[0], id), (pods[2], id)]),
        hairpin: pods.map(|pod| (pod, traffic.clone())).into(),
        tables: BTreeMap::from([(id, table)]),
        ..NodePlan::default()
    }
}

/// Every pod of random plans, isolated or not, with or without a hairpin, at every port edge and with other protocols.
fn all_pods() {
    let (mut denied, mut allowed, mut open) = (0, 0, 0);
    for seed in seeds(0..25) {
        let random = &mut Random::new(seed);
        let mut world = World::new(random, 4);
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        for step in 0..4 {
            world.change_hairpins(random);
            world.step(random);
            let delta = enforcer.programmed().delta_to(&world.plan());
            enforcer.commit(&delta).unwrap();
            let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
            let plan = enforcer.programmed();
            for pod in world.pods() {
                let ports = PORTS.iter().flat_map(|port| Protocol::WITH_PORTS.map(|p| (p, *port)));
                for (protocol, port) in ports.chain([(Protocol::Other(1), 8), (Protocol::Other(47), 0)]) {
                    for hook in Hook::POLICY {
                        let packet = to_itself(*pod, hook, protocol, port);
                        let evaluation = ruleset.evaluate(&packet).unwrap();
                        let expected = plan.decide(Direction::Egress, *pod, *pod, protocol, port);
                        assert_eq!(evaluation.verdict, expected, "seed {seed}, step {step}: {packet:?}");
                        let all =
                            plan.decide_by(Deciding::All, Direction::Egress, *pod, *pod, protocol, port);
                        let by = match (expected, all) {
                            (Verdict::Deny, _) => Some(LOG_EGRESS),
                            (Verdict::Allow, Verdict::Deny) => Some(LOG_AUDIT_EGRESS),
                            (Verdict::Allow, Verdict::Allow) => None,
                        };
                        assert_eq!(evaluation.logged.as_deref(), by, "seed {seed}, step {step}: {packet:?}");
                        match (expected, plan.hairpin.contains_key(pod)) {
                            (Verdict::Deny, _) => denied += 1,
                            (Verdict::Allow, true) => allowed += 1,
                            (Verdict::Allow, false) => open += 1,
                        }
                    }
                }
            }
        }
        enforcer.remove().unwrap();
    }
    assert!(
        denied.min(allowed).min(open) > 1000,
        "{denied} denied, {allowed} allowed, {open} unrestricted are too few"
    );
}

fn packets() {
    loopback_up();
    for pod in ["127.0.0.1", "::1"].map(address) {
        let [open, closed] = [(); 2].map(|()| TcpListener::bind((pod, 0)).unwrap());
        let port = open.local_addr().unwrap().port();
        let hairpin = BTreeMap::from([(pod, Traffic::of(Protocol::Tcp, PortSet::range(port, port)))]);
        let plan = NodePlan { hairpin, ..NodePlan::default() };
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
        let denied = dial(pod, closed.local_addr().unwrap(), SILENCE).unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::TimedOut);
        dial(pod, open.local_addr().unwrap(), PATIENCE).unwrap();
        enforcer.commit(&plan.delta_to(&NodePlan::default())).unwrap();
        dial(pod, closed.local_addr().unwrap(), PATIENCE).unwrap();
        enforcer.remove().unwrap();
    }
}

/// Returns the chains of a map with their addresses.
fn targets(ruleset: &Ruleset, map: &str) -> Vec<Option<Target>> {
    ruleset.sets[map].elements.values().cloned().collect()
}

fn chains() {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let empty = shape(&mut enforcer);
    let commit = enforcer.commit(&NodePlan::default().delta_to(&plan(&web()))).unwrap();
    assert_eq!(commit.transactions, 2, "the chain, then the elements that jump to it");
    let ruleset = shape(&mut enforcer);
    let rows: Vec<&String> = ruleset.chains.keys().filter(|name| name.starts_with("row_egress_")).collect();
    assert_eq!(rows.len(), 1, "one row for four pods: {rows:?}");
    for map in ["hairpin4", "hairpin6"] {
        let jump = Some(Target::Jump(rows[0].clone()));
        assert_eq!(targets(&ruleset, map), [jump.clone(), jump]);
    }
    // Allowing everything explicitly is the same as having no hairpin.
    let delta = enforcer.programmed().delta_to(&plan(&Traffic::all()));
    let commit = enforcer.commit(&delta).unwrap();
    assert_eq!((commit.transactions, commit.elements), (1, 6), "{commit:?}");
    let ruleset = shape(&mut enforcer);
    assert!(!ruleset.chains.contains_key(rows[0]), "the row is unused");
    assert_eq!(targets(&ruleset, "hairpin4"), []);
    let delta = enforcer.programmed().delta_to(&NodePlan::default());
    enforcer.commit(&delta).unwrap();
    assert_eq!(shape(&mut enforcer), empty);
}

fn refused() {
    let (scripted, script) = kernel();
    let (old, new) = (plan(&web()), plan(&Traffic::none()));
    let (mut enforcer, _) = Enforcer::start(scripted, &old).unwrap();
    let before = shape(&mut enforcer);
    let delta = old.delta_to(&new);
    let mut names = Vec::new();
    // Row chain, its rule and the number. Then the elements of each family are removed and added, the old row, the number.
    for (passes, index) in (0..3).map(|n| (0, n)).chain((0..6).map(|n| (1, n))) {
        let fault = Fault::Refused(index, EEXIST, "already there");
        script.lock().unwrap().faults = (0..passes).map(|_| None).chain([Some(fault)]).collect();
        let Error::Refused { object, .. } = enforcer.commit(&delta).unwrap_err() else {
            panic!("message {index}");
        };
        names.push(object);
        assert_eq!(*enforcer.programmed(), old);
        assert_eq!(shape(&mut enforcer), before);
    }
    for expected in
        ["chain row_egress_", "into set hairpin4", "out of set hairpin6", "uses of itself", "generation"]
    {
        assert!(names.iter().any(|name| name.contains(expected)), "no {expected:?} in {names:#?}");
    }
    let other =
        AddressChanges { removed: old.hairpin.keys().copied().collect(), ..AddressChanges::default() };
    enforcer.commit(&palisade_policy::Delta { hairpin: other, ..Default::default() }).unwrap();
    assert!(!shape(&mut enforcer).chains.keys().any(|name| name.starts_with("row_egress_")));
}

/// Returns one message of a transaction: its type and the attributes of the object.
fn message(kind: u16, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (attribute, value) in attributes {
        body.extend((value.len() as u16 + 5).to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(value.bytes().chain([0]));
        body.resize(body.len().next_multiple_of(4), 0);
    }
    framed((10 << 8) | kind, 1, [0, 0], &body)
}

fn framed(kind: u16, family: u8, resource: [u8; 2], body: &[u8]) -> Vec<u8> {
    let mut out = ((20 + body.len()) as u32).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    // NLM_F_REQUEST and NLM_F_ACK
    out.extend(5u16.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([family, 0, resource[0], resource[1]]);
    out.extend(body);
    out
}

/// Sends a transaction of another program.
fn perform(messages: &[Vec<u8>]) {
    let (begin, end) = (framed(0x10, 0, [0, 10], &[]), framed(0x11, 0, [0, 10], &[]));
    let mut socket = NetlinkSocket::open().unwrap();
    socket.send(&[&begin[..], &messages.concat(), &end].concat()).unwrap();
    for _ in messages {
        assert_eq!(socket.receive(true).unwrap()[16..20], [0; 4]);
    }
}

/// `NFT_MSG_DELRULE`, `NFT_MSG_DELSET`, `NFT_MSG_DELSETELEM`.
const DELRULE: u16 = 8;
const DELSET: u16 = 11;
const DELSETELEM: u16 = 14;

fn completed() {
    let plan = plan(&web());
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let whole = shape(&mut enforcer);
    drop(enforcer);
    let flush = |chain| message(DELRULE, &[(1, "palisade"), (2, chain)]);
    let delete = |set| message(DELSET, &[(1, "palisade"), (2, set)]);
    let flushed = ["to_itself4", "to_itself6"].map(flush);
    perform(&[&flushed[..], &[delete("hairpin4"), delete("hairpin6")]].concat());
    let (mut enforcer, commit) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    assert_eq!((commit.transactions, commit.elements), (1, 4), "only the hairpins were missing");
    assert_eq!(shape(&mut enforcer), whole);
}

fn repaired() {
    let plan = plan(&web());
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let whole = shape(&mut enforcer);
    // Without a list of elements, all of them.
    perform(&[message(DELSETELEM, &[(1, "palisade"), (2, "hairpin6")])]);
    assert_eq!(targets(&shape(&mut enforcer), "hairpin6"), []);
    let commit = enforcer.repair().unwrap();
    assert_eq!((commit.transactions, commit.elements), (1, 2), "{commit:?}");
    assert_eq!(shape(&mut enforcer), whole);
}
