//! The rules of one direction of a policy: one for each set of ports, with all peers that have it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Action, Direction, DomainName, DomainPattern, Peer, PeerEntry, PortEntry, PortMatch, Rule,
};

use super::{
    LimitHit, MAX_PEERS, MAX_PORTS, SeenConnection, SeenEnd, SuggestLimit,
    blocks::{ClusterRanges, blocks},
    demand::{WantedPeer, WantedPeers, WantedPorts},
    groups::{Groups, PodGroup},
    ports::port_list,
};

/// What rules are made from.
pub(super) struct RuleMaker<'a> {
    pub(super) groups: &'a Groups<'a>,
    pub(super) ranges: ClusterRanges,
    pub(super) limits: Vec<LimitHit>,
}

/// Rules, and what each stands for.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) rules: Vec<Rule>,
    pub(super) seen: Vec<Vec<SeenConnection>>,
}

/// The ports of a rule; `None`: all, and protocols without ports.
type Ports = Option<Vec<PortMatch>>;
/// The peers of each set of ports, and what each stands for.
type Drafts = BTreeMap<Ports, BTreeMap<Peer, Vec<SeenConnection>>>;

impl RuleMaker<'_> {
    /// Returns the rules for what a subject needs in one direction.
    pub(super) fn rules(&mut self, subject: &PodGroup, direction: Direction, wanted: &WantedPeers) -> Rules {
        let mut drafts = Drafts::new();
        let mut addresses: BTreeMap<Ports, BTreeMap<IpAddr, Vec<SeenConnection>>> = BTreeMap::new();
        for (peer, ports) in wanted {
            let destination = match (direction, peer) {
                (Direction::Ingress, _) => Some(subject),
                (Direction::Egress, WantedPeer::Pods(group)) => Some(group),
                (Direction::Egress, WantedPeer::Address(_) | WantedPeer::Host(_)) => None,
            };
            let list = port_list(self.groups, destination, ports);
            let seen = connections(ports);
            let number = list.as_ref().map_or(0, Vec::len);
            if number > MAX_PORTS {
                let other = seen.first().map(|seen| other_end(seen, direction).clone());
                let limit = other.map_or(SuggestLimit::Peers, SuggestLimit::Ports);
                self.hit(subject, direction, limit, number);
                continue;
            }
            match peer {
                WantedPeer::Pods(group) => {
                    let peer = self.groups.peer(group, subject.namespace());
                    drafts.entry(list).or_default().entry(peer).or_default().extend(seen);
                }
                WantedPeer::Address(address) => {
                    addresses.entry(list).or_default().insert(*address, seen);
                }
                WantedPeer::Host(name) => {
                    drafts.entry(list).or_default().entry(named_peer(name)).or_default().extend(seen);
                }
            }
        }
        self.add_blocks(addresses, &mut drafts);
        self.limit_peers(subject, direction, &mut drafts);
        finished(drafts)
    }

    fn add_blocks(
        &self,
        addresses: BTreeMap<Ports, BTreeMap<IpAddr, Vec<SeenConnection>>>,
        drafts: &mut Drafts,
    ) {
        for (list, mut seen) in addresses {
            let of: BTreeSet<IpAddr> = seen.keys().copied().collect();
            for (block, addresses) in blocks(&of, &self.ranges) {
                let own = addresses.iter().filter_map(|address| seen.remove(address)).flatten();
                drafts.entry(list.clone()).or_default().entry(Peer::Block(block)).or_default().extend(own);
            }
        }
    }

    /// Leaves out the peers that were seen least if there are too many.
    fn limit_peers(&mut self, subject: &PodGroup, direction: Direction, drafts: &mut Drafts) {
        let number: usize = drafts.values().map(BTreeMap::len).sum();
        if number <= MAX_PEERS {
            return;
        }
        let count =
            |seen: &[SeenConnection]| seen.iter().map(|one| one.seen.count).fold(0, u64::saturating_add);
        let all = drafts
            .iter()
            .flat_map(|(ports, peers)| peers.iter().map(move |(peer, seen)| (ports, peer, seen)));
        let mut counts: Vec<_> =
            all.map(|(ports, peer, seen)| (Reverse(count(seen)), ports.clone(), peer.clone())).collect();
        counts.sort();
        for (_, ports, peer) in counts.split_off(MAX_PEERS) {
            if let Some(peers) = drafts.get_mut(&ports) {
                peers.remove(&peer);
            }
        }
        drafts.retain(|_, peers| !peers.is_empty());
        self.hit(subject, direction, SuggestLimit::Peers, number);
    }

    fn hit(&mut self, subject: &PodGroup, direction: Direction, limit: SuggestLimit, number: usize) {
        let (namespace, subject) = (subject.namespace().clone(), subject.pods().cloned());
        self.limits.push(LimitHit { subject, namespace, direction, limit, number });
    }
}

fn finished(drafts: Drafts) -> Rules {
    let mut out = Rules::default();
    for (ports, peers) in drafts {
        let (peers, seen): (Vec<Peer>, Vec<Vec<SeenConnection>>) = peers.into_iter().unzip();
        out.rules.push(rule(peers, ports));
        let mut seen: Vec<SeenConnection> = seen.into_iter().flatten().collect();
        seen.sort_by(|a, b| key(a).cmp(&key(b)));
        out.seen.push(seen);
    }
    out
}

/// Makes a rule that allows.
pub(super) fn rule(peers: Vec<Peer>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        name: None,
        action: Action::Accept,
        peers: Some(peers.into_iter().map(|peer| PeerEntry { peer, origin: None }).collect()),
        ports: ports.map(|ports| ports.into_iter().map(|port| PortEntry { port, origin: None }).collect()),
        origin: None,
    }
}

fn key(one: &SeenConnection) -> impl Ord {
    (&one.from, &one.to, one.protocol, one.port)
}

fn other_end(seen: &SeenConnection, direction: Direction) -> &SeenEnd {
    match direction {
        Direction::Egress => &seen.to,
        Direction::Ingress => &seen.from,
    }
}

/// Returns what was seen at these ports, sorted.
pub(super) fn connections(ports: &WantedPorts) -> Vec<SeenConnection> {
    let mut out = Vec::new();
    for (&(protocol, port), want) in ports {
        out.extend(want.seen.iter().map(|((from, to), seen)| SeenConnection {
            from: from.clone(),
            to: to.clone(),
            protocol,
            port,
            seen: *seen,
        }));
    }
    out.sort_by(|a, b| key(a).cmp(&key(b)));
    out
}

/// Returns a name as a peer.
pub(super) fn named_peer(name: &DomainName) -> Peer {
    Peer::DomainName(DomainPattern::new(name.as_str()))
}
