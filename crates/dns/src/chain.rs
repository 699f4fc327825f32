//! The addresses of a name in one answer.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use hickory_proto::rr::{
    DNSClass, Name, RData, Record,
    rdata::svcb::{SVCB, SvcParamValue},
};

/// The most aliases that are followed. Resolvers follow between 8 and 17 (BIND: 17).
pub(crate) const MAX_ALIASES: usize = 16;

/// The most addresses of one answer: as many as a message can contain is far more than any client tries.
pub(crate) const MAX_ADDRESSES: usize = 1_000;

/// The most HTTPS and SVCB records that are followed. Each costs as much as its target has addresses.
pub(crate) const MAX_SERVICES: usize = 64;

/// Why the addresses in the records of an answer are not definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecords {
    /// A name has two aliases, or the chain of aliases is a loop or too long.
    #[error("the chain of aliases is ambiguous, a loop, or longer than {MAX_ALIASES}")]
    Aliases,
    /// There are more HTTPS and SVCB records than any service has.
    #[error("more than {MAX_SERVICES} services")]
    Services,
    /// There are more addresses than any client uses.
    #[error("more than {MAX_ADDRESSES} addresses")]
    Addresses,
}

/// Returns the addresses of `asked` in the records of an answer, each with the shortest time to live of the records that
/// lead to it.
///
/// Only the chain of aliases from the name counts (SEMANTICS C38): other names in the answer are ignored. A DNAME comes
/// with the CNAME that it stands for (RFC 6672, section 3.1), which is followed. The hints of an HTTPS or SVCB record are
/// addresses that clients connect to without asking (RFC 9460, section 7.3), and so are the addresses of its target that a
/// server adds.
pub(crate) fn addresses(
    asked: &Name,
    answers: &[Record],
    additionals: &[Record],
) -> Result<Vec<(IpAddr, u32)>, BadRecords> {
    let answers = Index::new(answers)?;
    let additionals = Index::new(additionals).unwrap_or_default();
    let mut found = Found::default();
    let (end, ttl) = answers.follow(asked, u32::MAX)?;
    found.add_all(answers.addresses.get(end), ttl)?;
    // An alias of an SVCB record leads to another name, whose records are in the same answer.
    let (mut owner, mut ttl) = (end, ttl);
    let (mut seen, mut followed) = (HashSet::from([end]), 0);
    while let Some(services) = answers.services.get(owner) {
        followed += services.len();
        if followed > MAX_SERVICES {
            return Err(BadRecords::Services);
        }
        let mut alias = None;
        for (service, service_ttl) in services {
            let ttl = ttl.min(*service_ttl);
            // The root as target is the owner itself, for a service.
            let target = if service.target_name.is_root() { owner } else { &service.target_name };
            if service.svc_priority == 0 {
                alias = Some((target, ttl));
                continue;
            }
            found.add_hints(service, ttl)?;
            found.add_all(answers.addresses.get(target), ttl)?;
            found.add_all(additionals.addresses.get(target), ttl)?;
        }
        let Some((target, alias_ttl)) = alias else { break };
        let (target, alias_ttl) = answers.follow(target, alias_ttl)?;
        if !seen.insert(target) {
            break;
        }
        if seen.len() > MAX_ALIASES {
            return Err(BadRecords::Aliases);
        }
        found.add_all(answers.addresses.get(target), alias_ttl)?;
        found.add_all(additionals.addresses.get(target), alias_ttl)?;
        (owner, ttl) = (target, alias_ttl);
    }
    Ok(found.addresses)
}

/// Records of a section by their owner. Names compare without case.
#[derive(Default)]
struct Index<'m> {
    aliases: HashMap<&'m Name, (&'m Name, u32)>,
    addresses: HashMap<&'m Name, Vec<(IpAddr, u32)>>,
    services: HashMap<&'m Name, Vec<(&'m SVCB, u32)>>,
}

