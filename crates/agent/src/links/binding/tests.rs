use super::*;

/// What is configured in namespaces, and how often it was read.
#[derive(Default)]
struct Node {
    namespaces: BTreeMap<i32, BTreeSet<IpAddr>>,
    hardware: BTreeMap<u32, Mac>,
    reads: usize,
}

impl Namespaces for Node {
    fn addresses(&mut self, namespace: i32) -> Option<BTreeSet<IpAddr>> {
        self.reads += 1;
        self.namespaces.get(&namespace).cloned()
    }

    fn hardware(&mut self, port: &Port) -> Option<Mac> {
        self.hardware.get(&port.index).copied()
    }
}

fn addresses(of: &[&str]) -> BTreeSet<IpAddr> {
    of.iter().map(|a| a.parse().unwrap()).collect()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("x", name)
}

fn mac(n: u8) -> Mac {
    [2, 0, 0, 0, 0, n]
}

/// Port 10 leads to namespace 1, port 20 to namespace 2, and so on.
fn port(namespace: i32) -> Port {
    let index = u32::try_from(namespace).unwrap() * 10;
    Port { index, namespace, peer: 2 }
}

/// A node with a port for each namespace, which has these addresses.
fn node(namespaces: &[&[&str]]) -> (Node, Vec<Port>) {
    let mut node = Node::default();
    let mut ports = Vec::new();
    for (n, of) in (1..).zip(namespaces) {
        node.namespaces.insert(n, addresses(of));
        ports.push(port(n));
        node.hardware.insert(port(n).index, mac(u8::try_from(n).unwrap()));
    }
    (node, ports)
}

const V: &[&str] = &["10.0.0.1", "fd00::1"];
const H: &[&str] = &["10.0.0.2", "fd00::2"];

fn pods() -> Pods {
    [(key("v"), addresses(V)), (key("h"), addresses(H))].into()
}

fn bound(bindings: &Bindings, ports: &[Port]) -> Vec<Option<String>> {
    ports.iter().map(|port| bindings.pod(port.index).map(|pod| pod.name.to_string())).collect()
}

fn of(names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| Some((*name).to_owned()).filter(|name| !name.is_empty())).collect()
}

#[test]
fn each_port_leads_to_the_pod_whose_addresses_are_behind_it() {
    let (mut node, ports) = node(&[&["127.0.0.1", "10.0.0.1", "fd00::1", "fe80::1"], H, &["192.0.2.1"]]);
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", "h", ""]));
    let owners = bindings.owners();
    assert_eq!(owners[&10], PortOwner { addresses: addresses(V), hardware: Some(mac(1)) });
    // Nothing but the unbound port is read again.
    node.reads = 0;
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(node.reads, 1);
    assert_eq!(bindings.owners(), owners);
}

#[test]
fn an_address_that_a_pod_takes_later_is_not_its_own() {
    let (mut node, ports) = node(&[V, H]);
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    node.namespaces.insert(2, addresses(&["10.0.0.1", "fd00::1"]));
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", "h"]));
}

#[test]
fn a_pod_that_has_anothers_address_beside_its_own_gains_nothing() {
    for taken in [&["10.0.0.2", "10.0.0.1", "fd00::1"][..], &["fd00::2", "fd00::1"]] {
        // As an agent that starts finds them.
        let (mut node, ports) = node(&[V, taken]);
        let mut bindings = Bindings::default();
        bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
        assert_eq!(bound(&bindings, &ports), of(&["v", "h"]), "{taken:?}");
        assert_eq!(bindings.owners()[&20].addresses, addresses(H));
    }
    // Before the other pod is there.
    let (mut node, ports) = node(&[V, &["10.0.0.2", "10.0.0.1"]]);
    let mut bindings = Bindings::default();
    let only_h: Pods = [(key("h"), addresses(H))].into();
    bindings.update(&ports[1..], &only_h, &BTreeMap::new(), &mut node);
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", "h"]));
}

#[test]
fn two_ports_with_nothing_but_the_same_address_are_unbound_until_the_runtime_names_them() {
    let (mut node, ports) = node(&[V, &["10.0.0.1"], &["10.0.0.1", "10.0.0.2"]]);
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["", "", "h"]));
    let named = [(1, (key("v"), addresses(V)))].into();
    bindings.update(&ports, &pods(), &named, &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", "", "h"]));
}

#[test]
fn what_the_runtime_says_counts_more_than_what_was_found() {
    // The pod with the address of another was alone at first.
    let (mut node, ports) = node(&[V, &["10.0.0.1"]]);
    let mut bindings = Bindings::default();
    bindings.update(&ports[1..], &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["", "v"]));
    let named = [(1, (key("v"), addresses(V)))].into();
    bindings.update(&ports, &pods(), &named, &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", ""]));
    // Its configuration doesn't matter.
    node.namespaces.insert(1, addresses(H));
    bindings.update(&ports, &pods(), &named, &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", ""]));
}

#[test]
fn a_port_is_bound_again_when_its_namespace_or_the_pods_addresses_change() {
    let (mut node, ports) = node(&[V, H]);
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    // Another pod with the same name and another sandbox, while the old port is still there.
    node.namespaces.insert(3, addresses(&["10.0.0.3"]));
    let ports = [&ports[..], &[port(3)]].concat();
    let mut renewed = pods();
    renewed.insert(key("v"), addresses(&["10.0.0.3"]));
    bindings.update(&ports, &renewed, &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["", "h", "v"]));
    // A port that disappears, and another with its index.
    let moved = [Port { namespace: 2, ..port(3) }];
    bindings.update(&moved, &renewed, &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &moved), of(&["h"]));
}

#[test]
fn two_ports_of_one_namespace_are_the_same_pods() {
    let (mut node, ports) = node(&[V]);
    let second = Port { index: 11, ..port(1) };
    node.hardware.insert(11, mac(11));
    let ports = [&ports[..], &[second]].concat();
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["v", "v"]));
}

#[test]
fn a_hardware_address_stays_with_the_port_that_had_it_first() {
    let (mut node, ports) = node(&[V, H]);
    let mut bindings = Bindings::default();
    bindings.update(&ports[..1], &pods(), &BTreeMap::new(), &mut node);
    node.hardware.insert(20, mac(1));
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    let owners = bindings.owners();
    assert_eq!((owners[&10].hardware, owners[&20].hardware), (Some(mac(1)), None));
    // Two ports with the same address at once: neither gets it.
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert!(bindings.owners().values().all(|owner| owner.hardware.is_none()));
    node.hardware.insert(20, mac(2));
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert!(bindings.owners().values().all(|owner| owner.hardware.is_some()));
}

#[test]
fn a_namespace_that_cannot_be_read_leaves_its_port_unbound() {
    let (mut node, ports) = node(&[V, H]);
    node.namespaces.remove(&1);
    let mut bindings = Bindings::default();
    bindings.update(&ports, &pods(), &BTreeMap::new(), &mut node);
    assert_eq!(bound(&bindings, &ports), of(&["", "h"]));
}
