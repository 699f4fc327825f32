//! A lab that changes for as long as one likes: pods, namespaces, policies and services appear, are relabelled, moved and
//! edited, and go, at random, while connections are tried. At every quiet point the kernel is held against the engine, and
//! the memory of the process is noted.
//!
//! The same seed makes the same changes in the same order, on every machine; how many of them fit in the time is the
//! machine's.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster};
use palisade_testkit::{Rng, Shape, Style};
use serde::Serialize;

use crate::{
    enforce::MakeEnforcer,
    error::{LabError, with_causes},
    lab::Lab,
    layout::Layout,
    options::LayoutOptions,
    probe::{self, Mismatch, ProbeOptions},
    sandbox::Sandbox,
};

mod reader;
mod steady;

/// What to do, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoakOptions {
    /// What the cluster and its changes are drawn from.
    pub seed: u64,
    /// How long. The round that is under way is finished.
    pub duration: Duration,
    /// How many pods there are at first; they become some more and some less.
    pub pods: usize,
    /// At most so many connections are tried at each quiet point.
    pub probes: usize,
}

impl Default for SoakOptions {
    fn default() -> Self {
        Self { seed: 1, duration: Duration::from_secs(600), pods: 12, probes: 400 }
    }
}

/// What has been done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SoakCounts {
    /// Quiet points.
    pub rounds: usize,
    /// Edits of the cluster, by what they do.
    pub changes: BTreeMap<&'static str, usize>,
    /// Connections tried at quiet points.
    pub probed: usize,
    /// How many of them were dropped: where nothing is, little is shown.
    pub dropped: usize,
    /// Connections tried while changes were made that don't concern them.
    #[serde(rename = "meanwhile")]
    pub probed_during_changes: usize,
    /// Verdicts read off the kernel's rules, by a reader that knows nothing of policies.
    #[serde(rename = "read")]
    pub verdicts_compared: usize,
}

impl SoakCounts {
    /// Edits of all kinds.
    #[must_use]
    pub fn all_changes(&self) -> usize {
        self.changes.values().sum()
    }
}

/// Resident memory of the process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// When a twentieth of the time was over: caches are warm and every thread has run.
    pub start: u64,
    /// In the middle.
    pub middle: u64,
    /// At the end.
    pub end: u64,
}

/// What a soak came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SoakReport {
    /// What was done.
    #[serde(rename = "tally")]
    pub counts: SoakCounts,
    /// What it took in memory.
    pub resident_kib: Resident,
    /// For how long it ran, in seconds.
    pub seconds: u64,
    /// The first disagreement, at which it ended.
    pub failure: Option<Failure>,
}

/// A quiet point at which kernel and engine disagree, or that was never reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Counted from 1.
    pub round: usize,
    /// The disagreements, or the error.
    pub what: Vec<String>,
    /// The changes of the round.
    pub changes: Vec<String>,
    /// The cluster after them.
    pub cluster: String,
}

/// Runs a soak; `progress` hears of each quiet point. Ends at the first disagreement.
///
/// # Errors
/// When the lab can't be built at all.
pub fn run(
    sandbox: &Sandbox,
    options: &SoakOptions,
    make: &MakeEnforcer,
    mut progress: impl FnMut(&SoakCounts, Duration),
) -> Result<SoakReport, LabError> {
    let began = Instant::now();
    let mut rng = Rng::with_seed(options.seed);
    let mut world = palisade_testkit::cluster(&mut rng, &shape(options.pods));
    let layout =
        Layout::of(&world, &LayoutOptions { bridged: options.seed % 2 == 1, ..LayoutOptions::default() })?;
    let mut lab = Lab::build(sandbox, layout, make.clone())?;
    let mut out = SoakReport::default();
    let (mut warm, mut halfway) = (false, false);
    while began.elapsed() < options.duration && out.failure.is_none() {
        let mut changes = Vec::new();
        let result = round(&mut lab, &mut world, options, &mut rng, &mut out.counts, &mut changes);
        out.counts.rounds += 1;
        if let Err(what) = result {
            let changes = changes.iter().map(|change| format!("{change:?}")).collect();
            out.failure = Some(Failure {
                round: out.counts.rounds,
                what,
                changes,
                cluster: palisade_testkit::describe(&world),
            });
        }
        let elapsed = began.elapsed();
        if !warm && elapsed * 20 >= options.duration {
            (warm, out.resident_kib.start) = (true, resident());
        }
        if !halfway && elapsed * 2 >= options.duration {
            (halfway, out.resident_kib.middle) = (true, resident());
        }
        progress(&out.counts, elapsed);
    }
    out.resident_kib.end = resident();
    out.seconds = began.elapsed().as_secs();
    Ok(out)
}

