use proptest::prelude::*;

use super::*;

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.resize(HEADER, 0);
    out.extend(body);
    out
}

fn link(kind: u16, family: i32, flags: u32) -> Vec<u8> {
    let mut body = vec![u8::try_from(family).unwrap(), 0, 0, 0];
    body.extend(7_u32.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend([0; 4]);
    message(kind, &body)
}

fn attributes(mut head: Vec<u8>, of: &[(u16, &[u8])]) -> Vec<u8> {
    for (kind, content) in of {
        head.extend(u16::try_from(4 + content.len()).unwrap().to_ne_bytes());
        head.extend(kind.to_ne_bytes());
        head.extend(*content);
        head.resize(head.len().next_multiple_of(4), 0);
    }
    head
}

fn route(kind: u16, family: i32, [length, of_source]: [u8; 2], of: &[(u16, &[u8])]) -> Option<Hint> {
    let mut head = vec![u8::try_from(family).unwrap(), length, of_source];
    head.resize(12, 0);
    Hint::of(&message(kind, &attributes(head, of)))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn a_port_that_leaves_a_bridge_is_not_gone() {
    let up = IFF_UP.cast_unsigned();
    let hint = |was_down, was_gone| Some(Hint::Link { index: 7, was_down, was_gone });
    assert_eq!(Hint::of(&link(RTM_NEWLINK, 0, up)), hint(false, false));
    assert_eq!(Hint::of(&link(RTM_NEWLINK, 0, 0)), hint(true, false));
    assert_eq!(Hint::of(&link(RTM_DELLINK, 0, up)), hint(true, true));
    assert_eq!(Hint::of(&link(RTM_DELLINK, AF_BRIDGE, up)), hint(false, false));
}

#[test]
fn routes_and_rules_hint_at_their_destination() {
    let table = (15, &[254, 0, 0, 0][..]);
    let found = route(RTM_DELROUTE, AF_INET, [24, 0], &[table, (DESTINATION, &[10, 1, 2, 0])]);
    assert_eq!(found, Some(Hint::Routes(net("10.1.2.0/24"))));
    let address: IpAddr = "fd00:1::".parse().unwrap();
    let IpAddr::V6(v6) = address else { unreachable!("an IPv6 address") };
    let found = route(RTM_NEWRULE, AF_INET6, [64, 0], &[(DESTINATION, &v6.octets())]);
    assert_eq!(found, Some(Hint::Routes(net("fd00:1::/64"))));
    assert_eq!(route(RTM_NEWROUTE, AF_INET, [0, 0], &[table]), Some(Hint::Routes(net("0.0.0.0/0"))));
    // Without its destination, or one of this family, it may be any.
    assert_eq!(route(RTM_NEWROUTE, AF_INET6, [64, 0], &[]), Some(Hint::Routes(net("::/0"))));
    let other = [(DESTINATION, &[10, 1, 2, 0][..])];
    assert_eq!(route(RTM_NEWROUTE, AF_INET6, [24, 0], &other), Some(Hint::Routes(net("::/0"))));
    assert_eq!(route(RTM_NEWRULE, AF_INET, [0, 32], &[]), None, "for one source only");
}

#[test]
fn a_removed_address_is_the_interfaces_own() {
    let mut head = vec![u8::try_from(AF_INET).unwrap(), 32, 0, 0];
    head.extend(7_u32.to_ne_bytes());
    let of = [(ADDRESS, &[10, 0, 0, 1][..]), (LOCAL, &[10, 0, 0, 2][..])];
    let body = attributes(head, &of);
    let hint = |removed| Some(Hint::Addresses { index: 7, removed });
    assert_eq!(Hint::of(&message(RTM_DELADDR, &body)), hint(Some(IpAddr::from([10, 0, 0, 2]))));
    assert_eq!(Hint::of(&message(RTM_NEWADDR, &body)), hint(None));
}

#[test]
fn a_filter_passes_over_all_devices_to_the_end_that_it_means() {
    for count in [1, 2, 200, 201] {
        let devices: BTreeSet<u32> = (300..300 + count).collect();
        let filter = of_devices(&devices);
        let accepts = |family: u8, index: u32| {
            let mut bytes = message(RTM_NEWNEIGH, &[family, 0, 0, 0]);
            bytes.extend(index.to_ne_bytes());
            run(&filter, &bytes)
        };
        let bridge = u8::try_from(AF_BRIDGE).unwrap();
        assert!(devices.iter().all(|index| accepts(bridge, *index)));
        assert!(!accepts(u8::try_from(AF_INET).unwrap(), 300));
        assert_eq!(accepts(bridge, 299), count > 200);
        assert_eq!(accepts(bridge, 300 + count), count > 200);
    }
}

/// Runs a filter as the kernel does.
fn run(filter: &[sock_filter], bytes: &[u8]) -> bool {
    let (mut at, mut value) = (0, 0);
    loop {
        let one = filter[at];
        at += 1;
        let k = one.k as usize;
        match u32::from(one.code) {
            code if code == BPF_LD | BPF_B | BPF_ABS => value = u32::from(bytes[k]),
            code if code == BPF_LD | BPF_W | BPF_ABS => value = u32::from_be_bytes(array(bytes, k).unwrap()),
            code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                at += usize::from(if value == one.k { one.jt } else { one.jf });
            }
            _ => return one.k != 0,
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        hints(&bytes, Hint::Everything, &mut |_| {});
    }

    #[test]
    fn any_body_is_read(kind in 16_u16..40, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        hints(&message(kind, &bytes), Hint::Everything, &mut |_| {});
    }
}
