//! A routed pod, a pod behind a bridge, their node, and an outside.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use palisade_netns::{
    Namespace,
    namespace::set_sysctls,
    rtnetlink::{LinkEnd, Netlink, Route},
};

use crate::ip;

/// A Service's address is translated as kube-proxy does.
const SERVICE: &str = "table ip services {
    chain prerouting {
        type nat hook prerouting priority dstnat
        ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 53 dnat to 203.0.113.2
    }
}";

pub(crate) struct Nodes {
    /// The namespace of this process when it began.
    pub(crate) node: Namespace,
    pub(crate) pod: Namespace,
    pub(crate) bridged: Namespace,
    pub(crate) outside: Namespace,
}

/// The address of the server with a number.
pub(crate) fn server(family: usize, number: usize) -> IpAddr {
    match family {
        0 => Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 64, 0)) + number as u32).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, number as u16 + 1).into(),
    }
}

/// Connects the pods and the outside to this namespace, the node. There are some more servers than lookups.
pub(crate) fn build(lookups: usize) -> Nodes {
    set_sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]).unwrap();
    let mut node = Netlink::open().unwrap();
    let (pod, mut in_pod) = Namespace::create(|| Netlink::open().unwrap()).unwrap();
    let (bridged, mut in_bridged) = Namespace::create(|| Netlink::open().unwrap()).unwrap();
    let (outside, mut outside_links) = Namespace::create(|| Netlink::open().unwrap()).unwrap();
    let end =
        |name: &str, index: u32| LinkEnd { name: name.into(), index, mac: [2, 0, 0, 0, 0, index as u8] };
    node.bridge(&end("cni0", 30));
    node.veth(&end("pod", 10), &end("eth0", 11), &pod);
    node.veth(&end("out", 20), &end("eth0", 21), &outside);
    node.veth(&end("port", 31), &end("eth0", 32), &bridged);
    node.bridge_port(31, 30, false).link_up(30).link_up(31);
    node.commit().unwrap();
    let via = |to: (&str, u8), via: &str, link| Route {
        to: (ip(to.0), to.1),
        via: Some(ip(via)),
        link,
        source: None,
    };
    for (link, own, other) in [
        (10, "10.244.7.1", "10.244.7.2"),
        (20, "203.0.113.1", "203.0.113.2"),
        (30, "10.244.8.1", "10.244.8.2"),
        (10, "fd00:7::1", "fd00:7::2"),
        (20, "2001:db8::1", "2001:db8::2"),
        (30, "fd00:8::1", "fd00:8::2"),
    ] {
        node.address(link, ip(own), false).route(&Route::to_host(ip(other), link));
    }
    // The address of a DNS cache on the node.
    node.link_up(1).address(1, ip("169.254.20.10"), false).commit().unwrap();
    node.route(&via(("203.0.64.0", 18), "203.0.113.2", 20));
    node.route(&via(("2001:db8:5::", 64), "2001:db8::2", 20));
    node.commit().unwrap();

    let sides = [
        (&mut in_pod, 11, ["10.244.7.2", "fd00:7::2"], ["10.244.7.1", "fd00:7::1"]),
        (&mut in_bridged, 32, ["10.244.8.2", "fd00:8::2"], ["10.244.8.1", "fd00:8::1"]),
        (&mut outside_links, 21, ["203.0.113.2", "2001:db8::2"], ["203.0.113.1", "2001:db8::1"]),
    ];
    for (links, link, own, gateway) in sides {
        links.link_up(1).link_up(link);
        for (own, gateway) in own.into_iter().zip(gateway) {
            let all = if own.contains(':') { "::" } else { "0.0.0.0" };
            links.address(link, ip(own), false).route(&Route::to_host(ip(gateway), link));
            links.route(&via((all, 0), gateway, link));
        }
        links.commit().unwrap();
    }
    for number in 0..lookups + 100 {
        outside_links.address(1, server(0, number), false).address(1, server(1, number), false);
    }
    outside_links.commit().unwrap();
    translate();
    Nodes { node: Namespace::current().unwrap(), pod, bridged, outside }
}

/// Adds the Service to this namespace.
fn translate() {
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("the nft program");
    nft.stdin.take().unwrap().write_all(SERVICE.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}
