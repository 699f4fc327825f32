//! Verdicts and ports as the lab's reports spell them.

use palisade_policy::{Direction, Protocol, Side};

use crate::reasons::{is_by_rule, lines, port_text};

/// Formats the verdict of a side and its reason as lines: `denied by ClusterNetworkPolicy …`, `allowed: …`.
pub(crate) fn verdict_lines(side: &Side, direction: Direction) -> Vec<String> {
    let mut out = lines(side, direction);
    if let Some(first) = out.first_mut() {
        let between = if is_by_rule(side) { "" } else { ":" };
        *first = format!("{}{between} {first}", side.verdict);
    }
    out
}

/// Formats ports: `TCP 80 443, UDP 53, ICMP`.
pub(crate) fn ports_text(ports: impl IntoIterator<Item = (Protocol, u16)>) -> String {
    let mut out: Vec<(Protocol, String)> = Vec::new();
    for (protocol, port) in ports {
        match out.last_mut() {
            Some((last, text)) if *last == protocol && protocol.has_ports() => *text += &format!(" {port}"),
            _ => out.push((protocol, port_text(protocol, port))),
        }
    }
    out.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}
