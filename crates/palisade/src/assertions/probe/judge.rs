//! What packets said, beside what an assertion says and what the engine says.

use palisade_policy::{Cluster, Endpoint, Flow, Protocol, Verdict, reference};

use super::{
    Outcomes,
    plan::{AskedConnections, ProbePlan},
};
use crate::{
    assertions::{
        check::{Status, TestResult},
        counted,
    },
    dial::Dialed,
    escape, reasons,
};

/// The most connections of one assertion that are named for each reason.
const SHOWN: usize = 3;

/// What packets prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Passed,
    Dropped,
    /// Nothing, and why.
    Nothing(&'static str),
}

/// Returns what the end of a connection proves. The kernel of a pod answers every TCP packet that reaches it, so silence is
/// a drop; a node has a firewall of its own, a machine outside need not exist, and a UDP program need not answer.
fn proof(dialed: Dialed, flow: &Flow) -> Proof {
    match dialed {
        Dialed::Answered | Dialed::Refused => Proof::Passed,
        Dialed::Silence if flow.protocol != Protocol::Tcp => {
            Proof::Nothing("no answer, which proves nothing by UDP")
        }
        Dialed::Silence if !matches!(flow.destination, Endpoint::Pod { .. }) => {
            Proof::Nothing("no answer, which proves nothing, because the destination is no pod")
        }
        Dialed::Silence => Proof::Dropped,
        Dialed::Unreachable => Proof::Nothing("no route, or an error of the network"),
        Dialed::NotTried => Proof::Nothing("not tried in time"),
    }
}

/// What is to be said of the connections of one assertion.
#[derive(Default)]
struct Said {
    tried: usize,
    broken: Vec<String>,
    disagreeing: Vec<String>,
    unclear: Vec<String>,
}

/// Adds what packets said to a result.
pub(super) fn judge(
    result: &mut TestResult,
    asked: &AskedConnections,
    plan: &ProbePlan,
    outcomes: &Outcomes,
    cluster: &Cluster,
    accepts_incomplete: bool,
) {
    if result.status == Status::Error {
        return;
    }
    let said = said(asked, plan, outcomes, cluster);
    result.messages.push(format!(
        "packets: {} tried, {} {} it",
        counted(said.tried, "connection"),
        said.broken.len(),
        if said.broken.len() == 1 { "breaks" } else { "break" }
    ));
    for (heading, lines) in [
        ("", &said.broken),
        ("packets and engine disagree: ", &said.disagreeing),
        ("unclear: ", &said.unclear),
    ] {
        result.messages.extend(lines.iter().take(SHOWN).map(|line| format!("packets: {heading}{line}")));
        let more = lines.len().saturating_sub(SHOWN);
        if more > 0 {
            result.messages.push(format!("packets: {heading}and {more} more"));
        }
    }
    if asked.too_many > 0 {
        let text =
            format!("packets: {} not tried: too many for one run", counted(asked.too_many, "connection"));
        result.messages.push(text);
    }
    for beyond in &asked.beyond {
        result.messages.push(format!("packets: {beyond} were not tried"));
    }
    let incomplete = said.tried == 0 || !said.unclear.is_empty() || asked.too_many > 0;
    if !said.broken.is_empty() || !said.disagreeing.is_empty() {
        result.status = Status::Fails;
    } else if incomplete && result.status == Status::Holds && !accepts_incomplete {
        result.status = Status::Undecided;
        result.messages.push("by the engine it holds".to_owned());
    }
}

fn said(asked: &AskedConnections, plan: &ProbePlan, outcomes: &Outcomes, cluster: &Cluster) -> Said {
    let mut said = Said::default();
    for ((sender, place), allowed) in &asked.connections {
        let sender = &plan.senders[*sender];
        let flow = &sender.flows[*place];
        let text = || {
            let port = reasons::port_text(flow.protocol, flow.port);
            escape::plain(&format!("{} → {}  {port}", flow.source, flow.destination)).into_owned()
        };
        let dialed = match outcomes.get(&sender.pod) {
            Some(Ok(dialed)) => dialed.get(*place).copied().unwrap_or(Dialed::NotTried),
            Some(Err(error)) => {
                let line = format!("pod {}: {error}", escape::plain(&sender.pod.to_string()));
                if !said.unclear.contains(&line) {
                    said.unclear.push(line);
                }
                continue;
            }
            None => Dialed::NotTried,
        };
        let passed = match proof(dialed, flow) {
            Proof::Passed => true,
            Proof::Dropped => false,
            Proof::Nothing(why) => {
                said.unclear.push(format!("{}: {why}", text()));
                continue;
            }
        };
        said.tried += 1;
        let seen = match dialed {
            Dialed::Answered => "connected",
            Dialed::Refused => "refused by the destination, which a packet reached",
            _ => "no answer",
        };
        if passed != *allowed {
            said.broken.push(format!("{}: {seen}", text()));
        }
        let verdict = reference::decide(cluster, flow).verdict();
        if passed != (verdict == Verdict::Allow) {
            said.disagreeing.push(format!("{}: {seen}; {verdict} by the engine", text()));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use palisade_policy::ObjectKey;

    use super::*;

    fn flow(protocol: Protocol, destination: Endpoint) -> Flow {
        let source = Endpoint::Pod { key: ObjectKey::new("a", "b"), address: "10.0.0.1".parse().unwrap() };
        Flow { source, destination, protocol, port: 80, through_service: false }
    }

    #[test]
    fn only_the_silence_of_a_pod_by_tcp_is_a_drop() {
        let pod = || Endpoint::Pod { key: ObjectKey::new("a", "c"), address: "10.0.0.2".parse().unwrap() };
        let outside = || Endpoint::External("192.0.2.1".parse().unwrap());
        let of = |dialed, protocol, end| proof(dialed, &flow(protocol, end));
        assert_eq!(of(Dialed::Silence, Protocol::Tcp, pod()), Proof::Dropped);
        assert!(matches!(of(Dialed::Silence, Protocol::Udp, pod()), Proof::Nothing(_)));
        assert!(matches!(of(Dialed::Silence, Protocol::Tcp, outside()), Proof::Nothing(_)));
        assert!(matches!(of(Dialed::Unreachable, Protocol::Tcp, pod()), Proof::Nothing(_)));
        assert_eq!(of(Dialed::Refused, Protocol::Udp, pod()), Proof::Passed);
        assert_eq!(of(Dialed::Answered, Protocol::Tcp, outside()), Proof::Passed);
    }
}
