//! What happens to a DNS message of a pod. No sockets, and time is an argument.

mod segments;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use palisade_dns::{
    Answer, Asked, BadState, ConnectionLimits, Connections, Ends, ExchangeLimits, Exchanges, LearnLimits,
    Learnable, LearnedNames, NotLearnable, Patterns, Seconds, encode,
};
use palisade_nft::packet_queue::{Datagram, QueuedPacket, Segment};
use palisade_policy::{Change, ObjectKey};

/// The state that the threads share.
#[derive(Debug)]
pub(super) struct Core {
    exchanges: Exchanges,
    connections: Connections,
    learned: LearnedNames,
    patterns: Patterns,
    learnable: Learnable,
    /// The pods of this node that a rule with names selects, by address.
    pods: BTreeMap<IpAddr, ObjectKey>,
    /// Whether the rules are known and the kernel holds the plan.
    is_current: bool,
    /// Whether answers pass while it doesn't.
    is_open: bool,
    /// Changes that were handed to the worker and that it has not committed yet.
    in_flight: usize,
    /// Whether the names differ from those that were encoded last.
    is_unsaved: bool,
    pub(super) counts: MessageCounts,
}

/// A moment, of a clock that nothing sets while the process runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Since the process started.
    pub(super) milliseconds: u64,
    /// Since 1970, as the wall clock was when the process started.
    pub(super) seconds: Seconds,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It continues.
    Pass,
    /// It is dropped.
    Drop,
    /// It waits until these changes, and all before, are in the kernel.
    Hold(Vec<Change>),
    /// This packet continues in its place, which resets its TCP connection.
    Reset(Vec<u8>),
}

/// DNS messages that were counted since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Those that passed at once.
    pub passed: u64,
    /// Those that waited until addresses were committed.
    pub learned: u64,
    /// Those that were dropped.
    pub dropped: u64,
    /// Those that became a reset of their TCP connection.
    pub reset: u64,
    /// Answers that were not learned completely, because there are too many names or addresses.
    pub over_limit: u64,
    /// Messages beyond the share of their pod, which the kernel counts. They were not read.
    pub over_share: u64,
    /// The last address that was not learned.
    pub refused: Option<(IpAddr, NotLearnable)>,
}

impl Core {
    pub(super) fn new(learned: LearnedNames, is_open: bool) -> Self {
        Self {
            exchanges: Exchanges::new(ExchangeLimits::default(), []),
            connections: Connections::new(ConnectionLimits::default()),
            learned,
            patterns: Patterns::default(),
            learnable: Learnable::default(),
            pods: BTreeMap::new(),
            is_current: false,
            is_open,
            in_flight: 0,
            is_unsaved: false,
            counts: MessageCounts::default(),
        }
    }

    pub(super) fn limits() -> LearnLimits {
        LearnLimits::default()
    }

    /// Decides about a packet.
    pub(super) fn packet(&mut self, packet: &QueuedPacket, now: Moment) -> Fate {
        // Pods ask again. What they know would else be more than what the kernel allows.
        if !self.is_current && !self.is_open {
            self.counts.dropped += 1;
            return Fate::Drop;
        }
        let fate = match (Datagram::parse(&packet.bytes), Segment::parse(&packet.bytes)) {
            (Some(datagram), _) if packet.arrives => self.query(datagram, now),
            (Some(datagram), _) => self.answer(datagram, now),
            (None, Some(segment)) => self.segment(&segment, packet, now),
            (None, None) => Fate::Drop,
        };
        match &fate {
            Fate::Pass => self.counts.passed += 1,
            Fate::Drop => self.counts.dropped += 1,
            Fate::Reset(_) => self.counts.reset += 1,
            Fate::Hold(_) => {
                self.in_flight += 1;
                self.counts.learned += 1;
            }
        }
        fate
    }

