//! A lab that changes for a given time. Pods, namespaces, policies and services are created, relabeled, moved, edited and
//! deleted at random, while connections are probed. After each round of changes the kernel is compared with the engine, and the
//! memory of the process is measured.
//!
//! The same seed makes the same changes in the same order on every machine. How many of them fit into the time depends on the
//! machine.

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

/// The options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoakOptions {
    /// The seed of the cluster and its changes.
    pub seed: u64,
    /// The duration. The last round is finished after it.
    pub duration: Duration,
    /// The initial number of pods, which varies during the run.
    pub pods: usize,
    /// The maximum number of probes at the end of each round.
    pub probes: usize,
}

impl Default for SoakOptions {
    fn default() -> Self {
        Self { seed: 1, duration: Duration::from_secs(600), pods: 12, probes: 400 }
    }
}

/// The work that has been done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SoakCounts {
    /// Rounds.
    pub rounds: usize,
    /// Changes of the cluster, by kind.
    pub changes: BTreeMap<&'static str, usize>,
    /// Probes at the end of rounds.
    pub probed: usize,
    /// The number of these that were dropped. A run that drops nothing proves little.
    pub dropped: usize,
    /// Probes during changes that must not affect them.
    #[serde(rename = "meanwhile")]
    pub probed_during_changes: usize,
    /// Connections during changes that were answered only when there were few at a time, although no rule dropped their packets: the machine
    /// was too busy.
    pub late: usize,
    /// Verdicts of the kernel's rules, read back and evaluated by a reader that is independent of policies.
    #[serde(rename = "read")]
    pub verdicts_compared: usize,
}

impl SoakCounts {
    /// Returns the number of changes of all kinds.
    #[must_use]
    pub fn all_changes(&self) -> usize {
        self.changes.values().sum()
    }
}

/// Resident memory of the process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// After a twentieth of the duration, when caches are warm and every thread has run.
    pub start: u64,
    /// After half of the duration.
    pub middle: u64,
    /// At the end.
    pub end: u64,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SoakReport {
    /// The work that was done.
    #[serde(rename = "tally")]
    pub counts: SoakCounts,
    /// The memory of the process.
    pub resident_kib: Resident,
    /// The duration, in seconds.
    pub seconds: u64,
    /// The first disagreement, which ended the run.
    pub failure: Option<Failure>,
}

/// A round after which kernel and engine disagree, or that could not be finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The number of the round, counted from 1.
    pub round: usize,
    /// The disagreements, or the error.
    pub what: Vec<String>,
    /// The changes of the round.
    pub changes: Vec<String>,
    /// The cluster after them, as text.
    pub cluster: String,
}

/// Runs rounds of changes until the time is over or kernel and engine disagree. `progress` is called after each round.
///
/// # Errors
/// Fails if the lab can't be built.
pub fn run(
    sandbox: &Sandbox,
    options: &SoakOptions,
    make: &MakeEnforcer,
    mut progress: impl FnMut(&SoakCounts, Duration),
) -> Result<SoakReport, LabError> {
    let began = Instant::now();
    let mut rng = Rng::with_seed(options.seed);
    let mut cluster = palisade_testkit::cluster(&mut rng, &shape(options.pods));
    let layout =
        Layout::of(&cluster, &LayoutOptions { bridged: options.seed % 2 == 1, ..LayoutOptions::default() })?;
    let mut lab = Lab::build(sandbox, layout, make.clone())?;
    let mut out = SoakReport::default();
    let (mut warm, mut halfway) = (false, false);
    while began.elapsed() < options.duration && out.failure.is_none() {
        let mut changes = Vec::new();
        let result = round(&mut lab, &mut cluster, options, &mut rng, &mut out.counts, &mut changes);
        out.counts.rounds += 1;
        if let Err(what) = result {
            let changes = changes.iter().map(|change| format!("{change:?}")).collect();
            out.failure = Some(Failure {
                round: out.counts.rounds,
                what,
                changes,
                cluster: palisade_testkit::describe(&cluster),
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

/// Returns a shape that is built and probed quickly and has policies of every kind.
fn shape(pods: usize) -> Shape {
    Shape {
        namespaces: 3..=4,
        pods: pods..=pods,
        nodes: 3..=3,
        policies: pods / 2..=pods,
        learned: 0..=0,
        style: Style::BuildableTiered,
    }
}

/// Makes some updates, then compares the kernel with the engine.
fn round(
    lab: &mut Lab,
    cluster: &mut Cluster,
    options: &SoakOptions,
    rng: &mut Rng,
    counts: &mut SoakCounts,
    made: &mut Vec<Change>,
) -> Result<(), Vec<String>> {
    for _ in 0..rng.usize(1..=4) {
        for _ in 0..rng.usize(1..=4) {
            let change = palisade_testkit::change(rng, Style::BuildableTiered, cluster);
            *counts.changes.entry(kind_of(&change, cluster)).or_default() += 1;
            cluster.apply(change.clone());
            made.push(change);
        }
        let probed = steady::update(lab, cluster, rng.u64(..))?;
        counts.probed_during_changes += probed.all;
        counts.late += probed.late;
    }
    let probing =
        ProbeOptions { max_probes: Some(options.probes), seed: rng.u64(..), ..ProbeOptions::default() };
    let plan = probe::Plan::of(lab.layout(), &probing);
    let report = probe::run(lab, &plan, &probing, |_, _| {}).map_err(|e| vec![with_causes(&e)])?;
    counts.probed += report.counts.probed;
    counts.dropped += report.counts.dropped;
    if !report.agrees() {
        return Err(report.mismatches.iter().map(Mismatch::summary).collect());
    }
    counts.verdicts_compared += reader::compare(lab, &plan)?;
    Ok(())
}

/// Returns the kind of a change, as it is counted.
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
        Change::SetLearned(_) | Change::RemoveLearned(_) => "learned names edited",
    }
}

/// Returns the resident memory of this process in KiB, or 0 if `/proc` can't be read.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn changes_are_counted_by_kind() {
        let mut rng = Rng::with_seed(3);
        let mut cluster = palisade_testkit::cluster(&mut rng, &shape(12));
        let mut seen = BTreeSet::new();
        for _ in 0..600 {
            let change = palisade_testkit::change(&mut rng, Style::BuildableTiered, &cluster);
            seen.insert(kind_of(&change, &cluster));
            cluster.apply(change);
        }
        for kind in ["pods created", "pods moved", "pods relabelled", "pods deleted", "namespaces created"]
            .into_iter()
            .chain(["namespaces deleted", "policies created", "policies edited", "policies deleted"])
        {
            assert!(seen.contains(kind), "{kind}: {seen:?}");
        }
        assert!((4..40).contains(&cluster.pods.len()), "{} pods", cluster.pods.len());
    }

    #[test]
    fn resident_memory_is_read() {
        assert!(resident() > 1000);
    }
}
