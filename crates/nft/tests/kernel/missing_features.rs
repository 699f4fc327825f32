//! A kernel without a subsystem: the real one, with a transport that rejects the subsystem's messages.

use std::{collections::BTreeSet, collections::VecDeque, io, net::IpAddr};

use libtest_mimic::Trial;
use nix::libc::{EINVAL, ENOMEM, EOPNOTSUPP};
use palisade_nft::{
    Enforcer, EnforcerOptions, Error, Feature, Hook, Kernel, NetlinkSocket, NodeLinks, SourceCheck, Transport, conntrack,
    reader::{Arrival, Packet, Ruleset, State},
};
use palisade_policy::{
    Direction, NodePlan, PolicyTable, PolicyTableId, Protocol, Traffic, Verdict,
};

use crate::{
    sandbox::trial,
    scripted::{self, Fault},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("without_ctnetlink_rules_are_programmed_and_the_error_names_the_module", without_ctnetlink),
        trial("a_kernel_without_reject_drops_what_pods_refuse", without_reject),
        trial("without_the_bridge_family_hardware_addresses_on_bridges_identify_no_pod", without_bridge),
        trial("a_kernel_that_refuses_the_source_check_at_the_commit_enforces_the_rest", late_refusal),
    ]
}

/// `NFNL_SUBSYS_CTNETLINK`.
const CTNETLINK: u8 = 1;

struct Without {
    socket: NetlinkSocket,
    subsystem: u8,
    answers: VecDeque<Vec<u8>>,
}

fn without(subsystem: u8) -> Kernel {
    let socket = NetlinkSocket::open().unwrap();
    Kernel::with_transport(Box::new(Without { socket, subsystem, answers: VecDeque::new() })).unwrap()
}

impl Transport for Without {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if datagram[5] != self.subsystem {
            return self.socket.send(datagram);
        }
        // NLMSG_ERROR with the header of the request, as nfnetlink_rcv_msg sends it.
        let mut answer = vec![36, 0, 0, 0, 2, 0, 0, 1];
        answer.extend(&datagram[8..12]);
        answer.extend([0; 4]);
        answer.extend((-EINVAL).to_ne_bytes());
        answer.extend(&datagram[..16]);
        self.answers.push_back(answer);
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        match self.answers.pop_front() {
            Some(answer) => Ok(answer),
            None => self.socket.receive(wait),
        }
    }

    fn max_datagram(&self) -> usize {
        self.socket.max_datagram()
    }

    fn port(&self) -> u32 {
        self.socket.port()
    }
}

fn without_ctnetlink() {
    let (mut enforcer, _) = Enforcer::start(without(CTNETLINK), &NodePlan::default()).unwrap();
    let one: BTreeSet<_> = ["10.0.0.1".parse().unwrap()].into();
    let many: BTreeSet<_> = (1..=9).map(|n| [10, 0, 0, n].into()).collect();
    for error in [
        conntrack::list(enforcer.kernel(), &one).unwrap_err(),
        conntrack::list(enforcer.kernel(), &many).unwrap_err(),
        conntrack::list_revoked(enforcer.kernel()).unwrap_err(),
    ] {
        assert!(matches!(error, Error::NoConntrack(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("load nf_conntrack_netlink"), "{text}");
    }
}

/// A kernel without `reject` drops what pods refuse: no annotation keeps policies from being programmed.
fn without_reject() {
    let pod = [10, 0, 0, 1].into();
    let plan = NodePlan { local: [pod].into(), refusing: [pod].into(), ..NodePlan::default() };
    let (kernel, script) = scripted::kernel();
    script.lock().unwrap().faults.push_back(Some(Fault::Refused(3, nix::libc::ENOENT, "")));
    let (mut enforcer, _) = Enforcer::start(kernel, &plan).unwrap();
    assert_eq!(enforcer.missing_features().collect::<Vec<_>>(), [Feature::Refusals]);
    assert!(!enforcer.options().refusals);
    assert!(enforcer.verify().unwrap().agrees());
    enforcer.remove().unwrap();
}

/// Nothing keeps pods on a bridge from sending with each other's hardware address.
fn without_bridge() {
    const BRIDGE: u32 = 7;
    const ROUTED: u32 = 8;
    let (mac, isolated) = ([2, 0, 0, 0, 0, 1], IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]));
    let pod: BTreeSet<IpAddr> = [IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2])].into();
    let node_links = NodeLinks {
        pod_interfaces: [BRIDGE, ROUTED].into(),
        pod_bridges: [BRIDGE].into(),
        pod_ports: [80].into(),
        senders: [((BRIDGE, mac), pod.clone()), ((ROUTED, mac), pod)].into(),
        ..NodeLinks::default()
    };
    let mut plan = NodePlan::default();
    let (exact, ranges) = Default::default();
    let table = PolicyTable { direction: Direction::Egress, exact, ranges, rest: Traffic::none() };
    plan.tables.insert(PolicyTableId([1; 16]), table);
    plan.egress.insert(isolated, PolicyTableId([1; 16]));
    for missing in [false, true] {
        let (kernel, script) = scripted::kernel();
        let refused = missing.then_some(Fault::Refused(3, nix::libc::ENOENT, ""));
        script.lock().unwrap().faults.extend([None, None, refused]);
        let options = EnforcerOptions::default();
        let (mut enforcer, _) = Enforcer::start_in(kernel, options, node_links.clone(), &plan).unwrap();
        let features: Vec<_> = enforcer.missing_features().collect();
        assert_eq!(features, if missing { vec![Feature::Bridge] } else { Vec::new() });
        let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
        for (in_interface, passes) in [(BRIDGE, !missing), (ROUTED, true)] {
            let arrival = Arrival { in_interface, sender: mac, ..Arrival::default() };
            let [from, to] = [7, 1].map(|n| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, n]));
            let packet = Packet { hook: Hook::Input, arrival, ..Packet::new(from, to, Protocol::Udp, 53) };
            let verdict = ruleset.evaluate(&packet).unwrap().verdict;
            assert_eq!(verdict == Verdict::Allow, passes, "{in_interface}, bridge family missing: {missing}");
        }
        assert!(enforcer.verify().unwrap().agrees());
        enforcer.remove().unwrap();
    }
}