    fn query(&mut self, query: Datagram<'_>, now: Moment) -> Fate {
        let Some(pod) = self.pods.get(&query.source.ip()).cloned() else { return Fate::Pass };
        let ends = Ends::udp(query.source, query.destination);
        match self.exchanges.ask(&pod, ends, query.payload, now.milliseconds) {
            Ok(()) => Fate::Pass,
            Err(_) => Fate::Drop,
        }
    }

    fn answer(&mut self, answer: Datagram<'_>, now: Moment) -> Fate {
        if !self.pods.contains_key(&answer.destination.ip()) {
            return Fate::Pass;
        }
        let ends = Ends::udp(answer.destination, answer.source);
        match self.exchanges.answer(ends, answer.payload, now.milliseconds) {
            Ok(Some((asked, answer))) if self.learn(&asked, &answer, now.seconds) => self.hold(),
            Ok(Some(_)) => Fate::Pass,
            Ok(None) | Err(_) => Fate::Drop,
        }
    }

    /// Learns from an answer. Returns whether it has to wait.
    fn learn(&mut self, asked: &Asked, answer: &Answer, now: Seconds) -> bool {
        let Some(name) = asked.query.name().filter(|name| self.patterns.matches(name)) else {
            return false;
        };
        let outcome =
            self.learned.learn(&name, &asked.pod, &answer.addresses, (&self.patterns, &self.learnable), now);
        self.counts.over_limit += u64::from(outcome.over_limit);
        self.counts.refused = outcome.refused.last().copied().or(self.counts.refused);
        self.is_unsaved |= !answer.addresses.is_empty();
        // Another answer may have had the same addresses, which are not in the kernel yet.
        outcome.over_limit || self.learned.has_changes() || self.in_flight > 0
    }

    /// Lets a packet wait until all that was learned is in the kernel.
    fn hold(&mut self) -> Fate {
        Fate::Hold(self.learned.take_changes())
    }

    /// Replaces the pods of this node that a rule with names selects, by address.
    pub(super) fn set_pods(&mut self, pods: BTreeMap<IpAddr, ObjectKey>) {
        let kept: BTreeSet<&ObjectKey> = pods.values().collect();
        let gone: Vec<&ObjectKey> = self.pods.values().filter(|pod| !kept.contains(pod)).collect();
        for pod in gone {
            self.exchanges.remove_pod(pod);
            self.connections.remove_pod(pod);
        }
        self.pods = pods;
    }

    /// Replaces the names of rules, what may be learned, and the trusted servers. Returns what is to be committed.
    pub(super) fn set_rules(
        &mut self,
        (patterns, learnable): (Patterns, Learnable),
        servers: &BTreeSet<SocketAddr>,
    ) -> Vec<Change> {
        if patterns != self.patterns {
            self.learned.retain(&patterns);
        }
        if learnable != self.learnable {
            // An address that a node or pod has now, or one from the state file that `dns-allow` no longer has.
            self.learned.retain_learnable(&learnable);
        }
        (self.patterns, self.learnable) = (patterns, learnable);
        self.exchanges.trust(servers.iter().copied());
        self.hand_over()
    }

    /// Replaces the trusted servers.
    pub(super) fn set_servers(&mut self, servers: &BTreeSet<SocketAddr>) {
        self.exchanges.trust(servers.iter().copied());
    }

    /// Notes whether a pod or a Service has an address, as far as it isn't private anyway. Returns what is to be committed.
    pub(super) fn set_pod_address(&mut self, address: IpAddr, is_of_pod: bool) -> Vec<Change> {
        if self.learnable.set(address, is_of_pod) && is_of_pod && self.learnable.check(address).is_err() {
            self.learned.remove_address(address);
        }
        self.hand_over()
    }

    #[cfg(test)]
    pub(super) fn may_learn(&self, address: IpAddr) -> bool {
        self.learnable.check(address).is_ok()
    }

    /// Returns all names, for a worker that knows none.
    pub(super) fn restored(&mut self) -> Vec<Change> {
        let changes = self.learned.all_changes();
        self.in_flight += usize::from(!changes.is_empty());
        changes
    }

