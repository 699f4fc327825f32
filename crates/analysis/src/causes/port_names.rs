//! Names of ports that name no port of the destination: a name is resolved on the destination pod (SEMANTICS A27).

use palisade_policy::{Endpoint, Pod, PortMatch, Protocol};

use super::{
    Finding,
    case::{Case, Miss, port_text, short_text},
};

pub(crate) fn find(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (miss, port) in case.ports() {
        let PortMatch::Named { protocol, name } = port else { continue };
        match (case.destination_pod(), &case.pair.destination) {
            (Some(pod), _) => out.extend(of_pod(case, &miss, pod, *protocol, name)),
            (None, Endpoint::External(_) | Endpoint::Node { .. }) => out.push(Finding {
                code: "port-name-outside",
                text: format!(
                    "\"{name}\" is the name of a container port, which no address outside the pod network has; give the number"
                ),
                origin: miss.origin.cloned(),
                mend: case.asked_port().map(|(protocol, number)| case.replace_port(&miss, numbered(protocol, number))),
            }),
            (None, Endpoint::Pod { .. }) => {}
        }
    }
    out
}

fn numbered(protocol: Protocol, number: u16) -> PortMatch {
    PortMatch::Numbers { protocol, first: number, last: number }
}

fn of_pod(
    case: &Case<'_>,
    miss: &Miss<'_>,
    pod: &Pod,
    wanted: Option<Protocol>,
    name: &str,
) -> Option<Finding> {
    let (asked_protocol, asked) = case.asked_port()?;
    let named = pod.named_ports(name, None).next();
    let who = short_text(pod);
    // The API requires the protocol of the rule to be that of the container port.
    let (code, text) = match (named, wanted) {
        (None, _) => {
            let declared: Vec<String> =
                pod.ports.iter().take(4).map(|p| port_text(pod, p.protocol, p.port)).collect();
            let declared = match declared.is_empty() {
                true => "they declare no port".to_owned(),
                false => format!("they declare {}", declared.join(", ")),
            };
            ("unknown-port-name", format!("no pod of {who} has a port named \"{name}\"; {declared}"))
        }
        (Some((protocol, number)), Some(wanted)) if protocol != wanted && number == asked => {
            let text = format!("port \"{name}\" of {who} is {protocol}; the rule allows {wanted}");
            ("port-protocol", text)
        }
        _ => return None,
    };
    let declared = pod.ports.iter().find(|p| p.protocol == asked_protocol && p.port == asked);
    let new = match declared.and_then(|p| p.name.clone()) {
        Some(name) => PortMatch::Named { protocol: Some(asked_protocol), name },
        None => numbered(asked_protocol, asked),
    };
    Some(Finding { code, text, origin: miss.origin.cloned(), mend: Some(case.replace_port(miss, new)) })
}
