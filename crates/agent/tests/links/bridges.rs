//! The options of bridges that lead to pods: set, set again, and reported.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use libtest_mimic::Trial;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        BridgeBooleanOptionFlags, BridgeBooleanOptions, InfoBridge, InfoData, InfoKind, LinkAttribute,
        LinkInfo, LinkMessage,
    },
};
use palisade_agent::{DataPlane as _, NftDataPlane};
use palisade_policy::{NodePlan, ObjectKey};

use crate::{
    node::{Attachment, BRIDGE, Node, Place, Pod},
    trial,
};

/// More than the interval in which an agent reads links that have changed.
const LATER: Duration = Duration::from_millis(1100);

const SETTINGS: [&str; 2] =
    ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];

pub(crate) fn trials() -> Vec<Trial> {
    [
        trial("bridges_do_not_learn_from_frames_that_no_rule_sees", learning),
        trial("bridges_that_bypass_netfilter_are_reported", bypassing),
    ]
    .into()
}

fn start() -> (Node, Pod, NftDataPlane) {
    let mut node = Node::new(Attachment::Bridged);
    let mut plane = NftDataPlane::open().unwrap();
    let pod = node.add(0);
    let key = ObjectKey::new("x", "p0");
    plane.name_local(
        &pod.addresses.map(|address| (address, key.clone())).into_iter().collect::<BTreeMap<_, _>>(),
    );
    plane.start(&NodePlan { local: pod.addresses.into(), ..NodePlan::default() }).unwrap();
    (node, pod, plane)
}

fn set(option: InfoBridge) {
    let mut message = LinkMessage::default();
    message.header.index = BRIDGE;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![option])),
    ]));
    assert!(Place::here().request(RouteNetlinkMessage::NewLink(message), 0));
}

/// Whether the bridge learns from frames to reserved groups, as sysfs doesn't say.
fn learns() -> bool {
    let no_learning = BridgeBooleanOptionFlags::NoLinkLocalLearn;
    let options = crate::node::link(BRIDGE).attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => info.into_iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Bridge(options)) => {
                options.into_iter().find_map(|option| match option {
                    InfoBridge::MultiBoolOpt(BridgeBooleanOptions { value, .. }) => Some(value),
                    _ => None,
                })
            }
            _ => None,
        }),
        _ => None,
    });
    !options.expect("the bridge's options").contains(no_learning)
}

fn learning() {
    let (_node, _pod, mut plane) = start();
    assert!(!learns(), "after the start");
    let all = BridgeBooleanOptionFlags::NoLinkLocalLearn;
    set(InfoBridge::MultiBoolOpt(BridgeBooleanOptions {
        value: BridgeBooleanOptionFlags::empty(),
        mask: all,
    }));
    assert!(learns(), "another program has reset it");
    thread::sleep(LATER);
    plane.refresh_links().unwrap();
    assert!(!learns(), "after the change");
    assert_eq!(plane.bridge_problems()[1], Vec::<String>::new());
}

fn bypassing() {
    let (_node, _pod, mut plane) = start();
    let write = |value: [&str; 2]| {
        SETTINGS.iter().zip(value).for_each(|(path, value)| fs::write(path, value).unwrap());
    };
    for (value, is_reported) in
        [(["1", "1"], false), (["0", "1"], true), (["1", "0"], true), (["1", "1"], false)]
    {
        write(value);
        assert_eq!(!plane.bridge_problems()[0].is_empty(), is_reported, "{value:?}");
    }
    // The bridge's own option stands in for the setting.
    write(["0", "1"]);
    set(InfoBridge::NfCallIpTables(true));
    thread::sleep(LATER);
    plane.refresh_links().unwrap();
    assert_eq!(plane.bridge_problems()[0], Vec::<String>::new());
}
