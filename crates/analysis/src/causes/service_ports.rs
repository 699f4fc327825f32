//! The port of a Service where the port of its pods is needed: policies are evaluated after the translation (SEMANTICS G-1).

use palisade_policy::PortMatch;

use super::{
    Finding,
    case::{Case, port_text, short_text, targets},
};

/// A rule has the port of a Service, or its name.
pub(crate) fn in_rules(case: &Case<'_>) -> Vec<Finding> {
    let Some(pod) = case.destination_pod() else { return Vec::new() };
    let mut out = Vec::new();
    for (miss, port) in case.ports() {
        for (service, own) in case.services().flat_map(|s| s.ports.iter().map(move |p| (s, p))) {
            let wanted = targets(pod, own.protocol, &own.target);
            let mut wanted = wanted.into_iter().filter(|n| case.pair.traffic.contains(own.protocol, *n));
            let Some(number) = wanted.next() else { continue };
            let listens = format!("its pods listen on {}", port_text(pod, own.protocol, number));
            let new = PortMatch::Numbers { protocol: own.protocol, first: number, last: number };
            let text = match port {
                PortMatch::Numbers { protocol, first, last }
                    if first == last && *first == own.port && *protocol == own.protocol =>
                {
                    format!("{first} is the port of Service {}; {listens}", service.key)
                }
                PortMatch::Named { protocol, name }
                    if Some(name) == own.name.as_ref() && protocol.is_none_or(|p| p == own.protocol) =>
                {
                    format!("\"{name}\" is the name of a port of Service {}; {listens}", service.key)
                }
                _ => continue,
            };
            out.push(Finding {
                code: "service-port",
                text,
                origin: miss.origin.cloned(),
                mend: Some(case.replace_port(&miss, new)),
            });
        }
    }
    out
}

/// The question has the port of a Service, and a pod as its destination.
pub(crate) fn in_question(case: &Case<'_>) -> Vec<Finding> {
    let (Some(pod), Some((protocol, asked))) = (case.destination_pod(), case.asked_port()) else {
        return Vec::new();
    };
    if !case.is_denied || pod.ports.iter().any(|p| p.protocol == protocol && p.port == asked) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for service in case.services() {
        for own in service.ports.iter().filter(|p| p.protocol == protocol && p.port == asked) {
            for number in targets(pod, protocol, &own.target).into_iter().filter(|n| *n != asked) {
                // Nothing translates the port of a headless Service.
                let (what, port) =
                    if service.access.headless { ("headless Service", number) } else { ("Service", asked) };
                out.push(Finding {
                    code: "asked-service-port",
                    text: format!(
                        "{asked} is the port of {what} {}; the pods of {} listen on {}: ask for {}/svc/{}:{port}",
                        service.key,
                        short_text(pod),
                        port_text(pod, protocol, number),
                        service.key.namespace,
                        service.key.name,
                    ),
                    origin: None,
                    mend: None,
                });
            }
        }
    }
    out
}
