//! The report of a probe run.

use std::time::Duration;

use palisade_policy::{Decision, Endpoint, Family, Reason, Verdict};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    outcome::Outcome,
    plan::{Expected, NotProbed, Plan, Probe, Target, decisions},
};
use crate::layout::Layout;

/// A probe and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// What was result.
    pub probe: Probe,
    /// The outcome of the last attempt.
    pub outcome: Outcome,
}

impl ProbeResult {
    /// Returns whether kernel and engine agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.probe.agrees(&self.outcome)
    }
}

/// A probe with another outcome than the policies demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The probe and its outcome.
    pub result: ProbeResult,
    /// The engine's decisions, one for each flow of the probe.
    pub decisions: Vec<Decision>,
}

/// The numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All probes.
    pub probed: usize,
    /// Probes that were answered.
    pub connected: usize,
    /// Probes that were dropped.
    pub dropped: usize,
    /// Probes with another outcome.
    pub other: usize,
    /// Probes for which kernel and engine disagree.
    pub mismatches: usize,
    /// Repetitions of all probes.
    pub retried: usize,
}

/// The duration of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// The first pass.
    pub first: Duration,
    /// All passes.
    pub total: Duration,
}

/// The report of a probe run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The numbers.
    pub counts: Counts,
    /// The duration, serialized in seconds.
    #[serde(serialize_with = "seconds")]
    pub durations: Durations,
    /// Every probe, in the plan's order.
    pub probes: Vec<ProbeResult>,
    /// The probes for which kernel and engine disagree, with reasons.
    pub mismatches: Vec<Mismatch>,
    /// What was not probed.
    pub not_probed: Vec<NotProbed>,
}

impl Report {
    pub(super) fn of(
        layout: &Layout,
        plan: &Plan,
        outcomes: &[Outcome],
        retried: usize,
        durations: Durations,
    ) -> Self {
        let result = |(probe, outcome): (&Probe, &Outcome)| ProbeResult {
            probe: probe.clone(),
            outcome: outcome.clone(),
        };
        let probes: Vec<ProbeResult> = plan.probes.iter().zip(outcomes).map(result).collect();
        let mismatches: Vec<Mismatch> = probes
            .iter()
            .filter(|t| !t.agrees())
            .map(|t| Mismatch { result: t.clone(), decisions: decisions(layout, &t.probe) })
            .collect();
        let count = |f: fn(&Outcome) -> bool| probes.iter().filter(|t| f(&t.outcome)).count();
        let connected = count(|o| matches!(o, Outcome::Connected { .. }));
        let dropped = count(|o| matches!(o, Outcome::TimedOut));
        let counts = Counts {
            probed: probes.len(),
            connected,
            dropped,
            other: probes.len() - connected - dropped,
            mismatches: mismatches.len(),
            retried,
        };
        Self { counts, durations, probes, mismatches, not_probed: plan.not_probed.clone() }
    }

    /// Returns whether kernel and engine agree about all probes.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.mismatches.is_empty()
    }
}

fn seconds<S: Serializer>(d: &Durations, serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_struct("Durations", 2)?;
    out.serialize_field("first", &d.first.as_secs_f64())?;
    out.serialize_field("total", &d.total.as_secs_f64())?;
    out.end()
}

/// An endpoint in JSON.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum EndpointJson<'a> {
    Pod { namespace: &'a str, name: &'a str, address: std::net::IpAddr },
    Node { name: &'a str, address: std::net::IpAddr },
    Outside { address: std::net::IpAddr },
    Service { namespace: &'a str, name: &'a str, address: std::net::IpAddr },
}

fn endpoint_json(endpoint: &Endpoint) -> EndpointJson<'_> {
    match endpoint {
        Endpoint::Pod { key, address } => {
            EndpointJson::Pod { namespace: &key.namespace, name: &key.name, address: *address }
        }
        Endpoint::Node { name, address } => EndpointJson::Node { name, address: *address },
        Endpoint::External(address) => EndpointJson::Outside { address: *address },
    }
}

fn target_json(target: &Target) -> EndpointJson<'_> {
    match target {
        Target::Direct(endpoint) => endpoint_json(endpoint),
        Target::Service { key, address } => {
            EndpointJson::Service { namespace: &key.namespace, name: &key.name, address: *address }
        }
    }
}

fn family(endpoint: &Endpoint) -> u8 {
    if Family::of(endpoint.address()) == Family::V4 { 4 } else { 6 }
}

impl Serialize for ProbeResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ProbeResult", 8)?;
        result_fields(self, &mut out)?;
        out.end()
    }
}

fn result_fields<S: SerializeStruct>(result: &ProbeResult, out: &mut S) -> Result<(), S::Error> {
    let probe = &result.probe;
    out.serialize_field("source", &endpoint_json(&probe.source))?;
    out.serialize_field("destination", &target_json(&probe.target))?;
    out.serialize_field("family", &family(&probe.source))?;
    out.serialize_field("protocol", &probe.protocol.to_string())?;
    out.serialize_field("port", &probe.port)?;
    out.serialize_field("expected", &probe.expected())?;
    out.serialize_field("outcome", &result.outcome)?;
    out.serialize_field("agrees", &result.agrees())
}

impl Serialize for Mismatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Mismatch", 9)?;
        result_fields(&self.result, &mut out)?;
        let reasons: Vec<String> = self.decisions.iter().map(decision_text).collect();
        out.serialize_field("reasons", &reasons)?;
        out.end()
    }
}

/// Returns a decision as one line of text.
fn decision_text(decision: &Decision) -> String {
    let side =
        |name: &str, verdict: Verdict, reason: &Reason| format!("{name} {verdict}: {}", reason_text(reason));
    let egress = side("egress", decision.egress.verdict, &decision.egress.reason);
    let ingress = side("ingress", decision.ingress.verdict, &decision.ingress.reason);
    format!("{egress}; {ingress}")
}

fn reason_text(reason: &Reason) -> String {
    match reason {
        Reason::Itself => "a pod always reaches itself".to_owned(),
        Reason::NoSubject => "policies apply to pods only".to_owned(),
        Reason::OwnNode => "the peer is the pod's own node".to_owned(),
        Reason::NotIsolated => "no policy isolates the pod".to_owned(),
        Reason::Hairpin => "a pod reaches itself through a service".to_owned(),
        Reason::Rule(rule) => format!("rule {} of {}", rule.index + 1, rule.policy),
        Reason::Isolated { policies, .. } => {
            let names: Vec<String> = policies.iter().map(|(key, _)| key.to_string()).collect();
            format!("isolated by {}, and no rule matches", names.join(", "))
        }
    }
}

impl Mismatch {
    /// Returns the mismatch as one line of text.
    #[must_use]
    pub fn summary(&self) -> String {
        let probe = &self.result.probe;
        let to = match &probe.target {
            Target::Direct(e) => e.to_string(),
            Target::Service { key, address } => format!("service {key} ({address})"),
        };
        let expected = match probe.expected() {
            Expected::Allowed => "allowed",
            Expected::Denied => "denied",
            Expected::Either => "allowed or denied, depending on the backend",
            Expected::NoBackend => "the service has no backend",
        };
        let reasons: Vec<String> = self.decisions.iter().map(decision_text).collect();
        format!(
            "{} to {to}, {} port {}: {}, expected: {expected} ({})",
            probe.source,
            probe.protocol,
            probe.port,
            self.result.outcome,
            reasons.join(" | ")
        )
    }
}
