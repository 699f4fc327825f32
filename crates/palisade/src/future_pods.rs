//! Sets of pods that may exist, and their traffic, as text and as JSON values.

use std::collections::BTreeSet;

use palisade_analysis::exposure::{PodSet, PodTraffic};
use palisade_policy::{Family, IpRange, LabelSet, LabelValues, NAMESPACE_NAME_LABEL, Name, address::without};
use serde::Serialize;

use crate::{
    connection_ends::abbreviated,
    escape,
    traffic::{JsonRange, JsonTraffic, VisibleTraffic, range_text},
};

/// Formats pods: `pods app=frontend in namespace shop`, `every pod of namespaces team=sre,quarantine!=yes`,
/// `pods without app in namespace shop`, `every pod at addresses in 10.0.0.0/8`.
pub(crate) fn pods_text(set: &PodSet) -> String {
    let mut out = match set.pods.is_any() {
        true => "every pod".to_owned(),
        false => format!("pods {}", labels_text(&set.pods)),
    };
    if !set.namespaces.is_any() {
        let (names, mut rest) = names_and_rest(&set.namespaces);
        if let Some(LabelValues::NoneOf { values, .. }) = rest.get(NAMESPACE_NAME_LABEL) {
            out += &format!(" of every namespace other than {}", list(values));
            rest = rest.without(NAMESPACE_NAME_LABEL);
            if !rest.is_any() {
                out += &format!(" with {}", labels_text(&rest));
            }
            return escape::plain(&with_addresses(out, set)).into_owned();
        }
        match &names[..] {
            [] => out += " of namespaces ",
            [one] => out += &format!(" in namespace {one}"),
            some => out += &format!(" in namespaces {}", abbreviated(some, ToString::to_string)),
        }
        if !rest.is_any() {
            out += &format!("{}{}", if names.is_empty() { "" } else { " with " }, labels_text(&rest));
        }
    } else if set.addresses.is_none() {
        out += " of every namespace";
    }
    escape::plain(&with_addresses(out, set)).into_owned()
}

fn with_addresses(text: String, set: &PodSet) -> String {
    match &set.addresses {
        None => text,
        Some(ranges) => format!("{text} at {}", addresses_text(ranges)),
    }
}

/// Formats what a pod must have beyond a set: `where the namespace has role=ingress and the pod has app=x`.
pub(crate) fn condition_text(condition: &PodSet) -> String {
    let mut parts = Vec::new();
    if !condition.namespaces.is_any() {
        let (names, rest) = names_and_rest(&condition.namespaces);
        if !names.is_empty() {
            parts.push(format!(
                "the namespace is {}",
                names.iter().map(|n| &**n).collect::<Vec<_>>().join(" or ")
            ));
        }
        if !rest.is_any() {
            parts.push(format!("the namespace {}", has_text(&rest)));
        }
    }
    if !condition.pods.is_any() {
        parts.push(format!("the pod {}", has_text(&condition.pods)));
    }
    if let Some(ranges) = &condition.addresses {
        parts.push(format!("the pod is at {}", addresses_text(ranges)));
    }
    escape::plain(&format!("where {}", parts.join(" and "))).into_owned()
}

/// Returns the names of the namespaces, if these are listed, and the other constraints.
fn names_and_rest(namespaces: &LabelSet) -> (Vec<Name>, LabelSet) {
    match namespaces.get(NAMESPACE_NAME_LABEL) {
        Some(LabelValues::OneOf(names)) => {
            (names.iter().cloned().collect(), namespaces.without(NAMESPACE_NAME_LABEL))
        }
        _ => (Vec::new(), namespaces.clone()),
    }
}

fn list(values: &BTreeSet<Name>) -> String {
    values.iter().map(|v| &**v).collect::<Vec<_>>().join(", ")
}

