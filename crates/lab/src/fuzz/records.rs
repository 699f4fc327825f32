//! Records of flows, compared with the engine's reasons.
//!
//! ```text
//!   probe that was dropped ──► has a record ──────────────────────────────┐
//!   record ─► sender, receiver, policies, rule, line and words, verdict ──┴─► those of the engine's decision
//! ```
//!
//! Agents make a limited number of records a second ([`palisade_nft::LOG_RATE`], and fewer of each sender), so probes without a record are
//! repeated slowly.

use std::{
    collections::HashSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use palisade_flow::Record;
use palisade_policy::{Change, Origin, Policy};

use super::{Case, CaseInput, Comparison, FuzzOptions, run_comparing};
use crate::{
    error::LabError,
    lab::Lab,
    probe::{self, Outcome, Plan, Probe, ProbeOptions, Report, Timeouts},
    records::{Expectations, FlowKey, RecordingOptions, Recordings, Wording},
    sandbox::Sandbox,
};

/// How many probes are open at a time: more would only leave more of them without a record.
const IN_FLIGHT: usize = 32;
/// How long records are waited for: equal packets have a record at the end of a second.
const PATIENCE: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(25);
/// How many probes without a record are repeated at a time, and how often.
const REPEATED: usize = 40;
const ROUNDS: usize = 30;
const REPEATING: Timeouts = Timeouts { whole: Duration::from_millis(400), in_flight: REPEATED };
/// How long the last packets of a stage may take to be read.
const SETTLING: Duration = Duration::from_millis(150);

/// As [`super::run`] with the agent as the enforcer, and compares each record that it makes with the engine's reason: every dropped probe has a
/// record, and with [`FuzzOptions::audit`] every probe that the policies in audit mode would drop. `wording` puts reasons into words.
pub fn run_with_records(
    sandbox: &Sandbox,
    options: &FuzzOptions,
    wording: &Wording,
    progress: impl FnMut(&Case),
) -> Vec<Case> {
    let recordings = Arc::new(Recordings::default());
    let recording = RecordingOptions { wording: Arc::clone(wording), connections: false };
    let make = recordings.enforcers(recording);
    let since = Timestamp::UNIX_EPOCH;
    let mut comparison = Records { recordings: &recordings, wording, since, lines: 0 };
    run_comparing(sandbox, options, &make, &mut comparison, progress)
}

struct Records<'a> {
    recordings: &'a Recordings,
    wording: &'a Wording,
    /// The beginning of the stage: what was seen before has the reasons of an earlier one.
    since: Timestamp,
    /// How many lines were given to policies and rules.
    lines: u32,
}

impl Comparison for Records<'_> {
    /// Gives each policy and rule, and each new version of it, a line of its own: a record with an old one is noticed.
    fn prepare(&mut self, input: &mut CaseInput) {
        for policy in input.first.policies.values_mut() {
            self.number(Arc::make_mut(policy));
        }
        for change in &mut input.changes {
            if let Change::SetPolicy(policy) = change {
                self.number(Arc::make_mut(policy));
            }
        }
    }

    fn begin(&mut self, probing: &mut ProbeOptions) {
        probing.first.in_flight = IN_FLIGHT;
        self.since = Timestamp::now();
    }

    fn compare(
        &mut self,
        lab: &Lab,
        plan: &Plan,
        report: &Report,
        case: &mut Case,
    ) -> Result<Vec<String>, LabError> {
        let expectations = Expectations::of(lab.layout(), self.wording);
        let mut outcomes: Vec<Outcome> = report.probes.iter().map(|p| p.outcome.clone()).collect();
        let mut seen = Seen::default();
        let mut missing = self.until_recorded(&mut seen, &expectations, &plan.probes, &outcomes)?;
        for _ in 0..ROUNDS {
            if missing.is_empty() {
                break;
            }
            missing.truncate(REPEATED);
            probe::repeat(lab, &plan.probes, &missing, &REPEATING, &mut |index, outcome| {
                outcomes[index] = outcome;
            })?;
            missing = self.until_recorded(&mut seen, &expectations, &plan.probes, &outcomes)?;
        }
        // The last packets of this stage have its reasons, not those of the next.
        thread::sleep(SETTLING);
        self.read(&mut seen)?;

        let mut what: Vec<String> = missing
            .iter()
            .flat_map(|index| expectations.of_probe(&plan.probes[*index], &outcomes[*index]))
            .filter(|keys| !seen.has_one_of(keys))
            .map(|keys| {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                format!("no record: {}", keys.join(" or "))
            })
            .collect();
        let differences = seen.records.iter().flat_map(|r| expectations.differences(r, &plan.probes));
        what.extend(differences.map(|difference| difference.to_string()));
        // Each packet of a connection may have a record of its own.
        what.sort();
        what.dedup();
        let compared = plan.probes.iter().zip(&outcomes);
        let compared = compared.filter(|(probe, outcome)| !expectations.of_probe(probe, outcome).is_empty());
        *case.recorded.get_or_insert(0) += compared.count() - missing.len();
        Ok(what)
    }
}

/// The records of a stage.
#[derive(Default)]
struct Seen {
    records: Vec<Record>,
    keys: HashSet<FlowKey>,
}

impl Seen {
    fn has_one_of<'k>(&self, keys: impl IntoIterator<Item = &'k FlowKey>) -> bool {
        keys.into_iter().any(|key| self.keys.contains(key))
    }
}

impl Records<'_> {
    fn number(&mut self, policy: &mut Policy) {
        let file = palisade_policy::Name::from("cluster.yaml");
        let mut next = || {
            self.lines += 1;
            Some(Origin { file: file.clone(), line: self.lines, column: 1 })
        };
        policy.origin = next();
        let rules = policy.ingress.iter_mut().chain(policy.egress.iter_mut()).flatten();
        for rule in rules {
            rule.origin = next();
            rule.peers.iter_mut().flatten().for_each(|entry| entry.origin = next());
            rule.ports.iter_mut().flatten().for_each(|entry| entry.origin = next());
        }
    }

    /// Takes the records that were made of packets of this stage.
    fn read(&self, seen: &mut Seen) -> Result<(), LabError> {
        let records = self.recordings.take().map_err(|e| LabError::Records(e.into()))?;
        for record in records.into_iter().filter(|record| record.time >= self.since) {
            seen.keys.extend(FlowKey::of(&record));
            seen.records.push(record);
        }
        Ok(())
    }

    /// Waits for the records of the probes. Returns the probes that have none.
    fn until_recorded(
        &self,
        seen: &mut Seen,
        expectations: &Expectations<'_>,
        probes: &[Probe],
        outcomes: &[Outcome],
    ) -> Result<Vec<usize>, LabError> {
        let wanted: Vec<_> = probes.iter().zip(outcomes).map(|(p, o)| expectations.of_probe(p, o)).collect();
        let begin = Instant::now();
        loop {
            self.read(seen)?;
            let lacks = |index: &usize| wanted[*index].iter().any(|keys| !seen.has_one_of(keys));
            let missing: Vec<usize> = (0..probes.len()).filter(lacks).collect();
            if missing.is_empty() || begin.elapsed() >= PATIENCE {
                return Ok(missing);
            }
            thread::sleep(POLL);
        }
    }
}
