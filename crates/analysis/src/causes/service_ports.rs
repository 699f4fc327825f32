//! The port of a Service where the port of its pods is needed: policies are evaluated after the translation (SEMANTICS G-1).

use palisade_policy::{PortMatch, Service};

use super::{
    Finding,
    case::{Case, port_text, short_text, targets},
};

/// A rule has the port of a Service, or its name.
pub(crate) fn in_rules(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (miss, port) in case.ports() {
        for service in case.services() {
            let is_range = matches!(port, PortMatch::Numbers { first, last, .. } if first != last);
            out.extend(meant(case, service, port).map(|(text, new)| Finding {
                code: "service-port",
                text,
                origin: miss.origin.cloned(),
                // A range may have other ports that are needed.
                mend: Some(if is_range { case.add_port(&miss, new) } else { case.replace_port(&miss, new) }),
            }));
        }
    }
    out
}

/// Returns whether a port of a rule is that of a Service where the port of its pods is asked about: in words, and with the
/// port of the pods.
pub(crate) fn meant(case: &Case<'_>, service: &Service, port: &PortMatch) -> Option<(String, PortMatch)> {
    let pod = case.destination_pod()?;
    service.ports.iter().find_map(|own| {
        let wanted = targets(pod, own.protocol, &own.target);
        let number = wanted.into_iter().find(|n| case.pair.traffic.contains(own.protocol, *n))?;
        let what = match port {
            PortMatch::Numbers { protocol, first, last }
                if (*first..=*last).contains(&own.port) && *protocol == own.protocol =>
            {
                format!("{} is the port", own.port)
            }
            PortMatch::Named { protocol, name }
                if Some(name) == own.name.as_ref() && protocol.is_none_or(|p| p == own.protocol) =>
            {
                format!("\"{name}\" is the name of a port")
            }
            _ => return None,
        };
        let listens = port_text(pod, own.protocol, number);
        let text = format!("{what} of Service {}; its pods listen on {listens}", service.key);
        Some((text, PortMatch::Numbers { protocol: own.protocol, first: number, last: number }))
    })
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
