//! The status conditions of a cluster-wide policy.

use palisade_manifest::{Diagnostic, Severity, collapse, printable};
use serde_json::{Value, json};

/// The condition types carry our domain, since several implementations may write conditions and no type is standardized (SEMANTICS C44,
/// G-21).
const ACCEPTED: &str = "palisade.dev/Accepted";
const PROGRAMMED: &str = "palisade.dev/Programmed";
/// The longest message of a condition. The API allows 32 KiB, which is more than a person reads.
const MAX_MESSAGE: usize = 4096;

/// A condition, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Whether a policy is in this node's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Programmed {
    /// The kernel has not been updated yet.
    Pending,
    Yes,
    /// The kernel refused it, for this reason. An earlier version of the policy may still be enforced.
    No(String),
    /// Nothing is enforced, not even what was programmed before, for this reason.
    NotEnforced(String),
}

/// Returns the conditions of a policy with these findings.
pub(super) fn desired(findings: &[Diagnostic], programmed: &Programmed) -> [Condition; 2] {
    let refused = findings.iter().any(|d| d.severity == Severity::Error);
    let (status, reason) = match (refused, findings.is_empty()) {
        (true, _) => ("False", "Unusable"),
        (false, true) => ("True", "Accepted"),
        // Each finding names what is applied instead of the part that can't be used.
        (false, false) => ("True", "PartlyUnusable"),
    };
    let accepted =
        Condition { kind: ACCEPTED, status, reason, message: findings_text(findings, MAX_MESSAGE) };
    let (status, reason, message) = match programmed {
        _ if refused => (
            "False",
            "NotAccepted",
            "the policy could not be decoded; its last accepted version, if any, stays in effect",
        ),
        Programmed::Pending => ("Unknown", "Pending", ""),
        Programmed::Yes => (
            "True",
            "Programmed",
            "programmed in the kernel of the node that writes this status; a node that can't program it reports an Event",
        ),
        Programmed::No(why) => ("False", "KernelRefused", &**why),
        Programmed::NotEnforced(why) => ("False", "NotEnforced", &**why),
    };
    [accepted, Condition { kind: PROGRAMMED, status, reason, message: truncate(message, MAX_MESSAGE) }]
}

/// Returns the conditions to write, or `None` if `existing` already has them. A condition whose status changes gets the transition time
/// `now`; the others keep theirs.
pub(super) fn to_write(existing: &Value, desired: &[Condition], generation: i64, now: &str) -> Option<Value> {
    let find = |kind: &str| existing.as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let is_written = |c: &Condition| {
        find(c.kind).is_some_and(|e| {
            e["status"] == c.status
                && e["reason"] == c.reason
                && e["message"].as_str().unwrap_or_default() == c.message
                && e["observedGeneration"] == generation
        })
    };
    if desired.iter().all(is_written) {
        return None;
    }
    let conditions = desired.iter().map(|c| {
        let before = find(c.kind).filter(|e| e["status"] == c.status);
        let since = before.and_then(|e| e["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({"type": c.kind, "status": c.status, "reason": c.reason, "message": c.message,
               "observedGeneration": generation, "lastTransitionTime": since})
    });
    Some(conditions.collect())
}

/// Returns findings as text, one on each line, of at most `max` bytes.
pub(super) fn findings_text(findings: &[Diagnostic], max: usize) -> String {
    let line = |d: &Diagnostic| match &d.path {
        Some(path) => format!("{}: {}: {}", d.severity, printable(path), printable(&d.message)),
        None => format!("{}: {}", d.severity, printable(&d.message)),
    };
    let lines: Vec<String> = collapse(findings).iter().map(line).collect();
    truncate(&lines.join("\n"), max)
}

/// Truncates a text to at most `max` bytes, and marks that it is truncated.
pub(super) fn truncate(text: &str, max: usize) -> String {
    const MARK: &str = " …";
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use palisade_manifest::Code;

    use super::*;

    #[test]
    fn conditions_that_exist_are_not_written() {
        let good = desired(&[], &Programmed::Yes);
        let first = to_write(&Value::Null, &good, 3, "2026-11-23T00:00:00Z").unwrap();
        assert_eq!(first[0]["status"], "True");
        assert_eq!(to_write(&first, &good, 3, "2026-11-23T01:00:00Z"), None);
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_transition() {
        let first = to_write(&Value::Null, &desired(&[], &Programmed::Yes), 3, "then").unwrap();
        let next = to_write(&first, &desired(&[], &Programmed::No("full".to_owned())), 4, "now").unwrap();
        assert_eq!(next[0]["lastTransitionTime"], "then", "accepted before and after");
        assert_eq!(next[1]["lastTransitionTime"], "now");
        assert_eq!((&next[0]["observedGeneration"], &next[1]["message"]), (&json!(4), &json!("full")));
    }

    #[test]
    fn findings_decide_acceptance() {
        let warning = Diagnostic::new(Severity::Warning, Code::Unusable, "no known kind of peer");
        let partly = desired(std::slice::from_ref(&warning), &Programmed::Yes);
        assert_eq!((partly[0].status, partly[0].reason), ("True", "PartlyUnusable"));
        let error = Diagnostic::new(Severity::Error, Code::Invalid, "no known tier");
        let none = desired(&[warning, error], &Programmed::Yes);
        assert_eq!((none[0].status, none[1].status), ("False", "False"));
        assert!(none[0].message.contains("no known kind of peer\nerror: no known tier"));
    }

    #[test]
    fn long_texts_are_truncated_between_characters() {
        assert_eq!(truncate("äöü", 6), "äöü");
        let text = truncate(&"ä".repeat(100), 21);
        assert!(text.len() <= 21 && text.ends_with(" …"), "{text}");
    }
}
