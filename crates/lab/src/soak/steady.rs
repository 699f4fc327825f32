//! Probes during a change that the change must not affect.
//!
//! A connection is steady under a change if neither of its ends moves, and if it is allowed before and after, or denied by the
//! same side before and after. Nodes apply a change at different times, so for a moment one end has the old policies and the
//! other the new ones. A steady connection has the same verdict in that moment too: a denied one must never be made, and an
//! allowed one must never fail permanently.
//!
//! An allowed connection that fails is tried again after the change. If no rule drops a packet meanwhile, that it isn't answered in time is
//! the machine's fault, and it is tried with more patience.

mod drops;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use palisade_policy::{Cluster, Protocol, reference};

use drops::Drops;

use crate::{
    error::{LabError, with_causes},
    lab::Lab,
    layout::{Layout, Place},
    namespace::Namespace,
    probe::{self, Expected, Outcome, Plan, Probe, ProbeOptions, Target, Timeouts},
};

/// The maximum number of steady connections.
const STEADY: usize = 48;
/// Short, so that many passes fit into a change.
const PASS: Timeouts = Timeouts { whole: Duration::from_millis(60), in_flight: STEADY };
/// For allowed connections that failed in a pass, and then in a retry without a packet that was dropped: the machine may be busy.
const RETRIES: [Timeouts; 2] = [
    Timeouts { whole: Duration::from_secs(4), in_flight: 8 },
    Timeouts { whole: Duration::from_secs(20), in_flight: 2 },
];

/// The number of probes during a change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probed {
    pub(super) all: usize,
    /// Those of them that were answered only when there were few at a time, though no rule dropped their packets.
    pub(super) late: usize,
}

/// Changes the lab to another cluster and probes steady connections meanwhile.
pub(super) fn update(lab: &mut Lab, cluster: &Cluster, seed: u64) -> Result<Probed, Vec<String>> {
    let one = |e: &LabError| vec![with_causes(e)];
    let next = lab.layout().with_cluster(cluster).map_err(|e| one(&e.into()))?;
    let probes = steady(lab.layout(), &next, seed);
    let sources = source_namespaces(lab, &probes).map_err(|e| one(&e))?;
    let namespaces = sources.iter().map(|(place, namespace)| (place.clone(), namespace)).collect();
    let (done, started) = (AtomicBool::new(false), AtomicBool::new(false));
    let (tried, updated) = thread::scope(|scope| {
        let trying = scope.spawn(|| passes(&namespaces, &probes, &started, &done));
        while !started.load(Ordering::Acquire) && !trying.is_finished() {
            thread::yield_now();
        }
        let updated = lab.update(cluster);
        done.store(true, Ordering::Release);
        (trying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), updated)
    });
    updated.map_err(|e| one(&e))?;
    let Tried { probes: all, failed } = tried?;
    Ok(Probed { all, late: retry(lab, &namespaces, &probes, failed)? })
}

type Key = (IpAddr, IpAddr, Protocol, u16);

fn key(probe: &Probe) -> Key {
    (probe.source.address(), probe.target.address(), probe.protocol, probe.port)
}

/// Returns some of the connections that are steady under the change from one layout to the other.
fn steady(before: &Layout, after: &Layout, seed: u64) -> Vec<Probe> {
    let stays = unmoved(before, after);
    let later: HashMap<Key, Probe> = Plan::of(after, &ProbeOptions::default())
        .probes
        .into_iter()
        .map(|probe| (key(&probe), probe))
        .collect();
    let sample = ProbeOptions { max_probes: Some(8 * STEADY), seed, ..ProbeOptions::default() };
    let is_steady = |probe: &Probe| {
        let (Target::Direct(destination), [(flow, _)]) = (&probe.target, &probe.flows[..]) else {
            return false;
        };
        let ends = [&probe.source, destination];
        let same =
            later.get(&key(probe)).is_some_and(|l| l.source == probe.source && l.target == probe.target);
        if !same || !ends.into_iter().all(|end| stays.contains(&Place::of(end))) {
            return false;
        }
        let sides = [before, after].map(|layout| {
            let decision = reference::decide(&layout.cluster, flow);
            [decision.egress.verdict.is_allow(), decision.ingress.verdict.is_allow()]
        });
        match sides {
            [[true, true], [true, true]] => true,
            [then, now] => (0..2).any(|side| !then[side] && !now[side]),
        }
    };
    Plan::of(before, &sample).probes.into_iter().filter(is_steady).take(STEADY).collect()
}

