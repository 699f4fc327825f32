//! `--zones`: what the lab's DNS servers answer.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use anyhow::{Result, bail};
use palisade_lab::dns::{ExpectedLookup, Forgery, Lookup, Records, ZoneName, Zones};
use palisade_manifest::{
    printable,
    scalar::Scalar,
    tree::{At, Value},
};
use palisade_policy::DomainName;

use crate::{connection_ends::abbreviated, fields::Fields, inputs::texts::bounded};

/// The version of the format.
const SCHEMA: &str = "palisade.lab-zones/v1";
/// The largest file. Files that a person writes have a few kilobytes.
const LARGEST: u64 = 1 << 20;
/// The most addresses, which pods connect to on each port.
const MAX_ADDRESSES: usize = 48;
/// The most names, for which each pod asks.
const MAX_NAMES: usize = 200;
/// The longest delay of an answer in milliseconds: clients wait longer.
const MAX_DELAY: u64 = 2_000;
/// The longest time to live, a week.
const MAX_TTL: u64 = 604_800;

/// Reads a file.
///
/// # Errors
/// When it can't be read, is no YAML, or has a field or value that is none of the format's.
pub(super) fn read(path: &str) -> Result<Zones> {
    parse(path, &bounded(Path::new(path), LARGEST)?)
}

fn parse(name: &str, text: &str) -> Result<Zones> {
    let source = Fields { name, text };
    let mut zones = Zones::default();
    let documents = source.documents(|root| source.zones(root, &mut zones))?;
    if documents == 0 || zones.to_ask().is_empty() {
        bail!("{name} has no names");
    }
    let (names, addresses) = (zones.names.len() + zones.asked.len(), zones.addresses().len());
    if names > MAX_NAMES {
        bail!("{name}: {names} names, but at most {MAX_NAMES} can be asked for");
    }
    if addresses > MAX_ADDRESSES {
        bail!("{name}: {addresses} addresses, but at most {MAX_ADDRESSES} can be probed");
    }
    Ok(zones)
}

impl Fields<'_> {
    fn zones(&self, root: &At<'_>, out: &mut Zones) -> Result<()> {
        self.only(root, &["$schema", "schema", "servers", "names", "asked"])?;
        match root.get("schema") {
            Some(at) if self.text_of(&at)? != SCHEMA => {
                return self.error(&at, &format!("this version reads `{SCHEMA}` only"));
            }
            Some(_) => {}
            None => return self.error(root, &format!("`schema: {SCHEMA}` is missing")),
        }
        if let Some(servers) = root.get("servers") {
            out.servers.extend(self.list(&servers, |at| self.address(at))?);
        }
        if let Some(names) = root.get("names") {
            if !matches!(names.value(), Value::Mapping(_)) {
                return self.error(&names, "must be a mapping of names");
            }
            for (key, position, value) in names.entries() {
                let Some(name) = DomainName::new(key) else {
                    return self.error(&position, &format!("`{}` is no host name", printable(key)));
                };
                let zone = self.zone(&value)?;
                if out.names.insert(name.clone(), zone).is_some() {
                    return self.error(&position, &format!("the name {name} is given twice"));
                }
            }
        }
        if let Some(asked) = root.get("asked") {
            out.asked.extend(self.list(&asked, |at| self.name(at))?);
        }
        Ok(())
    }

    fn zone(&self, at: &At<'_>) -> Result<ZoneName> {
        const KINDS: [&str; 5] = ["addresses", "alias", "subtree", "missing", "silent"];
        self.only(at, &[&KINDS[..], &["rotate", "ttl", "delay", "truncated", "forged"]].concat())?;
        let given: Vec<(&str, At<'_>)> =
            KINDS.into_iter().filter_map(|kind| Some((kind, at.get(kind)?))).collect();
        let [(kind, value)] = &given[..] else {
            return self.error(at, &format!("must have one of {}", KINDS.join(", ")));
        };
        let rotate = self.is_true(at, "rotate")?;
        if rotate && *kind != "addresses" {
            return self.error(at, "`rotate` needs `addresses`");
        }
        let records = match *kind {
            "addresses" => {
                Records::Addresses { addresses: self.list(value, |one| self.address(one))?, rotate }
            }
            "alias" => Records::Alias(self.name(value)?),
            "subtree" => Records::Subtree(self.name(value)?),
            kind if !self.is_true(at, kind)? => {
                return self.error(value, "must be true; leave the name out otherwise");
            }
            "missing" => Records::Missing,
            _ => Records::Silence,
        };
        let mut zone = ZoneName::new(records);
        if let Some(ttl) = at.get("ttl") {
            zone.ttl = u32::try_from(self.number(&ttl, MAX_TTL)?)?;
        }
        if let Some(delay) = at.get("delay") {
            zone.delay = Duration::from_millis(self.number(&delay, MAX_DELAY)?);
        }
        zone.truncated = self.is_true(at, "truncated")?;
        if let Some(forged) = at.get("forged") {
            self.forged(&forged, &mut zone)?;
        }
        Ok(zone)
    }

    fn forged(&self, at: &At<'_>, zone: &mut ZoneName) -> Result<()> {
        self.only(at, &["addresses", "by"])?;
        let Some(addresses) = at.get("addresses") else {
            return self.error(at, "`addresses` is missing");
        };
        zone.forged_addresses = self.list(&addresses, |one| self.address(one))?;
        zone.forged = match at.get("by") {
            Some(by) => self.list(&by, |one| self.forgery(one))?.into_iter().collect(),
            None => Forgery::ALL.into(),
        };
        Ok(())
    }

    fn forgery(&self, at: &At<'_>) -> Result<Forgery> {
        match &*self.text_of(at)? {
            "wrong-id" => Ok(Forgery::WrongId),
            "other-question" => Ok(Forgery::OtherQuestion),
            "other-source" => Ok(Forgery::OtherSource),
            _ => self.error(at, "must be wrong-id, other-question or other-source"),
        }
    }

    fn name(&self, at: &At<'_>) -> Result<DomainName> {
        let text = self.text_of(at)?;
        match DomainName::new(&text) {
            Some(name) => Ok(name),
            None => self.error(at, &format!("`{}` is no host name", printable(&text))),
        }
    }

    fn address(&self, at: &At<'_>) -> Result<IpAddr> {
        let text = self.text_of(at)?;
        match text.parse() {
            Ok(address) => Ok(address),
            Err(_) => self.error(at, &format!("`{}` is no address", printable(&text))),
        }
    }

    fn is_true(&self, at: &At<'_>, key: &str) -> Result<bool> {
        let Some(value) = at.get(key) else { return Ok(false) };
        match value.value() {
            Value::Scalar(Scalar::Bool(is)) => Ok(*is),
            _ => self.error(&value, "must be true or false"),
        }
    }

    fn number(&self, at: &At<'_>, most: u64) -> Result<u64> {
        let number = match at.value() {
            Value::Scalar(Scalar::Int(number)) => number.to_string().parse().ok(),
            _ => None,
        };
        match number.filter(|number| *number <= most) {
            Some(number) => Ok(number),
            None => self.error(at, &format!("must be a number from 0 to {most}")),
        }
    }
}