impl<'m> Index<'m> {
    /// Fails if a name has two different aliases: clients would choose one.
    fn new(records: &'m [Record]) -> Result<Self, BadRecords> {
        let mut out = Self::default();
        for record in records.iter().filter(|record| record.dns_class == DNSClass::IN) {
            let (name, ttl) = (&record.name, record.ttl);
            let address = |address: IpAddr| (address, ttl);
            match &record.data {
                RData::A(a) => out.addresses.entry(name).or_default().push(address(a.0.into())),
                RData::AAAA(a) => out.addresses.entry(name).or_default().push(address(a.0.into())),
                RData::CNAME(alias) => match out.aliases.entry(name) {
                    Entry::Vacant(entry) => drop(entry.insert((&alias.0, ttl))),
                    Entry::Occupied(known) if *known.get().0 == alias.0 => {}
                    Entry::Occupied(_) => return Err(BadRecords::Aliases),
                },
                RData::HTTPS(service) => out.services.entry(name).or_default().push((&service.0, ttl)),
                RData::SVCB(service) => out.services.entry(name).or_default().push((service, ttl)),
                _ => {}
            }
        }
        Ok(out)
    }

    /// Returns the end of the chain of aliases from a name, and the shortest time to live on the way.
    fn follow<'a>(&'a self, name: &'a Name, mut ttl: u32) -> Result<(&'a Name, u32), BadRecords> {
        let mut at = name;
        for _ in 0..=MAX_ALIASES {
            let Some((next, own)) = self.aliases.get(at) else { return Ok((at, ttl)) };
            (at, ttl) = (next, ttl.min(*own));
        }
        Err(BadRecords::Aliases)
    }
}

#[derive(Default)]
struct Found {
    addresses: Vec<(IpAddr, u32)>,
    /// The position of each.
    known: HashMap<IpAddr, usize>,
}

impl Found {
    fn add(&mut self, address: IpAddr, ttl: u32) -> Result<(), BadRecords> {
        match self.known.entry(address) {
            Entry::Occupied(at) => {
                let known = &mut self.addresses[*at.get()].1;
                *known = ttl.min(*known);
            }
            Entry::Vacant(_) if self.addresses.len() >= MAX_ADDRESSES => return Err(BadRecords::Addresses),
            Entry::Vacant(new) => {
                new.insert(self.addresses.len());
                self.addresses.push((address, ttl));
            }
        }
        Ok(())
    }

    fn add_all(&mut self, all: Option<&Vec<(IpAddr, u32)>>, ttl: u32) -> Result<(), BadRecords> {
        all.into_iter().flatten().try_for_each(|(address, own)| self.add(*address, ttl.min(*own)))
    }

    fn add_hints(&mut self, service: &SVCB, ttl: u32) -> Result<(), BadRecords> {
        for (_, value) in &service.svc_params {
            match value {
                SvcParamValue::Ipv4Hint(hint) => {
                    hint.0.iter().try_for_each(|a| self.add(a.0.into(), ttl))?;
                }
                SvcParamValue::Ipv6Hint(hint) => {
                    hint.0.iter().try_for_each(|a| self.add(a.0.into(), ttl))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{
        A, AAAA, CNAME, HTTPS,
        svcb::{IpHint, SvcParamKey},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, address: &str, ttl: u32) -> Record {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        Record::from_rdata(name(owner), ttl, data)
    }

    fn alias(owner: &str, target: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn https(owner: &str, priority: u16, target: &str, hints: &[&str]) -> Record {
        let v4 = hints.iter().filter_map(|h| h.parse().ok().map(A)).collect::<Vec<_>>();
        let v6 = hints.iter().filter_map(|h| h.parse().ok().map(AAAA)).collect::<Vec<_>>();
        let hints = vec![
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))),
            (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))),
        ];
        Record::from_rdata(name(owner), 300, RData::HTTPS(HTTPS(SVCB::new(priority, name(target), hints))))
    }

    fn found(answers: &[Record], additionals: &[Record]) -> Result<Vec<String>, BadRecords> {
        let found = addresses(&name("www.a.io."), answers, additionals)?;
        Ok(found.iter().map(|(address, ttl)| format!("{address} {ttl}")).collect())
    }

