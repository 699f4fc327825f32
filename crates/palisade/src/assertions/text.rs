//! Results for people.

use palisade_analysis::{
    Families,
    assertion::{CounterEnd, Counterexample},
};
use palisade_manifest::printable;
use palisade_policy::{Direction, Endpoint, Labels, Side, Verdict};

use super::{
    check::{Status, TestResult},
    counted,
};
use crate::{
    future_pods,
    output::{Style, styled},
    reasons,
    traffic::VisibleTraffic,
};

/// The most counterexamples that are shown of one assertion.
const SHOWN: usize = 3;

/// Returns the results, and how many there are.
pub(super) fn text(results: &[TestResult]) -> String {
    let mut out: String = results.iter().map(result).collect();
    let count = |status| results.iter().filter(|r| r.status == status).count();
    let mut parts = vec![format!("{} checked", counted(results.len(), "assertion"))];
    let words = [(Status::Holds, "hold"), (Status::Fails, "failed"), (Status::Undecided, "undecided")];
    parts.extend(
        words.into_iter().filter(|(s, _)| count(*s) > 0).map(|(s, word)| format!("{} {word}", count(s))),
    );
    if count(Status::Error) > 0 {
        parts.push(counted(count(Status::Error), "error"));
    }
    out.push_str(&parts.join(", "));
    out.push('\n');
    out
}

pub(super) fn result(result: &TestResult) -> String {
    let style = match result.status {
        Status::Holds => Style::Good,
        Status::Fails | Status::Error => Style::Bad,
        Status::Undecided => Style::Strong,
    };
    let word = styled(style, &format!("{:<9}", result.status.word()));
    let mut out = format!("{word}  {}\n", printable(&result.written.name));
    if result.status == Status::Holds {
        // What packets said.
        for message in &result.messages {
            out.push_str(&format!("  {}\n", printable(message)));
        }
        return out;
    }
    out.push_str(&explanation(result));
    out.push('\n');
    out
}

/// Returns where an assertion is, its reason, and what breaks it.
pub(crate) fn explanation(result: &TestResult) -> String {
    let mut out = format!("  --> {}\n", printable(&result.written.place.to_string()));
    if let Some(reason) = &result.written.reason {
        out.push_str(&format!("  reason: {}\n", printable(reason)));
    }
    for message in &result.messages {
        out.push_str(&format!("  {}\n", printable(message)));
    }
    for example in result.counterexamples.iter().take(SHOWN) {
        out.push_str(&counterexample(example));
    }
    let more = result.counterexamples.len().saturating_sub(SHOWN);
    if more > 0 {
        out.push_str(&format!("  and {more} more (-o json shows them)\n"));
    }
    out
}

fn counterexample(example: &Counterexample) -> String {
    let verdict = example.decision.verdict();
    let word = if example.undecided { "may be allowed" } else { verdict_word(verdict) };
    let style = if example.undecided { Style::Strong } else { Style::Bad };
    let (from, to) = (end(&example.source), end(&example.destination));
    let traffic = VisibleTraffic::of(&example.traffic).text();
    let families = match example.families {
        Families { v4: true, v6: true } => "",
        Families { v4: true, .. } => ", IPv4",
        Families { .. } => ", IPv6",
    };
    let mut out = format!(
        "  {}  {} → {}  {traffic}{families}\n",
        styled(style, word),
        printable(&from),
        printable(&to)
    );
    for end in [&example.source, &example.destination] {
        if let Some(future) = &end.future {
            let name = if std::ptr::eq(end, &raw const example.source) { "source" } else { "destination" };
            let set = future_pods::pods_text(&future.set);
            out.push_str(&format!("    the {name} doesn't exist yet: it stands for {}\n", printable(&set)));
        }
    }
    let sides =
        [(Direction::Egress, &example.decision.egress), (Direction::Ingress, &example.decision.ingress)];
    for (direction, side) in sides {
        // What allows, if it should be denied; what denies, if it should be allowed.
        if side.verdict == verdict {
            out.push_str(&side_text(direction, side));
        }
    }
    out
}

fn side_text(direction: Direction, side: &Side) -> String {
    let lines = reasons::lines(side, direction);
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        let head = if number == 0 {
            format!("{:<9} {:<8} ", format!("{direction}:"), side.verdict.to_string())
        } else {
            " ".repeat(19)
        };
        out.push_str(&format!("    {head}{}\n", printable(line)));
    }
    out
}

pub(super) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    }
}

/// Describes an end. The address of a pod that doesn't exist, or that has none yet, is no real one.
pub(super) fn end(end: &CounterEnd) -> String {
    match (&end.endpoint, &end.future) {
        (_, Some(future)) => {
            let labels = labels(&future.pod.labels);
            let ports =
                future.pod.ports.iter().filter_map(|port| {
                    Some(format!("{}={}/{}", port.name.as_ref()?, port.port, port.protocol))
                });
            let ports: Vec<String> = ports.collect();
            let with = (!labels.is_empty()).then(|| format!(" with {labels}"));
            let called = (!ports.is_empty()).then(|| format!(" and the ports {}", ports.join(",")));
            let pod = format!("a new pod{}{}", with.unwrap_or_default(), called.unwrap_or_default());
            match &future.namespace {
                None => format!("{pod} in namespace {}", future.pod.key.namespace),
                Some(namespace) => {
                    let name = &*namespace.name;
                    let own: Labels = namespace
                        .labels
                        .iter()
                        .filter(|(key, _)| &***key != palisade_policy::NAMESPACE_NAME_LABEL)
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    let named = if name.starts_with('?') { String::new() } else { format!(" {name}") };
                    let with =
                        if own.is_empty() { String::new() } else { format!(" with {}", self::labels(&own)) };
                    format!("{pod} in a new namespace{named}{with}")
                }
            }
        }
        (Endpoint::Pod { key, .. }, None) => match &end.workload {
            Some(workload) => format!("{}/{}/{}", key.namespace, workload.kind.to_lowercase(), workload.name),
            None => format!("{}/pod/{}", key.namespace, key.name),
        },
        (Endpoint::Node { name, .. }, None) => format!("node/{name}"),
        (Endpoint::External(address), None) => address.to_string(),
    }
}

fn labels(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
