//! A workload as a picture: its peers on both sides. [`super::policy_picture`] and [`super::namespace_picture`] have the others.

use std::collections::BTreeMap;

use palisade_analysis::{
    ConnectionEnd, Description,
    describe::{BlockedForwarding, PeerTraffic, PodsDescription, Side},
};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, Traffic};

use super::text;
use crate::{
    addresses,
    connection_ends::{self, name},
    diagram,
    diagram::{Diagram, Look, MOST_ROWS, Neighbor, Subject},
    diff, entrances,
    inputs::{LoadedInputs, plural},
    traffic::{VisibleTraffic, family_names},
};

/// Draws a workload. Returns the notes on what was summed up, too.
pub(super) fn of_workload(description: &Description, world: &LoadedInputs) -> (Diagram, Vec<String>) {
    let loaded = &world.loaded;
    let mut said = Vec::new();
    let subjects = description.parts.iter().map(|part| subject(part, loaded, &mut said)).collect();
    let title = description.parts.first().map(|part| name(&part.end)).unwrap_or_default();
    let title = match description.parts.len() {
        0 | 1 => format!("{title} and its peers"),
        n => format!("{title} and its peers, in {n} parts that policies treat differently"),
    };
    let mut notes = incomplete(world);
    notes.extend(addresses::notes(loaded).into_iter().map(|note| format!("note: {}", note.text)));
    notes.extend(said.iter().map(|text| format!("note: {text}")));
    (Diagram { title, subjects, notes }, said)
}

/// Returns what could not be read, as lines.
pub(super) fn incomplete(world: &LoadedInputs) -> Vec<String> {
    let missing = world.incomplete();
    missing.iter().map(|missing| format!("incomplete: {}: {}", missing.why, missing.means)).collect()
}

fn subject(part: &PodsDescription, loaded: &Loaded, said: &mut Vec<String>) -> Subject {
    let pods = match &part.end {
        ConnectionEnd::Workload(w) => format!("{} {}", w.pods.len(), plural(w.pods.len(), "pod")),
        _ => String::new(),
    };
    let at = connection_ends::origin_of(&part.end, loaded).map(ToString::to_string);
    let details = [(!pods.is_empty()).then_some(pods), at].into_iter().flatten().collect();
    // The analysis returns egress first.
    let [egress, ingress] = &part.sides;
    let sides = [ingress, egress].map(|side| side_of(side, loaded, said));
    Subject { name: name(&part.end), details, sides }
}

fn side_of(side: &Side, loaded: &Loaded, said: &mut Vec<String>) -> diagram::Side {
    let mut peers = peers(&side.peers, loaded, None);
    peers.extend(self::peers(&side.undecided, loaded, Some("undecided: ")));
    if peers.len() > MOST_ROWS {
        let all = side.peers.len() + side.undecided.len();
        peers = by_namespace(&side.peers, None);
        peers.extend(by_namespace(&side.undecided, Some("undecided: ")));
        let way = if side.direction == Direction::Ingress { "sources" } else { "destinations" };
        said.push(format!("{all} {way} are drawn by namespace; -o json lists each"));
    }
    peers.extend(side.blocked.iter().map(|blocked| blocked_neighbor(blocked, loaded)));
    if peers.is_empty() {
        peers.push(Neighbor::nothing("nothing"));
    }
    diagram::Side { heading: format!("{}: {}", side.direction, text::state(side)), neighbors: peers }
}

/// Where a peer is. Those outside share boxes.
#[derive(PartialEq)]
enum Place {
    Own,
    Internet,
    Outside,
}

fn place_of(end: &ConnectionEnd) -> Place {
    match end {
        ConnectionEnd::External(_) if end.is_internet() => Place::Internet,
        ConnectionEnd::External(_) => Place::Outside,
        _ => Place::Own,
    }
}

