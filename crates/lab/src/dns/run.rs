//! Performs lookups, each followed at once by connections to what was answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use palisade_policy::{Cluster, DomainName, Endpoint, Family, reference};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    client::{LookupOutcome, LookupPatience, lookup},
    plan::{self, ExpectedLookup, Lookup, NamePlan, lookup_of},
};
use crate::{
    error::LabError,
    lab::Lab,
    layout::Place,
    probe::{Mismatch, Outcome, ProbeResult, Timeouts, run_from},
};

/// How many pods ask at the same time.
const AT_ONCE: usize = 16;
/// Less than the second after which a first packet that was dropped is sent again: what was answered must be allowed at once.
const CONNECT: Timeouts = Timeouts { whole: Duration::from_millis(900), in_flight: 64 };
/// How long a pod waits for answers, and for answers that must not come.
const PATIENCE: LookupPatience = LookupPatience { tries: 3, each: Duration::from_secs(3) };
const SILENCE: LookupPatience = LookupPatience { tries: 1, each: Duration::from_millis(900) };

/// Returns the cluster of a lab as the engine has it once every name of its zones was asked for; without zones, its cluster.
#[must_use]
pub fn learned_by_all(lab: &Lab) -> Cluster {
    match lab.names() {
        Some((zones, _)) => plan::learned_by_all(lab.layout(), zones),
        None => lab.layout().cluster.clone(),
    }
}

/// Returns the cluster of a lab as the engine has it once these addresses were answered for a name, and nothing else.
#[must_use]
pub fn learned_from(lab: &Lab, name: &DomainName, addresses: &[IpAddr]) -> Cluster {
    plan::learned_from(lab.layout(), name, addresses)
}

/// A lookup and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupResult {
    /// The lookup.
    pub lookup: Lookup,
    /// The outcome of each round.
    pub outcomes: Vec<LookupOutcome>,
    /// The connections to what was answered.
    pub connections: Vec<ProbeResult>,
    /// The connections about which kernel and engine disagree.
    pub mismatches: Vec<Mismatch>,
}

impl LookupResult {
    /// Returns whether the answers and the connections are as expected.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.wrong_outcome().is_none() && self.mismatches.is_empty()
    }

    /// Returns the first outcome that is not expected.
    #[must_use]
    pub fn wrong_outcome(&self) -> Option<&LookupOutcome> {
        self.outcomes.iter().find(|outcome| !self.lookup.expected.agrees(outcome))
    }

    /// Returns what is wrong, one line for each mismatch.
    #[must_use]
    pub fn summary(&self) -> String {
        let Lookup { source, name, server, expected, .. } = &self.lookup;
        let mut out = String::new();
        if let Some(outcome) = self.wrong_outcome() {
            _ = writeln!(out, "{source} asked {server} for {name}: {outcome}, expected: {expected}");
        }
        for mismatch in &self.mismatches {
            _ = writeln!(out, "{name}: {}", mismatch.summary());
        }
        out
    }
}

impl std::fmt::Display for ExpectedLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
            Self::NoAddress => f.write_str("no address"),
            Self::NoSuchName => f.write_str("no such name"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Loop => f.write_str("no answer or no address"),
            Self::Either => f.write_str("an answer or none"),
        }
    }
}

impl Serialize for LookupResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Lookup { source, name, family, server, expected, .. } = &self.lookup;
        let mut out = serializer.serialize_struct("LookupResult", 8)?;
        out.serialize_field("source", &source.to_string())?;
        out.serialize_field("name", name.as_str())?;
        out.serialize_field("family", &if *family == Family::V4 { 4 } else { 6 })?;
        out.serialize_field("server", server)?;
        out.serialize_field("expected", &expected.to_string())?;
        out.serialize_field("outcomes", &self.outcomes)?;
        out.serialize_field("agrees", &self.agrees())?;
        out.serialize_field("connections", &self.connections)?;
        out.end()
    }
}

