//! Changes that exceed the send buffer, and the rules that apply to packets meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Hook, Kernel,
    reader::{Packet, Ruleset},
};
use palisade_policy::{
    AddressSet, Delta, Direction, Family, MemberChanges, NodePlan, PeerSet, PeerSetId, PolicyTable,
    PolicyTableId, PortSet, Protocol, Traffic, Verdict,
};
use palisade_testkit::seeds;

use crate::{
    random::{PORTS, Random, World},
    sandbox::trial,
    scripted::kernel,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_plan_of_a_hundred_thousand_addresses_is_sent_in_stages", hundred_thousand),
        trial("between_transactions_the_old_rules_or_the_new_ones_apply", old_or_new),
        trial("an_address_that_moves_is_always_in_a_peer_set", moves),
    ]
}

/// The usual net.core.wmem_max, 208 KiB, which a process without rights can't exceed.
const ORDINARY_BUFFER: usize = 208 << 10;

fn hundred_thousand() {
    let (kernel, script) = kernel();
    script.lock().unwrap().largest = Some(ORDINARY_BUFFER);
    let mut plan = NodePlan::default();
    let (table, group) = (PolicyTableId([1; 16]), PeerSetId([1; 16]));
    let members: BTreeSet<IpAddr> = (0..50_000u32)
        .flat_map(|n| {
            [
                Ipv4Addr::from_bits(0x0a00_0000 + n).into(),
                Ipv6Addr::from_bits((0xfd << 120) + u128::from(n)).into(),
            ]
        })
        .collect();
    let row = Traffic::of(Protocol::Tcp, PortSet::range(80, 80));
    plan.peer_sets.insert(group, PeerSet::Addresses(members.iter().copied().collect()));
    plan.tables.insert(table, table_of(&[(group, row)], Traffic::none()));
    let local: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    plan.ingress = local.iter().map(|a| (*a, table)).collect();
    let (mut enforcer, commit) = Enforcer::start(kernel, &plan).unwrap();
    assert!(commit.transactions > 10 && commit.elements >= 100_000, "{commit:?}");
    assert_eq!(commit.generation as usize, commit.transactions);
    complete(&mut enforcer, &members);

    // Half of the members leave at once, and a fifth as many join.
    let removed: BTreeSet<IpAddr> = members.iter().copied().step_by(2).collect();
    let added: BTreeSet<IpAddr> =
        (0..10_000u32).map(|n| Ipv4Addr::from_bits(0x0b00_0000 + n).into()).collect();
    let members: BTreeSet<IpAddr> = members.difference(&removed).chain(&added).copied().collect();
    let change = MemberChanges { added, removed };
    let delta = Delta { members: BTreeMap::from([(group, change)]), ..Delta::default() };
    let commit = enforcer.commit(&delta).unwrap();
    assert!(commit.transactions > 3 && commit.elements >= 60_000, "{commit:?}");
    complete(&mut enforcer, &members);

    // A restart changes nothing except the rules, which are always rewritten.
    let (mut again, commit) = Enforcer::start(Kernel::open().unwrap(), enforcer.programmed()).unwrap();
    assert_eq!((commit.transactions, commit.elements), (1, 0), "{commit:?}");
    complete(&mut again, &members);
}

fn complete(enforcer: &mut Enforcer, members: &BTreeSet<IpAddr>) {
    let expected = Family::BOTH.map(|family| members.iter().filter(|a| Family::of(**a) == family).count());
    let mut in_kernel = || {
        let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
        ["4", "6"].map(|digit| {
            ruleset.sets[&format!("group_01010101010101010101010101010101_{digit}")].elements.len()
        })
    };
    // While the kernel resizes a set that has just been filled, a listing of it may lack elements.
    let begin = Instant::now();
    while in_kernel() != expected && begin.elapsed() < Duration::from_secs(60) {}
    assert_eq!(in_kernel(), expected, "IPv4 and IPv6");
}

fn table_of(rows: &[(PeerSetId, Traffic)], rest: Traffic) -> PolicyTable {
    let exact = rows.iter().cloned().collect();
    PolicyTable { direction: Direction::Ingress, exact, ranges: BTreeMap::new(), rest }
}

/// The two plans that the kernel may match, and the observations.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) old: NodePlan,
    pub(crate) new: NodePlan,
    pub(crate) flows: Vec<Packet>,
    pub(crate) looks: usize,
    pub(crate) faults: Vec<String>,
}

impl Watch {
    pub(crate) fn look(&mut self, kernel: &mut Kernel) {
        let ruleset = Ruleset::read(kernel).unwrap().unwrap();
        self.looks += 1;
        // No table applies to link-scoped traffic. `link` tests it.
        for packet in self.flows.iter().filter(|packet| !packet.is_link_scoped()) {
            let allows = |plan: &NodePlan, direction| {
                plan.decide(direction, packet.source, packet.destination, packet.protocol, packet.port)
                    .is_allow()
            };
            let egress = [allows(&self.old, Direction::Egress), allows(&self.new, Direction::Egress)];
            let ingress = match packet.hook {
                Hook::Forward => {
                    [allows(&self.old, Direction::Ingress), allows(&self.new, Direction::Ingress)]
                }
                _ => [true; 2],
            };
            let allowed = ruleset.evaluate(packet).unwrap().verdict == Verdict::Allow;
            if !egress.iter().any(|e| ingress.iter().any(|i| (*e && *i) == allowed)) {
                self.faults
                    .push(format!("{packet:?}: {allowed}, but egress {egress:?} and ingress {ingress:?}"));
            }
        }
    }
}

