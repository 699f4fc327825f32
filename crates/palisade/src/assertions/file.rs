//! Reads files of assertions, with the position of everything that is said about them.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail};
use ipnet::IpNet;
use palisade_analysis::assertion::{AskedTraffic, Expectation};
use palisade_manifest::{
    printable,
    scalar::Scalar,
    tree::{At, Value},
};
use palisade_policy::{Name, PortSet, Protocol, Selector, Traffic};

use super::selector;
pub(super) use crate::fields::Place;
use crate::{fields::Fields as Source, inputs::texts::bounded};

/// The version of the format.
pub(super) const SCHEMA: &str = "palisade.test/v1";

/// The largest file.
const LARGEST: u64 = 16 << 20;

/// An assertion as written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) reason: Option<String>,
    pub(super) from: Vec<WrittenEnd>,
    pub(super) to: Vec<WrittenEnd>,
    pub(super) ports: Vec<WrittenPort>,
    pub(super) expect: Expectation,
    pub(super) place: Place,
}

impl Written {
    /// Whether another one says the same, wherever it is and whatever its reason.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let kinds = |ends: &[WrittenEnd]| ends.iter().map(|end| end.kind.clone()).collect::<Vec<_>>();
        self.expect == other.expect
            && self.ports == other.ports
            && kinds(&self.from) == kinds(&other.from)
            && kinds(&self.to) == kinds(&other.to)
    }
}

/// An end as written, with its line.
#[derive(Clone, Debug)]
pub(super) struct WrittenEnd {
    pub(super) kind: EndKind,
    pub(super) place: Place,
}

/// The kinds of ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EndKind {
    /// As on the command line.
    Word(String),
    /// Pods by labels, in namespaces by name or labels.
    Pods { namespace: Option<Name>, namespaces: Option<Selector>, pods: Selector },
    /// Addresses.
    Block { cidr: IpNet, except: Vec<IpNet> },
}

/// A port as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WrittenPort {
    Numbers(Protocol, u16, u16),
    Name(Name, Protocol),
    Icmp,
}

/// Returns the traffic of some ports; everything if there are none.
pub(super) fn traffic(ports: &[WrittenPort]) -> AskedTraffic {
    if ports.is_empty() {
        return AskedTraffic::all();
    }
    let mut out = AskedTraffic { numbers: Traffic::none(), names: BTreeSet::new() };
    for port in ports {
        match port {
            WrittenPort::Numbers(protocol, first, last) => {
                out.numbers = out.numbers.union(&Traffic::of(*protocol, PortSet::range(*first, *last)));
            }
            WrittenPort::Name(name, protocol) => drop(out.names.insert((name.clone(), *protocol))),
            WrittenPort::Icmp => {
                out.numbers = out.numbers.union(&Traffic::of(Protocol::Other(1), PortSet::all()));
            }
        }
    }
    out
}

/// Reads a file.
///
/// # Errors
/// When it can't be read, is no YAML, or has a field or value that is none of the format's.
pub(super) fn read(path: &Path) -> Result<Vec<Written>> {
    let name = path.display().to_string();
    parse(&name, &bounded(path, LARGEST)?)
}

/// Reads the text of a file.
///
/// # Errors
/// As [`read`].
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Written>> {
    let source = Source { name, text };
    let mut out: Vec<Written> = Vec::new();
    let documents = source.documents(|root| source.document(root, &mut out))?;
    if documents == 0 || out.is_empty() {
        bail!("{name} has no assertions");
    }
    Ok(out)
}

