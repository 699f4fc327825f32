//! What a pod's start costs on a node with many pods.

use std::{collections::BTreeMap, thread, time::Duration};

use libtest_mimic::Trial;
use palisade_agent::{DataPlane as _, NftDataPlane};
use palisade_policy::{Delta, NodePlan, ObjectKey};

use crate::{
    node::{Attachment, Node, Pod},
    trial,
};

/// The pods of a large node.
const MANY: u16 = 250;
/// The pods that start while the cost is counted.
const STARTS: u16 = 4;
/// More than the interval in which an agent reads links that have changed.
const LATER: Duration = Duration::from_millis(1100);

pub(crate) fn trials() -> Vec<Trial> {
    [
        trial("routed_pods_start_at_the_same_cost_beside_many", || starts(Attachment::Routed)),
        trial("bridged_pods_start_at_the_same_cost_beside_many", || starts(Attachment::Bridged)),
    ]
    .into()
}

/// What one start of a pod costs, with what the agent reads afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    messages: u64,
    transactions: usize,
}

fn name(plane: &mut NftDataPlane, n: u16, pod: &Pod) {
    let key = ObjectKey::new("x", format!("p{n}").as_str());
    let names: BTreeMap<_, _> = pod.addresses.iter().map(|address| (*address, key.clone())).collect();
    plane.name_local(&names);
}

/// Returns the highest cost of a start beside `count` pods.
fn cost(attachment: Attachment, count: u16) -> Cost {
    let mut node = Node::new(attachment);
    let mut plane = NftDataPlane::open().unwrap();
    let pods: Vec<Pod> = (0..count).map(|n| node.add(n)).collect();
    (0..).zip(&pods).for_each(|(n, pod)| name(&mut plane, n, pod));
    let local = pods.iter().flat_map(|pod| pod.addresses).collect();
    plane.start(&NodePlan { local, ..NodePlan::default() }).unwrap();
    // Until the kernel has reported everything about these, such as addresses that no other host has.
    let mut messages = 0;
    while messages != plane.link_messages() {
        messages = plane.link_messages();
        thread::sleep(2 * LATER);
        plane.refresh_links().unwrap();
    }
    let (mut most, mut started) = (Cost { messages: 0, transactions: 0 }, Vec::new());
    for n in count..count + STARTS {
        thread::sleep(LATER);
        let pod = node.add(n);
        let before = plane.link_messages();
        name(&mut plane, n, &pod);
        let mut delta = Delta::default();
        delta.local.added.extend(pod.addresses);
        let commit = plane.commit(&delta).unwrap();
        thread::sleep(LATER);
        let later = plane.refresh_links().unwrap().map_or(0, |commit| commit.transactions);
        assert_eq!(plane.unbound_ports(), BTreeMap::new());
        assert_eq!(plane.verify().unwrap().map(|found| found.differences), Some(Vec::new()));
        most.messages = most.messages.max(plane.link_messages() - before);
        most.transactions = most.transactions.max(commit.transactions + later);
        started.push(pod);
    }
    most
}

/// A pod's start is one transaction, and asks the kernel for what belongs to the pod, however many others there are.
fn starts(attachment: Attachment) {
    let [few, many] = [2, MANY].map(|count| {
        thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
            cost(attachment, count)
        })
        .join()
        .expect("the node")
    });
    println!("{attachment:?}: beside 2 pods {few:?}, beside {MANY} {many:?}");
    assert_eq!(many.transactions, 1, "a pod with its interface is one transaction: {many:?}");
    // Not the same number: the kernel may report several changes of an interface, such as its carrier and its state as a port, at once.
    assert!(
        many.messages <= 2 * few.messages,
        "the cost of a start follows the number of other pods: {many:?}, {few:?}"
    );
}