/// Random changes, one kind at a time, through a socket with a small buffer.
fn old_or_new() {
    let (mut looks, mut staged) = (0, 0);
    for seed in seeds(500..510) {
        let random = &mut Random::new(seed);
        let mut world = World::new(random, 12);
        let (kernel, script) = kernel();
        let (mut enforcer, _) = Enforcer::start(kernel, &world.plan()).unwrap();
        let watch = Arc::new(Mutex::new(Watch::default()));
        let mut observer = Kernel::open().unwrap();
        let watched = watch.clone();
        script.lock().unwrap().after_batch =
            Some(Box::new(move || watched.lock().unwrap().look(&mut observer)));
        script.lock().unwrap().largest = Some(6000);
        for step in 0..6 {
            match step % 3 {
                0 => world.move_members(random),
                1 => world.change_tables(random),
                _ => (0..8).for_each(|_| world.change_hairpins(random)),
            }
            let new = world.plan();
            {
                let mut watch = watch.lock().unwrap();
                watch.flows = flows(&world, random);
                watch.old = enforcer.programmed().clone();
                watch.new = new.clone();
            }
            let commit = enforcer.commit(&enforcer.programmed().delta_to(&new)).unwrap();
            staged += usize::from(commit.transactions > 1);
            let mut watch = watch.lock().unwrap();
            assert!(watch.faults.is_empty(), "seed {seed}, step {step}: {:#?}", watch.faults);
            looks += watch.looks;
            watch.looks = 0;
        }
        script.lock().unwrap().after_batch = None;
        enforcer.remove().unwrap();
    }
    assert!(staged > 10 && looks > staged, "{looks} looks at {staged} staged changes are too few");
}

pub(crate) fn flows(world: &World, random: &mut Random) -> Vec<Packet> {
    let addresses = world.interesting();
    let mut out = Vec::new();
    while out.len() < 250 {
        let source = *random.pick(&addresses);
        let destination = if random.chance(10) { source } else { *random.pick(&addresses) };
        if Family::of(source) == Family::of(destination) {
            let (hook, protocol) = (*random.pick(&Hook::POLICY), *random.pick(&Protocol::WITH_PORTS));
            let port = *random.pick(&PORTS);
            out.push(Packet { hook, ..Packet::new(source, destination, protocol, port) });
        }
    }
    out
}

fn moves() {
    let pods: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|a| a.parse().unwrap());
    let (table, a, b) = (PolicyTableId([1; 16]), PeerSetId([1; 16]), PeerSetId([2; 16]));
    let rows = [(a, Traffic::none()), (b, Traffic::of(Protocol::Tcp, PortSet::range(80, 80)))];
    let old = NodePlan {
        ingress: BTreeMap::from([(pods[0], table)]),
        tables: BTreeMap::from([(table, table_of(&rows, Traffic::all()))]),
        peer_sets: BTreeMap::from([
            (a, PeerSet::Addresses([pods[1], pods[2]].into())),
            (b, PeerSet::Addresses(AddressSet::default())),
        ]),
        ..NodePlan::default()
    };
    let mut new = old.clone();
    new.peer_sets.insert(a, PeerSet::Addresses([pods[2]].into()));
    new.peer_sets.insert(b, PeerSet::Addresses([pods[1]].into()));
    let (kernel, script) = kernel();
    let (mut enforcer, _) = Enforcer::start(kernel, &old).unwrap();
    // `rest` allows everything, so a moment in neither peer set would allow port 22.
    let packet = Packet::new(pods[1], pods[0], Protocol::Tcp, 22);
    let watch = Arc::new(Mutex::new(Watch {
        old: old.clone(),
        new: new.clone(),
        flows: vec![packet],
        ..Watch::default()
    }));
    let (watched, mut observer) = (watch.clone(), Kernel::open().unwrap());
    script.lock().unwrap().after_batch = Some(Box::new(move || watched.lock().unwrap().look(&mut observer)));
    let commit = enforcer.commit(&old.delta_to(&new)).unwrap();
    // Additions, then removals: one element and the transaction number each.
    assert_eq!((commit.transactions, commit.elements), (2, 2), "{commit:?}");
    {
        let watch = watch.lock().unwrap();
        assert_eq!((watch.looks, &watch.faults[..]), (2, &[][..]));
    }
    script.lock().unwrap().after_batch = None;
    // A pod that only joins or only leaves takes one transaction.
    let mut last = new.clone();
    last.peer_sets.insert(a, PeerSet::Addresses(AddressSet::default()));
    assert_eq!(enforcer.commit(&new.delta_to(&last)).unwrap().transactions, 1);
}