/// Formats what is expected of the names, below a matrix: their addresses, or why there are none.
pub(super) fn legend(lookups: &[Lookup]) -> String {
    let mut names: Vec<&DomainName> = lookups.iter().map(|lookup| &lookup.name).collect();
    names.sort();
    names.dedup();
    let mut out = String::new();
    for name in names {
        let of_name: Vec<&Lookup> = lookups.iter().filter(|lookup| lookup.name == *name).collect();
        let addresses: BTreeSet<IpAddr> = of_name
            .iter()
            .filter_map(|lookup| match &lookup.expected {
                ExpectedLookup::Addresses(addresses) => Some(addresses),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        let has = |expected: &ExpectedLookup| of_name.iter().any(|lookup| lookup.expected == *expected);
        let what = if !addresses.is_empty() {
            let all: Vec<IpAddr> = addresses.into_iter().collect();
            format!("is {}", abbreviated(&all, ToString::to_string))
        } else if has(&ExpectedLookup::NoSuchName) {
            "does not exist".to_owned()
        } else if has(&ExpectedLookup::NoAddress) || has(&ExpectedLookup::Loop) {
            "has no address".to_owned()
        } else {
            "is not answered".to_owned()
        };
        out += &format!("  {name} {what}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rest: &str) -> Result<Zones> {
        parse("zones.yaml", &format!("schema: {SCHEMA}\n{rest}"))
    }

    #[test]
    fn every_field_is_read() {
        let zones = of(r#"
servers: [192.0.2.53]
names:
  a.example: {addresses: [192.0.2.1, "2001:db8::1"], rotate: true, ttl: 5, delay: 300}
  B.example.: {alias: a.example}
  old.example: {subtree: new.example}
  gone.example: {missing: true}
  silent.example: {silent: true}
  liar.example: {addresses: 192.0.2.2, truncated: true, forged: {addresses: [192.0.2.66], by: wrong-id}}
asked: [x.old.example]
"#)
        .unwrap();
        let name = |text: &str| DomainName::new(text).unwrap();
        let a = &zones.names[&name("a.example")];
        assert_eq!((a.ttl, a.delay), (5, Duration::from_millis(300)));
        assert!(matches!(&a.records, Records::Addresses { addresses, rotate: true } if addresses.len() == 2));
        assert_eq!(zones.names[&name("b.example")].records, Records::Alias(name("a.example")));
        assert_eq!(zones.names[&name("old.example")].records, Records::Subtree(name("new.example")));
        assert_eq!(zones.names[&name("gone.example")].records, Records::Missing);
        assert_eq!(zones.names[&name("silent.example")].records, Records::Silence);
        let liar = &zones.names[&name("liar.example")];
        assert!(liar.truncated && liar.forged == [Forgery::WrongId].into());
        assert_eq!((zones.addresses().len(), zones.servers.len(), zones.to_ask().len()), (4, 1, 5));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let error = |rest: &str| format!("{:#}", of(rest).unwrap_err());
        assert_eq!(error("nams: {}"), "zones.yaml:2:1: nams: unknown field `nams`; did you mean `names`?");
        for (rest, part) in [
            ("names: {a.example: {}}", "must have one of addresses, alias"),
            ("names: {a.example: {alias: b.example, missing: true}}", "must have one of addresses, alias"),
            ("names: {a..b: {missing: true}}", "`a..b` is no host name"),
            ("names: {a.example: {addresses: [b]}}", "`b` is no address"),
            ("names: {a.example: {missing: true, ttl: -1}}", "must be a number from 0 to 604800"),
            ("names: {a.example: {missing: true, delay: 9000}}", "must be a number from 0 to 2000"),
            ("names: {a.example: {missing: true, rotate: true}}", "`rotate` needs `addresses`"),
            ("names: {a.example: {missing: false}}", "must be true"),
            ("names: {a.example: {addresses: [192.0.2.1], forged: {}}}", "`addresses` is missing"),
            ("names: {}", "has no names"),
        ] {
            assert!(error(rest).contains(part), "{rest}: {}", error(rest));
        }
        let many: String = (0..49).map(|n| format!("  n{n}.example: {{addresses: 192.0.2.{n}}}\n")).collect();
        assert!(error(&format!("names:\n{many}")).contains("49 addresses, but at most 48"));
    }
}