/// Draws peers: addresses outside with the same traffic share a box. `doubt` marks what is not decided.
fn peers(all: &[PeerTraffic], loaded: &Loaded, doubt: Option<&str>) -> Vec<Neighbor> {
    let mut found: Vec<(Vec<&ConnectionEnd>, &PeerTraffic)> = Vec::new();
    for peer in all {
        let kind = place_of(&peer.end);
        let same = |first: &PeerTraffic| {
            kind != Place::Own && place_of(&first.end) == kind && first.traffic == peer.traffic
        };
        match found.iter_mut().find(|(_, first)| same(first)) {
            Some((ends, _)) => ends.push(&peer.end),
            None => found.push((vec![&peer.end], peer)),
        }
    }
    let one = |(ends, peer): (Vec<&ConnectionEnd>, &PeerTraffic)| {
        let through = match &peer.through[..] {
            [] => String::new(),
            some => format!(", for {}", entrances::routes(some, &loaded.routes)),
        };
        Neighbor {
            group: peer.end.namespace().map(|name| format!("namespace {name}")),
            lines: vec![match place_of(&peer.end) {
                Place::Own => within_group(&peer.end),
                _ => diff::ends(&ends),
            }],
            label: format!("{}{}{through}", doubt.unwrap_or_default(), traffic(peer)),
            look: look(&peer.traffic, doubt.is_some()),
        }
    };
    found.into_iter().map(one).collect()
}

/// Returns the name of an end without its namespace, which its group shows.
fn within_group(end: &ConnectionEnd) -> String {
    let name = name(end);
    let namespace = end.namespace().map_or("", |n| &**n);
    name.strip_prefix(namespace).map_or(name.clone(), |rest| rest.trim_start_matches('/').to_owned())
}

fn look(traffic: &Traffic, in_doubt: bool) -> Look {
    match (in_doubt, VisibleTraffic::of(traffic).is_all()) {
        (true, _) => Look::Open,
        (false, true) => Look::Everything,
        (false, false) => Look::Allowed,
    }
}

/// Formats the traffic of a peer, with the IP family unless the peer shows it.
fn traffic(peer: &PeerTraffic) -> String {
    let text = VisibleTraffic::of(&peer.traffic).text();
    let outside = place_of(&peer.end) != Place::Own;
    match outside || (peer.families.v4 && peer.families.v6) {
        true => text,
        false => format!("{text} ({})", family_names(peer.families).join("")),
    }
}

/// Draws a box for each namespace, and one for each kind of other peers.
fn by_namespace(all: &[PeerTraffic], doubt: Option<&str>) -> Vec<Neighbor> {
    let place = |end: &ConnectionEnd| match (end.namespace(), place_of(end)) {
        (Some(namespace), _) => (0, namespace.to_string()),
        (None, Place::Own) => (1, "node".to_owned()),
        (None, Place::Internet) => (3, "internet address range".to_owned()),
        (None, Place::Outside) => (2, "other address range".to_owned()),
    };
    let mut found: BTreeMap<(u8, String), Vec<&PeerTraffic>> = BTreeMap::new();
    for peer in all {
        found.entry(place(&peer.end)).or_default().push(peer);
    }
    let one = |((kind, place), peers): ((u8, String), Vec<&PeerTraffic>)| {
        let sum = peers.iter().fold(Traffic::none(), |sum, peer| sum.union(&peer.traffic));
        let same = peers.iter().all(|peer| (&peer.traffic, peer.families) == (&sum, peers[0].families));
        let not_all = if same { "" } else { ", not with each of them" };
        let count = peers.len();
        let text = match kind {
            0 => format!("namespace {place}: {count} {}", plural(count, "workload")),
            _ => format!("{count} {}", plural(count, &place)),
        };
        Neighbor {
            group: None,
            lines: vec![text],
            label: format!("{}{}{not_all}", doubt.unwrap_or_default(), VisibleTraffic::of(&sum).text()),
            look: if same { look(&sum, doubt.is_some()) } else { Look::Allowed },
        }
    };
    found.into_iter().map(one).collect()
}

/// Draws traffic that routes forward and policies deny.
fn blocked_neighbor(blocked: &BlockedForwarding, loaded: &Loaded) -> Neighbor {
    let traffic = VisibleTraffic::of(&blocked.traffic).text();
    let routes = entrances::routes(&blocked.through, &loaded.routes);
    Neighbor {
        group: None,
        lines: vec![connection_ends::CONTROLLER.to_owned()],
        label: format!("denied: {traffic}, requested by {routes}"),
        look: Look::Denied,
    }
}