/// Performs the lookups of a plan. `progress` receives the number of finished lookups.
///
/// # Errors
/// Fails if the lab lacks a pod, or if no socket can be opened.
pub fn run(
    lab: &Lab,
    plan: &NamePlan,
    progress: impl Fn(usize) + Sync,
) -> Result<Vec<LookupResult>, LabError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, Result<LookupResult, LabError>>> = Mutex::default();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(lookup) = plan.lookups.get(at) else { return };
            let result = perform(lab, plan, lookup);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.insert(at, result);
            progress(results.len());
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(plan.lookups.len()) {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Lets a pod or node of a lab ask for a name once. `None`: the lab has no DNS server that it could ask.
///
/// # Errors
/// Fails if the lab lacks the pod or node, or if no thread can be started in it.
pub fn ask(
    lab: &Lab,
    source: &Endpoint,
    name: &DomainName,
) -> Result<Option<(Lookup, LookupOutcome)>, LabError> {
    let Some((zones, servers)) = lab.names() else { return Ok(None) };
    let Some(asked) = lookup_of(lab.layout(), zones, servers, source, name) else { return Ok(None) };
    let patience = patience(&asked);
    let outcome =
        lab.run_in(&Place::of(source), || lookup(asked.server, &asked.name, asked.family, patience))?;
    Ok(Some((asked, outcome)))
}

fn patience(asked: &Lookup) -> LookupPatience {
    if asked.expected == ExpectedLookup::NoAnswer { SILENCE } else { PATIENCE }
}

fn perform(lab: &Lab, plan: &NamePlan, asked: &Lookup) -> Result<LookupResult, LabError> {
    let place = Place::of(&asked.source);
    let namespace = lab.namespace(&place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))?;
    let namespaces = BTreeMap::from([(place.clone(), namespace)]);
    let patience = patience(asked);
    let mut result = LookupResult {
        lookup: asked.clone(),
        outcomes: Vec::new(),
        connections: Vec::new(),
        mismatches: Vec::new(),
    };
    let (mut learned, mut tried) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..asked.rounds {
        let outcome = namespace
            .run(|| lookup(asked.server, &asked.name, asked.family, patience))
            .map_err(|source| LabError::Namespace { place: place.to_string(), source })?;
        if let LookupOutcome::Addresses(addresses) = &outcome {
            learned.extend(addresses.iter().copied());
            let mut probes = plan.connections(lab.layout(), asked, &learned);
            probes.retain(|probe| !tried.contains(&probe.target.address()));
            tried.extend(probes.iter().map(|probe| probe.target.address()));
            let chosen: Vec<usize> = (0..probes.len()).collect();
            let mut outcomes = vec![Outcome::Failed("the probe was never started".to_owned()); probes.len()];
            run_from(&namespaces, &probes, &chosen, &CONNECT, &mut |at, outcome| outcomes[at] = outcome)?;
            let results = probes.into_iter().zip(outcomes);
            result.connections.extend(results.map(|(probe, outcome)| ProbeResult { probe, outcome }));
        }
        result.outcomes.push(outcome);
    }
    result.mismatches = mismatches(lab, plan, asked, &result.connections, &learned);
    Ok(result)
}

fn mismatches(
    lab: &Lab,
    plan: &NamePlan,
    asked: &Lookup,
    connections: &[ProbeResult],
    learned: &BTreeSet<IpAddr>,
) -> Vec<Mismatch> {
    let wrong = connections.iter().filter(|connection| !connection.agrees());
    let mismatch = |result: &ProbeResult| {
        let cluster = plan.learned_by(lab.layout(), &asked.name, learned);
        let decisions =
            result.probe.flows.iter().map(|(flow, _)| reference::decide(&cluster, flow)).collect();
        Mismatch { result: result.clone(), decisions }
    };
    wrong.map(mismatch).collect()
}