impl Source<'_> {
    fn document(&self, root: &At<'_>, out: &mut Vec<Written>) -> Result<()> {
        if root.get("apiVersion").is_some() && root.get("kind").is_some() {
            return self.error(root, "a Kubernetes object and no assertions; manifests are given with -f");
        }
        self.only(root, &["$schema", "schema", "assertions"])?;
        match root.get("schema") {
            Some(at) if self.text_of(&at)? != SCHEMA => {
                return self.error(&at, &format!("this version reads `{SCHEMA}` only"));
            }
            Some(_) => {}
            None => return self.error(root, &format!("`schema: {SCHEMA}` is missing")),
        }
        let Some(list) = root.get("assertions") else {
            return self.error(root, "`assertions` is missing");
        };
        if !matches!(list.value(), Value::Sequence(_)) {
            return self.error(&list, "must be a list");
        }
        for item in list.items() {
            let written = self.assertion(&item)?;
            if let Some(same) = out.iter().find(|other| other.name == written.name) {
                return self.error(
                    &item,
                    &format!("the name `{}` is given twice; first at {}", written.name, same.place),
                );
            }
            out.push(written);
        }
        Ok(())
    }

    fn assertion(&self, at: &At<'_>) -> Result<Written> {
        self.only(at, &["name", "reason", "from", "to", "ports", "expect"])?;
        let required = |key: &str| match at.get(key) {
            Some(found) => Ok(found),
            None => self.error(at, &format!("`{key}` is missing")),
        };
        let name = self.text_of(&required("name")?)?;
        let expect = required("expect")?;
        let expectation = match &*self.text_of(&expect)? {
            "allow" => Expectation::Allow,
            "deny" => Expectation::Deny,
            "only" => Expectation::Only,
            _ => return self.error(&expect, "must be allow, deny or only"),
        };
        let ports = match at.get("ports") {
            None => Vec::new(),
            Some(list) => {
                let ports = self.list(&list, |port| self.port(port))?;
                if ports.is_empty() {
                    return self.error(&list, "must have a port; leave the field out for all traffic");
                }
                ports
            }
        };
        Ok(Written {
            name,
            reason: at.get("reason").map(|reason| self.text_of(&reason)).transpose()?,
            from: self.ends(&required("from")?)?,
            to: self.ends(&required("to")?)?,
            ports,
            expect: expectation,
            place: self.place(at),
        })
    }

    fn ends(&self, at: &At<'_>) -> Result<Vec<WrittenEnd>> {
        let ends = self.list(at, |end| {
            let kind = match end.value() {
                Value::Scalar(_) => EndKind::Word(self.text_of(end)?),
                _ => self.end(end)?,
            };
            Ok(WrittenEnd { kind, place: self.place(end) })
        })?;
        if ends.is_empty() { self.error(at, "must not be empty") } else { Ok(ends) }
    }

    fn end(&self, at: &At<'_>) -> Result<EndKind> {
        self.only(at, &["pods", "namespace", "namespaces", "cidr", "except"])?;
        if let Some(cidr) = at.get("cidr") {
            if at.entries().any(|(key, ..)| !matches!(key, "cidr" | "except")) {
                return self.error(at, "`cidr` can't be combined with pods or namespaces");
            }
            let except = at.get("except").map(|list| self.list(&list, |one| self.net(one))).transpose()?;
            return Ok(EndKind::Block { cidr: self.net(&cidr)?, except: except.unwrap_or_default() });
        }
        if at.get("except").is_some() {
            return self.error(at, "`except` needs `cidr`");
        }
        let selector = |key: &str| at.get(key).map(|labels| self.selector(&labels)).transpose();
        let namespace = at.get("namespace").map(|name| self.text_of(&name)).transpose()?;
        let (pods, namespaces) = (selector("pods")?, selector("namespaces")?);
        if namespace.is_some() && namespaces.is_some() {
            return self.error(at, "give `namespace` (a name) or `namespaces` (labels)");
        }
        if namespace.is_none() && namespaces.is_none() && pods.is_none() {
            return self.error(at, "must have pods, namespace, namespaces or cidr");
        }
        let pods = pods.unwrap_or_else(Selector::everything);
        Ok(EndKind::Pods { namespace: namespace.map(Into::into), namespaces, pods })
    }

    /// Reads labels: a mapping, or a selector as kubectl writes it.
    fn selector(&self, at: &At<'_>) -> Result<Selector> {
        let parsed = match at.value() {
            Value::Mapping(_) => {
                let pairs: Result<Vec<(String, String)>> =
                    at.entries().map(|(key, _, value)| Ok((key.to_owned(), self.text_of(&value)?))).collect();
                let pairs = pairs?;
                selector::of_labels(pairs.iter().map(|(key, value)| (&**key, &**value)))
            }
            _ => selector::parse(&self.text_of(at)?),
        };
        parsed.or_else(|error| self.error(at, &error.to_string()))
    }

    fn net(&self, at: &At<'_>) -> Result<IpNet> {
        let text = self.text_of(at)?;
        match text.parse::<IpNet>() {
            Ok(net) if net.trunc() == net => Ok(net),
            Ok(net) => self.error(at, &format!("`{text}` has host bits; did you mean {}?", net.trunc())),
            Err(_) => self.error(at, &format!("`{}` is not a CIDR", printable(&text))),
        }
    }

    fn port(&self, at: &At<'_>) -> Result<WrittenPort> {
        let text = match at.value() {
            Value::Scalar(Scalar::Int(number)) => number.to_string(),
            _ => self.text_of(at)?,
        };
        let parsed = port(&text);
        let help = "use 443, 8000-8100, https, 53/UDP, https/TCP or ICMP";
        match parsed {
            Some(port) => Ok(port),
            None => self.error(at, &format!("`{}` is not a port; {help}", printable(&text))),
        }
    }
}

