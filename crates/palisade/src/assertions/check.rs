//! Checks written assertions against a cluster.

use palisade_analysis::assertion::{self, Assertion, Counterexample};
use palisade_policy::Cluster;

use super::{
    file::{Place, Written},
    hosts, resolve,
};
use crate::exit::Outcome;

/// The result of an assertion.
#[derive(Debug)]
pub(crate) struct TestResult {
    pub(super) written: Written,
    pub(crate) status: Status,
    /// What breaks it.
    pub(super) counterexamples: Vec<Counterexample>,
    /// The number of kinds of pairs that were judged.
    pub(super) judged: usize,
    /// What is said about it beside the counterexamples.
    pub(super) messages: Vec<String>,
    pub(super) assertions: Vec<Assertion>,
    /// The hosts among its destinations that rules have by name.
    names: Vec<String>,
}

/// Whether an assertion holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Holds,
    Fails,
    /// It depends on what is not known.
    Undecided,
    /// It could not be checked.
    Error,
}

impl Status {
    /// Returns the word in answers.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::Undecided => "undecided",
            Self::Error => "error",
        }
    }
}

/// Checks assertions, in their order.
pub(super) fn all(cluster: &Cluster, written: Vec<Written>, namespace: &str) -> Vec<TestResult> {
    let mut results: Vec<TestResult> =
        written.into_iter().map(|one| checked(cluster, one, namespace)).collect();
    for (at, other, place) in contradictions(cluster, &results) {
        let result = &mut results[at];
        result.status = Status::Error;
        result.messages.push(format!("contradicts `{other}` at {place}: they can't both hold"));
    }
    results
}

fn checked(cluster: &Cluster, written: Written, namespace: &str) -> TestResult {
    let mut out = TestResult {
        written,
        status: Status::Holds,
        counterexamples: Vec::new(),
        judged: 0,
        messages: Vec::new(),
        assertions: Vec::new(),
        names: Vec::new(),
    };
    let written = out.written.clone();
    let mut too_many = false;
    for part in hosts::parts(cluster, &written, namespace) {
        let cluster = part.cluster(cluster);
        let assertions = match resolve::assertions(&cluster, &part.written, namespace) {
            Ok(assertions) => assertions,
            Err(error) => {
                out.status = Status::Error;
                out.messages.push(format!("{error:#}"));
                return out;
            }
        };
        let before = out.counterexamples.len();
        for assertion in &assertions {
            let checked = assertion::check(&cluster, assertion);
            out.judged += checked.judged;
            too_many |= checked.too_many;
            out.counterexamples.extend(checked.counterexamples);
        }
        out.assertions.extend(assertions);
        let Some(name) = part.name() else { continue };
        out.names.push(name.to_string());
        if out.counterexamples.len() > before {
            let text = format!("{name} may have any public address, and is judged as if it were resolved");
            out.messages.push(text);
        }
    }
    let definite = out.counterexamples.iter().any(|c| !c.undecided);
    if definite {
        out.counterexamples.retain(|c| !c.undecided);
        out.status = Status::Fails;
    } else if !out.counterexamples.is_empty() {
        out.status = Status::Undecided;
        out.messages.push("depends on addresses that are not known".to_owned());
    } else if out.judged == 0 {
        out.status = Status::Error;
        out.messages.push("there is no connection that policies could decide between these ends".to_owned());
    } else if too_many {
        out.status = Status::Undecided;
        let text =
            "policies divide the pods that may exist into too many sets to check them all; give fewer pods";
        out.messages.push(text.to_owned());
    }
    out
}

/// Returns the assertions that contradict earlier ones: the index, and the name and place of the other.
fn contradictions(cluster: &Cluster, results: &[TestResult]) -> Vec<(usize, String, Place)> {
    let mut out = Vec::new();
    for (at, later) in results.iter().enumerate() {
        // Which addresses a name has is not known, so one with names says nothing about others.
        let mut comparable = results[..at].iter().filter(|earlier| earlier.names == later.names);
        let earlier = comparable.find(|earlier| {
            let pairs = earlier.assertions.iter().flat_map(|a| later.assertions.iter().map(move |b| (a, b)));
            let mut pairs = pairs;
            pairs.any(|(a, b)| assertion::contradicts(cluster, a, b))
        });
        if let Some(earlier) = earlier {
            out.push((at, earlier.written.name.clone(), earlier.written.place.clone()));
        }
    }
    out
}

/// Returns the outcome of all assertions.
pub(super) fn outcome(results: &[TestResult]) -> Outcome {
    let any = |statuses: &[Status]| results.iter().any(|result| statuses.contains(&result.status));
    if any(&[Status::Error]) {
        Outcome::Incomplete
    } else if any(&[Status::Fails]) {
        Outcome::No
    } else if any(&[Status::Undecided]) {
        Outcome::Incomplete
    } else {
        Outcome::Yes
    }
}