/// Formats labels as kubectl does where it can: `app=web, tier in (a, b), without quarantine`.
fn labels_text(labels: &LabelSet) -> String {
    let words = labels.iter().map(|(key, values)| match values {
        LabelValues::Absent => format!("without {key}"),
        LabelValues::NoneOf { values, absent: false } if values.is_empty() => format!("with {key}"),
        LabelValues::NoneOf { values, absent: false } => format!("with {key} other than {}", list(values)),
        _ => values_text(key, values),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn values_text(key: &str, values: &LabelValues) -> String {
    match values {
        LabelValues::OneOf(values) if values.len() == 1 => format!("{key}={}", list(values)),
        LabelValues::OneOf(values) => format!("{key} in ({})", list(values)),
        LabelValues::NoneOf { values, .. } if values.len() == 1 => format!("{key}!={}", list(values)),
        LabelValues::NoneOf { values, .. } => format!("{key} notin ({})", list(values)),
        LabelValues::Absent => format!("!{key}"),
    }
}

/// Formats labels after a subject: `has app=web and no quarantine`.
fn has_text(labels: &LabelSet) -> String {
    let words = labels.iter().map(|(key, values)| match values {
        LabelValues::Absent => format!("no {key}"),
        LabelValues::NoneOf { values, absent: false } if values.is_empty() => key.to_string(),
        LabelValues::NoneOf { values, absent: false } => format!("{key} other than {}", list(values)),
        _ => values_text(key, values),
    });
    format!("has {}", words.collect::<Vec<_>>().join(" and "))
}

/// Formats ranges of addresses: `addresses in 10.0.0.0/8`, `IPv4 addresses except 10.0.0.0/8`, `any IPv6 address`.
fn addresses_text(ranges: &[IpRange]) -> String {
    let of_family = |family: Family| {
        let own: Vec<IpRange> = ranges.iter().filter(|r| Family::of(r.first) == family).copied().collect();
        let others = without(IpRange::whole(family), own.iter().copied());
        if own.is_empty() {
            None
        } else if others.is_empty() {
            Some(format!("any {family} address"))
        } else if others.len() < own.len() {
            Some(format!("{family} addresses except {}", abbreviated(&others, range_text)))
        } else {
            Some(format!("addresses in {}", abbreviated(&own, range_text)))
        }
    };
    Family::BOTH.into_iter().filter_map(of_family).collect::<Vec<_>>().join(" or ")
}

/// Formats traffic with pods: `TCP 80; port "http"/TCP`, `all`, `nothing`.
pub(crate) fn traffic_text(traffic: &PodTraffic) -> String {
    let numbers = VisibleTraffic::of(&traffic.numbers);
    // A name can't add to all ports.
    let named = traffic.named.iter().filter(|(_, protocol)| !has_all_ports(traffic, *protocol));
    let named =
        named.map(|(name, protocol)| escape::plain(&format!("port \"{name}\"/{protocol}")).into_owned());
    let numbers = (!numbers.is_none()).then(|| numbers.text());
    let words: Vec<String> = numbers.into_iter().chain(named).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join("; ") }
}

fn has_all_ports(traffic: &PodTraffic, protocol: palisade_policy::Protocol) -> bool {
    let ports = traffic.numbers.ports(protocol);
    ports.contains(1) && ports.ranges().iter().any(|(first, last)| *first <= 1 && *last == u16::MAX)
}

/// Pods that may exist, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct JsonFuturePods {
    /// For people.
    text: String,
    /// The names of the namespaces; absent if they are not listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<String>,
    /// The selector of the namespaces' labels, as kubectl accepts it; empty for all.
    namespace_selector: String,
    /// The selector of the pods' labels, as kubectl accepts it; empty for all.
    pod_selector: String,
    /// The addresses of the pods; absent for any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<JsonRange>,
}

impl From<&PodSet> for JsonFuturePods {
    fn from(set: &PodSet) -> Self {
        let (names, rest) = names_and_rest(&set.namespaces);
        let selector = |labels: &LabelSet| {
            if labels.is_any() { String::new() } else { labels.selector().to_string() }
        };
        Self {
            text: pods_text(set),
            namespaces: names.iter().map(ToString::to_string).collect(),
            namespace_selector: selector(&rest),
            pod_selector: selector(&set.pods),
            addresses: set.addresses.iter().flatten().map(Into::into).collect(),
        }
    }
}

/// Traffic with pods that may exist, as JSON: [`JsonTraffic`] with the ports that such a pod determines.
#[derive(Debug, Serialize)]
pub(crate) struct JsonPodTraffic {
    #[serde(flatten)]
    numbers: JsonTraffic,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    named_ports: Vec<JsonNamedPort>,
}

#[derive(Debug, Serialize)]
struct JsonNamedPort {
    protocol: String,
    name: String,
}

impl From<&PodTraffic> for JsonPodTraffic {
    fn from(traffic: &PodTraffic) -> Self {
        let named = traffic
            .named
            .iter()
            .map(|(name, protocol)| JsonNamedPort { protocol: protocol.to_string(), name: name.to_string() });
        Self { numbers: (&traffic.numbers).into(), named_ports: named.collect() }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{IpBlock, NamespaceMatch, PodMatch, Requirement, Selector, Test};

    use super::*;

    fn labels(requirements: &[(&str, Test)]) -> Selector {
        Selector::new(requirements.iter().map(|(k, t)| Requirement { key: (*k).into(), test: t.clone() }))
    }

    fn text(namespaces: NamespaceMatch, pods: Selector) -> String {
        pods_text(&PodSet::of(&PodMatch { namespaces, pods }).unwrap())
    }

    #[test]
    fn pods_are_described_by_their_labels() {
        let values = |v: &[&str]| v.iter().map(|v| Name::from(*v)).collect::<BTreeSet<_>>();
        let shop = || NamespaceMatch::Named("shop".into());
        let any = || NamespaceMatch::Selected(Selector::everything());
        assert_eq!(text(shop(), Selector::everything()), "every pod in namespace shop");
        assert_eq!(text(any(), Selector::everything()), "every pod of every namespace");
        assert_eq!(text(any(), labels(&[("a", Test::Exists)])), "pods with a of every namespace");
        let other = labels(&[("a", Test::Exists), ("a", Test::NotIn(values(&["x"])))]);
        assert_eq!(text(shop(), other), "pods with a other than x in namespace shop");
        let not = NamespaceMatch::Selected(labels(&[("env", Test::NotIn(values(&["dev"])))]));
        assert_eq!(text(not, labels(&[("q", Test::DoesNotExist)])), "pods without q of namespaces env!=dev");
        let names = labels(&[(NAMESPACE_NAME_LABEL, Test::In(values(&["a", "b"])))]);
        let names = NamespaceMatch::Selected(names);
        assert_eq!(
            text(names, labels(&[("a", Test::In(values(&["1", "2"])))])),
            "pods a in (1, 2) in namespaces a, b"
        );
    }

    #[test]
    fn addresses_are_shortened() {
        let block = |cidr: &str, except: &[&str]| {
            let except = except.iter().map(|e| e.parse().unwrap()).collect();
            addresses_text(&IpBlock { cidr: cidr.parse().unwrap(), except }.ranges())
        };
        assert_eq!(block("10.0.0.0/8", &[]), "addresses in 10.0.0.0/8");
        assert_eq!(block("0.0.0.0/0", &["10.0.0.0/8"]), "IPv4 addresses except 10.0.0.0/8");
        assert_eq!(block("::/0", &[]), "any IPv6 address");
    }
}