/// Reads `443`, `8000-8100`, `https`, each with `/PROTOCOL`, or `ICMP`.
fn port(text: &str) -> Option<WrittenPort> {
    if text.eq_ignore_ascii_case("icmp") {
        return Some(WrittenPort::Icmp);
    }
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = match &*protocol.to_ascii_uppercase() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return None,
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0);
    if let Some(number) = number(port) {
        return Some(WrittenPort::Numbers(protocol, number, number));
    }
    if let Some((first, last)) = port.split_once('-')
        && let (Some(first), Some(last)) = (number(first), number(last))
    {
        return (first <= last).then_some(WrittenPort::Numbers(protocol, first, last));
    }
    // SEMANTICS A.3 (6).
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let named = (1..=15).contains(&port.len())
        && port.bytes().all(legal)
        && port.bytes().any(|b| b.is_ascii_lowercase());
    named.then(|| WrittenPort::Name(port.into(), protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse("t.yaml", text).expect_err("it is refused").to_string()
    }

    #[test]
    fn ports_are_read() {
        assert_eq!(port("443"), Some(WrittenPort::Numbers(Protocol::Tcp, 443, 443)));
        assert_eq!(port("8000-8100/udp"), Some(WrittenPort::Numbers(Protocol::Udp, 8000, 8100)));
        assert_eq!(port("https"), Some(WrittenPort::Name("https".into(), Protocol::Tcp)));
        assert_eq!(port("icmp"), Some(WrittenPort::Icmp));
        for bad in ["0", "65536", "", "9-3", "443/x", "HTTP", "a-name-that-is-too-long"] {
            assert_eq!(port(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let with = |rest: &str| format!("schema: palisade.test/v1\nassertions:\n- name: a\n{rest}");
        assert!(refusal("").contains("has no assertions"));
        assert!(refusal("assertions: [").contains("t.yaml:1:"));
        let manifest = refusal("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n");
        assert!(manifest.contains("t.yaml:1:1: a Kubernetes object and no assertions"), "{manifest}");
        assert!(refusal("schema: palisade.test/v2\nassertions: []").contains("palisade.test/v1` only"));
        assert!(
            refusal(&with("  form: x\n"))
                .contains("t.yaml:4:3: assertions[0].form: unknown field `form`; did you mean `from`?")
        );
        let other = refusal(&with("  verdict: x\n"));
        assert!(
            other.contains("unknown field `verdict`; there are name, reason, from, to, ports, expect"),
            "{other}"
        );
        assert!(refusal(&with("  expect: perhaps\n")).contains("must be allow, deny or only"));
        let end = |end: &str| with(&format!("  expect: deny\n  to: x\n  from: {end}\n"));
        assert!(refusal(&end("{cidr: 10.0.0.1/8}")).contains("did you mean 10.0.0.0/8?"));
        assert!(refusal(&end("{pods: {a: b}, cidr: 10.0.0.0/8}")).contains("can't be combined"));
        assert!(refusal(&end("[]")).contains("must not be empty"));
        assert!(refusal(&end("{pods: {a: 1}}")).contains("put it in quotes"));
        assert!(refusal(&end("{pods: 'a in b'}")).contains("t.yaml:6:"));
    }
}