    #[test]
    fn a_chain_of_aliases_leads_to_the_addresses_in_any_order() {
        let records = [
            a("edge.cdn.net.", "198.51.100.1", 60),
            alias("WWW.a.io.", "www.cdn.net.", 300),
            a("edge.cdn.net.", "2001:db8::1", 90),
            alias("www.cdn.net.", "edge.cdn.net.", 30),
        ];
        assert_eq!(found(&records, &[]).unwrap(), ["198.51.100.1 30", "2001:db8::1 30"]);
    }

    #[test]
    fn other_names_of_the_answer_are_ignored() {
        let records = [a("other.io.", "198.51.100.9", 60), a("a.io.", "198.51.100.8", 60)];
        assert!(found(&records, &[a("www.a.io.", "198.51.100.7", 60)]).unwrap().is_empty());
        let beside = [a("www.a.io.", "198.51.100.1", 5), a("x.www.a.io.", "198.51.100.2", 5)];
        assert_eq!(found(&beside, &[]).unwrap(), ["198.51.100.1 5"]);
    }

    #[test]
    fn loops_ambiguous_aliases_and_long_chains_are_refused() {
        let ring = [alias("www.a.io.", "b.io.", 1), alias("b.io.", "www.a.io.", 1)];
        assert_eq!(found(&ring, &[]), Err(BadRecords::Aliases));
        let itself = [alias("www.a.io.", "www.a.io.", 1)];
        assert_eq!(found(&itself, &[]), Err(BadRecords::Aliases));
        let two = [alias("www.a.io.", "b.io.", 1), alias("www.a.io.", "c.io.", 1)];
        assert_eq!(found(&two, &[]), Err(BadRecords::Aliases));
        let chain = |length: usize| {
            let mut records = vec![alias("www.a.io.", "n1.io.", 9)];
            records.extend((1..length).map(|i| alias(&format!("n{i}.io."), &format!("n{}.io.", i + 1), 9)));
            records.push(a(&format!("n{length}.io."), "198.51.100.1", 9));
            found(&records, &[])
        };
        assert_eq!(chain(MAX_ALIASES).unwrap(), ["198.51.100.1 9"]);
        assert_eq!(chain(MAX_ALIASES + 1), Err(BadRecords::Aliases));
    }

    #[test]
    fn hints_and_targets_of_services_are_addresses() {
        let hinted = [https("www.a.io.", 1, ".", &["198.51.100.1", "2001:db8::1"])];
        assert_eq!(found(&hinted, &[]).unwrap(), ["198.51.100.1 300", "2001:db8::1 300"]);
        let target = [https("www.a.io.", 1, "svc.b.io.", &[])];
        let added = [a("svc.b.io.", "198.51.100.2", 20), a("other.io.", "198.51.100.3", 20)];
        assert_eq!(found(&target, &added).unwrap(), ["198.51.100.2 20"]);
        let aliased = [https("www.a.io.", 0, "b.io.", &[]), https("b.io.", 1, ".", &["198.51.100.4"])];
        assert_eq!(found(&aliased, &[]).unwrap(), ["198.51.100.4 300"]);
        let ring = [https("www.a.io.", 0, "b.io.", &[]), https("b.io.", 0, "www.a.io.", &[])];
        assert!(found(&ring, &[]).unwrap().is_empty());
        let many: Vec<Record> = (1..=66).map(|n| https("www.a.io.", n, ".", &[])).collect();
        assert_eq!(found(&many, &[]), Err(BadRecords::Services));
        assert!(found(&many[..MAX_SERVICES], &[]).unwrap().is_empty());
    }

    #[test]
    fn addresses_are_bounded_and_listed_once() {
        let many = |n: u32| (0..n).map(|i| a("www.a.io.", &std::net::Ipv4Addr::from(i).to_string(), 9));
        let all: Vec<Record> = many(MAX_ADDRESSES as u32).collect();
        assert_eq!(found(&all, &[]).unwrap().len(), MAX_ADDRESSES);
        let all: Vec<Record> = many(MAX_ADDRESSES as u32 + 1).collect();
        assert_eq!(found(&all, &[]), Err(BadRecords::Addresses));
        let twice = [a("www.a.io.", "198.51.100.1", 9), a("www.a.io.", "198.51.100.1", 3)];
        assert_eq!(found(&twice, &[]).unwrap(), ["198.51.100.1 3"]);
    }
}