/// Returns the places that are the same in both layouts, so that connections between them can be probed during the change.
fn unmoved(before: &Layout, after: &Layout) -> BTreeSet<Place> {
    let then: BTreeMap<_, _> = before.places().collect();
    let nodes_stay = before.nodes == after.nodes;
    let node_of = |layout: &Layout, place: &Place| match place {
        Place::Pod(key) => layout.pods.get(key).map(|pod| pod.node.clone()),
        Place::Node(_) | Place::Outside => None,
    };
    let stays = |place: &Place, addresses: &[IpAddr]| {
        then.get(place) == Some(&addresses) && node_of(before, place) == node_of(after, place)
    };
    let now = after.places().filter(|(place, addresses)| nodes_stay && stays(place, addresses));
    now.map(|(place, _)| place).collect()
}

/// Returns the namespaces of the probes' sources.
fn source_namespaces(lab: &Lab, probes: &[Probe]) -> Result<BTreeMap<Place, Namespace>, LabError> {
    let mut out = BTreeMap::new();
    for place in probes.iter().map(|probe| Place::of(&probe.source)) {
        let namespace = lab.namespace(&place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))?;
        let failed = |source| LabError::Namespace { place: place.to_string(), source };
        let namespace = namespace.try_clone().map_err(failed)?;
        out.insert(place, namespace);
    }
    Ok(out)
}

/// What the passes have shown.
struct Tried {
    /// How many probes were made.
    probes: usize,
    /// The allowed connections that failed in some pass.
    failed: Vec<usize>,
}

/// Repeats all probes until `done` is set.
fn passes(
    namespaces: &BTreeMap<Place, &Namespace>,
    probes: &[Probe],
    started: &AtomicBool,
    done: &AtomicBool,
) -> Result<Tried, Vec<String>> {
    let all: Vec<usize> = (0..probes.len()).collect();
    let (mut tried, mut wrong, mut failed) = (0, Vec::new(), vec![false; probes.len()]);
    started.store(true, Ordering::Release);
    loop {
        let last = done.load(Ordering::Acquire);
        let on_outcome = &mut |index: usize, outcome: Outcome| {
            tried += 1;
            match (probes[index].expected(), &outcome) {
                (Expected::Denied, Outcome::Connected { .. }) => {
                    wrong.push(failure_text(&probes[index], &outcome));
                }
                (Expected::Allowed, outcome) => failed[index] |= !probes[index].agrees(outcome),
                _ => {}
            }
        };
        probe::run_from(namespaces, probes, &all, &PASS, on_outcome).map_err(|e| vec![with_causes(&e)])?;
        if last {
            break;
        }
    }
    let failed = all.into_iter().filter(|index| failed[*index]).collect();
    if wrong.is_empty() { Ok(Tried { probes: tried, failed }) } else { Err(wrong) }
}

/// Repeats allowed connections that failed in some pass. Returns how many of them were answered only when there were few at a time.
///
/// Now that nothing changes and nothing denied is tried, every packet that a rule drops is one too many. So the nodes' counters tell a fault of
/// the rules from a machine that is too busy to answer.
fn retry(
    lab: &Lab,
    namespaces: &BTreeMap<Place, &Namespace>,
    probes: &[Probe],
    failed: Vec<usize>,
) -> Result<usize, Vec<String>> {
    let mut left = failed;
    let mut late = 0;
    for (patience, timeouts) in RETRIES.iter().enumerate() {
        if left.is_empty() {
            break;
        }
        let mut drops = Drops::begin(lab).map_err(|e| vec![e])?;
        let mut wrong = Vec::new();
        let on_outcome = &mut |index: usize, outcome: Outcome| {
            if !probes[index].agrees(&outcome) {
                wrong.push((index, failure_text(&probes[index], &outcome)));
            }
        };
        probe::run_from(namespaces, probes, &left, timeouts, on_outcome)
            .map_err(|e| vec![with_causes(&e)])?;
        let dropped = drops.since(lab).map_err(|e| vec![e])?;
        let is_last = patience + 1 == RETRIES.len();
        if !wrong.is_empty() && (is_last || !dropped.is_empty()) {
            let dropped = if dropped.is_empty() {
                "no rule of a node has dropped a packet meanwhile".to_owned()
            } else {
                dropped.join(", ")
            };
            return Err(wrong.into_iter().map(|(_, text)| format!("{text} ({dropped})")).collect());
        }
        left = wrong.into_iter().map(|(index, _)| index).collect();
        late += left.len();
    }
    Ok(late)
}

fn failure_text(probe: &Probe, outcome: &Outcome) -> String {
    let expected = if probe.expected() == Expected::Allowed { "allowed" } else { "denied" };
    format!(
        "{} to {}, {} port {}: {outcome} while the lab was changing, but {expected} before and after",
        probe.source,
        probe.target.address(),
        probe.protocol,
        probe.port
    )
}