    pub(super) fn expiring(&self, now: Seconds) -> BTreeSet<IpAddr> {
        self.learned.expiring(now)
    }

    /// Returns which of these connections' destinations pods use that a rule with names selects. Connections of others, such as the
    /// node's own, keep nothing allowed. `O(connections)`.
    pub(super) fn used(&self, connections: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> BTreeSet<IpAddr> {
        let of_pods = connections.into_iter().filter(|(source, _)| self.pods.contains_key(source));
        of_pods.map(|(_, destination)| destination).collect()
    }

    /// Removes addresses whose time is over. Returns what is to be committed.
    pub(super) fn expire(&mut self, now: Moment, is_in_use: impl Fn(IpAddr) -> bool) -> Vec<Change> {
        self.exchanges.expire(now.milliseconds);
        self.connections.expire(now.milliseconds);
        self.exchanges.forget_idle_pods(now.milliseconds);
        self.learned.expire(now.seconds, is_in_use);
        self.hand_over()
    }

    fn hand_over(&mut self) -> Vec<Change> {
        let changes = self.learned.take_changes();
        self.in_flight += usize::from(!changes.is_empty());
        self.is_unsaved |= !changes.is_empty();
        changes
    }

    /// So many changes that were handed over are committed, or were refused.
    pub(super) fn settle(&mut self, changes: usize, is_current: bool) {
        self.in_flight = self.in_flight.saturating_sub(changes);
        self.is_current = is_current;
    }

    /// A packet that waited is released, or with `committed` false dropped.
    pub(super) fn release(&mut self, packet: u32, committed: bool) {
        self.connections.release(packet, committed);
    }

    /// Returns the names as a file, if they have changed since the last call. `ahead`: by how many seconds the wall clock is ahead.
    pub(super) fn unsaved(&mut self, ahead: i64) -> Option<Result<Vec<u8>, BadState>> {
        std::mem::take(&mut self.is_unsaved).then(|| encode(&self.learned, ahead))
    }

    /// The names were not saved.
    pub(super) fn keep_unsaved(&mut self) {
        self.is_unsaved = true;
    }

    /// The numbers of names and addresses.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.learned.names(), self.learned.addresses())
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{DomainName, DomainPattern};

    use super::*;

    const POD: &str = "10.244.7.2:4000";
    const SERVER: &str = "10.96.0.10:53";

    fn core() -> Core {
        core_with(false)
    }

    fn core_with(is_open: bool) -> Core {
        let mut core = Core::new(LearnedNames::new(Core::limits()), is_open);
        let pod = ObjectKey::new("shop", "web");
        core.set_pods([("10.244.7.2".parse().unwrap(), pod)].into());
        let name = DomainName::new("a.io").unwrap();
        let patterns: Patterns =
            name.patterns().take(1).collect::<Vec<DomainPattern>>().into_iter().collect();
        core.set_rules((patterns, Learnable::default()), &[SERVER.parse().unwrap()].into());
        core.settle(0, true);
        core
    }

    /// A query for an address of `a.io`, or with `address` the answer.
    fn message(id: u8, address: Option<[u8; 4]>) -> Vec<u8> {
        let (flags, answers) = if address.is_some() { ([0x81, 0x80], 1) } else { ([1, 0], 0) };
        let mut out = vec![0, id, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0];
        out.extend([1, b'a', 2, b'i', b'o', 0, 0, 1, 0, 1]);
        if let Some(address) = address {
            out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            out.extend(address);
        }
        out
    }

    fn packet(from: &str, to: &str, arrives: bool, payload: &[u8]) -> QueuedPacket {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { unreachable!() };
        let mut bytes = vec![0x45, 0];
        bytes.extend((28 + payload.len() as u16).to_be_bytes());
        bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        bytes.extend([source.octets(), destination.octets()].concat());
        bytes.extend([from.port(), to.port(), 8 + payload.len() as u16, 0].map(u16::to_be_bytes).concat());
        bytes.extend(payload);
        QueuedPacket { id: 7, arrives, bytes }
    }

    const NOW: Moment = Moment { milliseconds: 5, seconds: 1000 };

    fn ask(core: &mut Core, id: u8) -> Fate {
        core.packet(&packet(POD, SERVER, true, &message(id, None)), NOW)
    }

    fn hear(core: &mut Core, id: u8, address: [u8; 4]) -> Fate {
        core.packet(&packet(SERVER, POD, false, &message(id, Some(address))), NOW)
    }

    #[test]
    fn an_answer_waits_until_what_it_and_others_before_taught_is_committed() {
        let mut core = core();
        for id in 1..=4 {
            assert_eq!(ask(&mut core, id), Fate::Pass);
        }
        let Fate::Hold(changes) = hear(&mut core, 1, [198, 51, 100, 1]) else { panic!("new") };
        assert!(matches!(&changes[..], [Change::SetLearned(l)] if l.addresses.len() == 1));
        assert_eq!(hear(&mut core, 2, [198, 51, 100, 1]), Fate::Hold(Vec::new()), "not committed yet");
        core.settle(2, true);
        assert_eq!(hear(&mut core, 3, [198, 51, 100, 1]), Fate::Pass, "known and committed");
        core.settle(0, false);
        assert_eq!(hear(&mut core, 4, [198, 51, 100, 1]), Fate::Drop, "the kernel doesn't hold the plan");
    }

    #[test]
    fn an_answer_is_not_dropped_for_the_sake_of_the_plan_if_dns_fails_open() {
        let mut core = core_with(true);
        core.settle(0, false);
        ask(&mut core, 1);
        assert!(matches!(hear(&mut core, 1, [198, 51, 100, 1]), Fate::Hold(_)));
        assert_eq!(hear(&mut core, 1, [198, 51, 100, 1]), Fate::Drop, "nobody asked for it");
    }

    #[test]
    fn what_nobody_asked_for_is_dropped_and_private_addresses_are_not_learned() {
        let mut core = core();
        assert_eq!(hear(&mut core, 1, [198, 51, 100, 1]), Fate::Drop);
        ask(&mut core, 1);
        assert_eq!(hear(&mut core, 1, [10, 0, 0, 1]), Fate::Pass);
        assert_eq!((core.size(), core.counts.refused.is_some()), ((0, 0), true));
        assert_eq!(core.packet(&QueuedPacket { id: 1, arrives: true, bytes: vec![0x45] }, NOW), Fate::Drop);
    }

    /// Otherwise the node's own connections would keep addresses allowed for pods.
    #[test]
    fn only_connections_of_pods_that_a_rule_with_names_selects_use_an_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let connections = [
            ("10.244.7.2", "198.51.100.1"),
            ("10.244.7.3", "198.51.100.2"),
            ("192.0.2.7", "198.51.100.3"),
            ("198.51.100.4", "10.244.7.2"),
        ];
        let used = core().used(connections.map(|(source, destination)| (ip(source), ip(destination))));
        assert_eq!(used, [ip("198.51.100.1")].into());
    }

    #[test]
    fn names_go_when_they_expire_unless_they_are_in_use_and_when_no_rule_has_them() {
        let mut core = core();
        ask(&mut core, 1);
        hear(&mut core, 1, [198, 51, 100, 1]);
        core.settle(1, true);
        let later = Moment { seconds: NOW.seconds + 36, ..NOW };
        assert_eq!(core.expiring(later.seconds).len(), 1);
        assert_eq!(core.expire(later, |_| true), []);
        assert_eq!(core.size(), (1, 1));
        let changes = core.set_rules((Patterns::default(), Learnable::default()), &BTreeSet::new());
        assert!(matches!(&changes[..], [Change::RemoveLearned(_)]), "{changes:?}");
        assert_eq!(core.in_flight, 1);
    }
}
