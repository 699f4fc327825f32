//! The result of a replay as text.

use std::fmt::Write as _;

use palisade_analysis::replay::NotJudged;

use super::{
    outcome::{Connection, Counted, Group, Replay, end_name},
    recording::Recording,
};
use crate::{
    escape,
    inputs::plural,
    output::{Style, styled},
    reasons,
};

/// The most connections that are listed of a group.
const SHOWN: usize = 20;

/// Formats the result.
pub(super) fn text(replay: &Replay, recording: &Recording) -> String {
    let records: u64 = recording.flows.values().map(|tally| tally.records).sum();
    let number = |groups: &[Group]| groups.iter().map(|group| group.connections.len()).sum::<usize>();
    let undecided: u64 = replay.undecided.values().map(|of| of.counted.connections).sum();
    let mut out = format!(
        "{records} {} replayed, {} different {}: {} newly dropped, {} newly allowed, {} unchanged, {undecided} undecided\n",
        plural(usize::try_from(records).unwrap_or(usize::MAX), "record"),
        recording.flows.len(),
        plural(recording.flows.len(), "connection"),
        number(&replay.dropped),
        number(&replay.allowed),
        replay.unchanged.connections,
    );
    for (groups, style, word) in [
        (&replay.dropped, Style::Bad, "would be dropped"),
        (&replay.allowed, Style::Good, "would be allowed"),
    ] {
        for group in groups {
            _ = write!(out, "\n{}", styled(style, word));
            add_group(group, &mut out);
        }
    }
    out
}

fn add_group(group: &Group, out: &mut String) {
    let reasons = group.sides.iter().filter_map(|(direction, side)| {
        Some(format!("{direction}: {}", reasons::lines(side, *direction).into_iter().next()?))
    });
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    _ = writeln!(out, ", {}", escape::plain(&reasons));
    for connection in group.connections.iter().take(SHOWN) {
        let Connection { ends, protocol, port, sides, tally } = connection;
        let [from, to] = ends.each_ref().map(|end| escape::plain(&end_name(end)).into_owned());
        let times = if tally.count == 1 { String::new() } else { format!(", {} times", tally.count) };
        _ = writeln!(
            out,
            "  {from} → {to} on {}{times} (line {})",
            reasons::port_text(*protocol, *port),
            tally.line
        );
        for (direction, side) in sides {
            for line in reasons::lines(side, *direction).into_iter().skip(1) {
                _ = writeln!(out, "    {}", escape::plain(&line));
            }
        }
    }
    if group.connections.len() > SHOWN {
        _ = writeln!(out, "  … and {} more (-o json lists all)", group.connections.len() - SHOWN);
    }
}

/// Returns what limits the answer, for standard error.
pub(super) fn notes(replay: &Replay, recording: &Recording) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (why, count) in &recording.skipped {
        out.push(format!("note: not replayed: {count} {why}"));
    }
    if recording.lost > 0 {
        out.push(format!("note: the recorder lost {} events, which can't be replayed", recording.lost));
    }
    let Counted { connections, records } = replay.by_labels;
    if connections > 0 {
        out.push(format!(
            "note: {connections} {} ({records} {}) judged by the labels in the record: the pods and their workloads are gone",
            plural(usize::try_from(connections).unwrap_or(usize::MAX), "connection"),
            plural(usize::try_from(records).unwrap_or(usize::MAX), "record"),
        ));
    }
    if replay.stale.connections > 0 {
        out.push(format!(
            "note: {} of the connections have another verdict in the record than by today's policies",
            replay.stale.connections
        ));
    }
    for (why, undecided) in &replay.undecided {
        let Counted { connections, .. } = undecided.counted;
        let noun = plural(usize::try_from(connections).unwrap_or(usize::MAX), "connection");
        out.push(format!(
            "undecided: {connections} {noun}, first in line {}: {}",
            undecided.line,
            escape::plain(&why_not(why))
        ));
    }
    out
}

/// Formats why a connection can't be judged.
pub(crate) fn why_not(why: &NotJudged) -> String {
    match why {
        NotJudged::PodGone(key) => {
            format!("pod {key} and its workload are gone, and the record has no labels")
        }
        NotJudged::NamespaceGone(name) => {
            format!("namespace {name} is not in the input, and policies select namespaces by labels")
        }
        NotJudged::AddressGone(address) => format!("{address} is an address of a pod that is gone"),
        NotJudged::ServiceGone(address) => {
            format!("{address} is an address of a service that is not in the input")
        }
        NotJudged::AddressUnknown(address) => {
            format!("{address} may belong to a pod, and the manifests don't have the addresses of pods")
        }
        NotJudged::NoPod(from, to) => {
            format!("neither {from} nor {to} belongs to a pod or node of the input")
        }
        NotJudged::NodeGone(address) => {
            format!("the node with the address {address} is not in the input, and policies select nodes")
        }
        NotJudged::PortName(key) => {
            format!("a rule names a port, and the ports of pod {key}, which is gone, are not known")
        }
        NotJudged::BackendAddresses(key) => {
            format!(
                "depends on the addresses of the pods behind service {key}, which the manifests don't have"
            )
        }
        NotJudged::BackendsDiffer(key) => format!("the verdicts of the pods behind service {key} differ"),
        NotJudged::NoBackend(key) => format!("service {key} has no pods on that port"),
    }
}