/// As Linux 5.10 does: the trial passes, and the transaction with the hook is refused.
fn late_refusal() {
    let refused = |number| Some(Fault::Refused(40, number, ""));
    let start = |faults: &[Option<Fault>]| {
        let (kernel, script) = scripted::kernel();
        script.lock().unwrap().faults.extend(faults.iter().cloned());
        Enforcer::start(kernel, &NodePlan::default())
    };
    let (mut enforcer, _) = start(&[None, None, refused(EOPNOTSUPP)]).unwrap();
    assert_eq!(enforcer.missing_features().collect::<Vec<_>>(), []);
    assert_eq!((enforcer.options().reverse_route, enforcer.options().early_reverse_route), (false, true));
    assert_eq!(enforcer.options().source_check, SourceCheck::Enforce);
    assert!(enforcer.verify().unwrap().agrees());
    checked_early(&mut enforcer);
    enforcer.remove().unwrap();
    // A kernel that refuses it everywhere enforces the rest.
    let (mut enforcer, _) = start(&[None, None, refused(EOPNOTSUPP), refused(EOPNOTSUPP)]).unwrap();
    assert_eq!(enforcer.missing_features().collect::<Vec<_>>(), [Feature::SourceCheck]);
    assert_eq!((enforcer.options().reverse_route, enforcer.options().early_reverse_route), (false, false));
    assert!(enforcer.verify().unwrap().agrees());
    enforcer.remove().unwrap();
    // Whatever else it refuses is reported.
    assert!(start(&[None, None, refused(ENOMEM)]).is_err());
    let third = [None, None, refused(EOPNOTSUPP), refused(EOPNOTSUPP), refused(EOPNOTSUPP)];
    assert!(start(&third).is_err());
}

/// All that the forward hook would check is checked in front of connection tracking: from interfaces of pods, and with the address of a
/// local pod from others.
fn checked_early(enforcer: &mut Enforcer) {
    let pod: IpAddr = [10, 0, 0, 1].into();
    let plan = NodePlan { local: [pod].into(), ..NodePlan::default() };
    enforcer.commit(&enforcer.programmed().delta_to(&plan)).unwrap();
    enforcer.set_node_links(&NodeLinks { pod_interfaces: [7].into(), ..NodeLinks::default() }).unwrap();
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    let forward = &ruleset.chains["from_pods"].rules;
    assert!(!forward.iter().flatten().any(|operation| operation.to_string().contains("fib")), "{forward:?}");
    for (in_interface, source, is_checked) in
        [(7, pod, true), (7, [10, 9, 9, 9].into(), true), (9, pod, true), (9, [10, 9, 9, 9].into(), false)]
    {
        for has_reverse_route in [true, false] {
            for state in [State::New, State::Established] {
                let arrival = Arrival { in_interface, has_reverse_route, ..Arrival::default() };
                let packet = Packet::new(source, [10, 0, 0, 2].into(), Protocol::Udp, 53);
                let packet = Packet { hook: Hook::Prerouting, arrival, state, ..packet };
                let passes = ruleset.evaluate(&packet).unwrap().verdict == Verdict::Allow;
                assert_eq!(passes, has_reverse_route || !is_checked, "{packet:?}");
            }
        }
    }
    assert_eq!(enforcer.verify().unwrap().differences, []);
}
