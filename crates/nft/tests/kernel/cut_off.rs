//! The cut-off table, if the agent can't use its own table: real packets over the loopback device.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener},
    time::Duration,
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, EnforcerOptions, Kernel,
    cut_off::{CUT_OFF_TABLE, add, cut_off, remove},
    watchpoint::Watchpoint,
};
use palisade_policy::{Direction, NodePlan};

use crate::{
    revocation::{address_on_loopback, dial, loopback_up},
    sandbox::{trial, trial_with_nft},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pods_are_cut_off_if_another_program_owns_the_table", owned_by_another),
        trial_with_nft("each_cut_off_replaces_the_previous_one", replaced),
        trial_with_nft("addresses_are_added_to_what_is_cut_off", extended),
    ]
}

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

fn cut(directions: &[Direction], addresses: &[IpAddr]) -> BTreeSet<(Direction, IpAddr)> {
    directions.iter().flat_map(|d| addresses.iter().map(|a| (*d, *a))).collect()
}

fn owned_by_another() {
    loopback_up();
    for address in ["fd00::1", "fd00::2"] {
        address_on_loopback(address.parse().unwrap());
    }
    let taken = Watchpoint::open("palisade", &[]).unwrap();
    Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap_err();

    let mut kernel = Kernel::open().unwrap();
    for (pod, peer) in [("127.0.0.2", "127.0.0.3"), ("fd00::1", "fd00::2")] {
        let (pod, peer): (IpAddr, IpAddr) = (pod.parse().unwrap(), peer.parse().unwrap());
        let listener = TcpListener::bind((peer, 0)).unwrap();
        let to: SocketAddr = listener.local_addr().unwrap();
        let mut open = dial(pod, to, LONG).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_read_timeout(Some(SHORT)).unwrap();

        cut_off(&mut kernel, &EnforcerOptions::default(), &cut(&[Direction::Egress], &[pod])).unwrap();
        dial(pod, to, SHORT).unwrap_err();
        // Established connections are cut off too, because these rules don't use connection tracking.
        open.write_all(b"x").unwrap();
        std::io::Read::read(&mut &accepted, &mut [0]).unwrap_err();
        dial(peer, to, LONG).unwrap();

        assert!(remove(&mut kernel).unwrap());
        dial(pod, to, LONG).unwrap();
    }
    drop(taken);
}

fn extended() {
    let mut kernel = Kernel::open().unwrap();
    let options = EnforcerOptions::default();
    let pods: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "fd00::7"].map(|text| text.parse().unwrap());
    add(&mut kernel, &options, &BTreeSet::new()).unwrap();
    assert!(!crate::listing::list().contains(CUT_OFF_TABLE), "nothing to cut off");
    add(&mut kernel, &options, &cut(&Direction::BOTH, &pods[..1])).unwrap();
    let rules = crate::listing::list().matches(" drop").count();
    // Again, and with others: as another run of the agent would.
    add(&mut Kernel::open().unwrap(), &options, &cut(&Direction::BOTH, &pods)).unwrap();
    let listing = crate::listing::list();
    for pod in pods {
        assert_eq!(listing.matches(&format!("{pod}")).count(), 2, "{pod} in {listing}");
    }
    assert_eq!(listing.matches(" drop").count(), rules, "{listing}");
    assert!(remove(&mut kernel).unwrap());
}

fn replaced() {
    let mut kernel = Kernel::open().unwrap();
    assert!(!remove(&mut kernel).unwrap());
    let options = EnforcerOptions { egress_to_own_node: false, ..EnforcerOptions::default() };
    // More than fits one message.
    let many: Vec<IpAddr> = (0..1500u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).into()).collect();
    cut_off(&mut kernel, &options, &cut(&Direction::BOTH, &many)).unwrap();
    let listing = crate::listing::list();
    assert!(listing.contains("10.0.5.219") && !listing.contains("hook input"), "{listing}");
    cut_off(
        &mut kernel,
        &EnforcerOptions::default(),
        &cut(&[Direction::Ingress], &["fd00::7".parse().unwrap()]),
    )
    .unwrap();
    let listing = crate::listing::list();
    for expected in [
        CUT_OFF_TABLE,
        "hook input",
        "elements = { fd00::7 }",
        "ip6 saddr @egress6 counter packets 0 bytes 0 drop",
        "ip daddr @ingress4 counter packets 0 bytes 0 drop",
    ] {
        assert!(listing.contains(expected), "no {expected:?} in {listing}");
    }
    assert!(!listing.contains("10.0.5.219"), "{listing}");
    // An agent that removes its table removes this one too.
    palisade_nft::remove(&mut kernel).unwrap();
    assert_eq!(crate::listing::list(), "");
}