/// Small enough to be built and probed in a moment, with policies of every kind.
fn shape(pods: usize) -> Shape {
    Shape {
        namespaces: 3..=4,
        pods: pods..=pods,
        nodes: 3..=3,
        policies: pods / 2..=pods,
        style: Style::BuildableTiered,
    }
}

/// Some updates one after the other, then a quiet point.
fn round(
    lab: &mut Lab,
    world: &mut Cluster,
    options: &SoakOptions,
    rng: &mut Rng,
    counts: &mut SoakCounts,
    made: &mut Vec<Change>,
) -> Result<(), Vec<String>> {
    for _ in 0..rng.usize(1..=4) {
        for _ in 0..rng.usize(1..=4) {
            let change = palisade_testkit::change(rng, Style::BuildableTiered, world);
            *counts.changes.entry(kind_of(&change, world)).or_default() += 1;
            world.apply(change.clone());
            made.push(change);
        }
        counts.probed_during_changes += steady::update(lab, world, rng.u64(..))?;
    }
    let probing =
        ProbeOptions { max_probes: Some(options.probes), seed: rng.u64(..), ..ProbeOptions::default() };
    let plan = probe::Plan::of(lab.layout(), &probing);
    let report = probe::run(lab, &plan, &probing, |_, _| {}).map_err(|e| vec![with_causes(&e)])?;
    counts.probed += report.counts.probed;
    counts.dropped += report.counts.dropped;
    if !report.agrees() {
        return Err(report.mismatches.iter().map(Mismatch::in_words).collect());
    }
    counts.verdicts_compared += reader::compare(lab, &plan)?;
    Ok(())
}

/// What an edit does, in a word or two.
fn kind_of(change: &Change, before: &Cluster) -> &'static str {
    match change {
        Change::SetPod(new) => match before.pods.get(&new.key) {
            None => "pods created",
            Some(old) if old.node != new.node => "pods moved",
            Some(old) if old.addresses != new.addresses => "pods readdressed",
            Some(old) if old.labels != new.labels => "pods relabelled",
            Some(_) => "pods edited otherwise",
        },
        Change::RemovePod(_) => "pods deleted",
        Change::SetNamespace(new) if !before.namespaces.contains_key(&new.name) => "namespaces created",
        Change::SetNamespace(_) => "namespaces relabelled",
        Change::RemoveNamespace(_) => "namespaces deleted",
        Change::SetPolicy(new) if !before.policies.contains_key(&new.key) => "policies created",
        Change::SetPolicy(_) => "policies edited",
        Change::RemovePolicy(_) => "policies deleted",
        Change::SetNode(_) | Change::RemoveNode(_) => "nodes edited",
        Change::SetService(_) | Change::RemoveService(_) => "services edited",
    }
}

/// Resident memory of this process in KiB; 0 where `/proc` can't be read. The unit of the field is KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn edits_are_counted_by_what_they_do() {
        let mut rng = Rng::with_seed(3);
        let mut world = palisade_testkit::cluster(&mut rng, &shape(12));
        let mut seen = BTreeSet::new();
        for _ in 0..600 {
            let change = palisade_testkit::change(&mut rng, Style::BuildableTiered, &world);
            seen.insert(kind_of(&change, &world));
            world.apply(change);
        }
        for kind in ["pods created", "pods moved", "pods relabelled", "pods deleted", "namespaces created"]
            .into_iter()
            .chain(["namespaces deleted", "policies created", "policies edited", "policies deleted"])
        {
            assert!(seen.contains(kind), "{kind}: {seen:?}");
        }
        assert!((4..40).contains(&world.pods.len()), "{} pods", world.pods.len());
    }

    #[test]
    fn memory_is_read() {
        assert!(resident() > 1000);
    }
}
