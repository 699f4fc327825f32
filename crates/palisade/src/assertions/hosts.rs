//! Hosts outside the cluster as destinations of assertions.

use std::{borrow::Cow, net::IpAddr};

use anyhow::{Result, bail};
use palisade_analysis::regions;
use palisade_policy::{Cluster, DomainName, LearnedName};

use super::file::{EndKind, Written, WrittenEnd};
use crate::can::{
    Spec, domain_names,
    ends::{self, End, Outside, Resolved},
    host::Host,
};

/// A part of an assertion, and what is learned where it is judged.
pub(super) struct Part<'a> {
    pub(super) written: Cow<'a, Written>,
    /// The host that is its only destination, with its addresses.
    learned: Option<LearnedName>,
}

impl Part<'_> {
    /// Returns the cluster in which the part is judged.
    pub(super) fn cluster<'c>(&self, cluster: &'c Cluster) -> Cow<'c, Cluster> {
        let Some(learned) = &self.learned else { return Cow::Borrowed(cluster) };
        let mut resolved = cluster.clone();
        resolved.learned.insert(learned.name.clone(), learned.clone());
        Cow::Owned(resolved)
    }

    /// Returns the name of the host.
    pub(super) fn name(&self) -> Option<&DomainName> {
        self.learned.as_ref().map(|learned| &learned.name)
    }
}

/// Divides an assertion by its destinations: each host that rules have by name, and all others. A host is judged where its name
/// is resolved to an address of each part of the internet that policies distinguish. Two can't be judged together, as the
/// addresses of one would be those of the other.
pub(super) fn parts<'a>(cluster: &Cluster, written: &'a Written, namespace: &str) -> Vec<Part<'a>> {
    let (mut others, mut parts): (Vec<WrittenEnd>, Vec<Part<'a>>) = (Vec::new(), Vec::new());
    let mut addresses: Option<Vec<IpAddr>> = None;
    for end in &written.to {
        let Some(name) = host(cluster, end, namespace) else {
            others.push(end.clone());
            continue;
        };
        let addresses = addresses.get_or_insert_with(|| regions::samples(cluster)).iter().copied().collect();
        let written = Cow::Owned(Written { to: vec![end.clone()], ..written.clone() });
        parts.push(Part { written, learned: Some(LearnedName { name, addresses }) });
    }
    if parts.is_empty() {
        parts.push(Part { written: Cow::Borrowed(written), learned: None });
    } else if !others.is_empty() {
        let written = Cow::Owned(Written { to: others, ..written.clone() });
        parts.push(Part { written, learned: None });
    }
    parts
}

/// Refuses a host as a source.
///
/// # Errors
/// If it is one: no rule has sources by name.
pub(super) fn check_source(cluster: &Cluster, end: &WrittenEnd, namespace: &str) -> Result<()> {
    if let Some(host) = outside(cluster, end, namespace) {
        bail!(
            "`{}` is not in the cluster, and its addresses are not known; give a CIDR, or internet",
            host.name
        )
    }
    Ok(())
}

/// Returns the name of a host that a rule has.
fn host(cluster: &Cluster, end: &WrittenEnd, namespace: &str) -> Option<DomainName> {
    let host = outside(cluster, end, namespace).filter(|host| domain_names::has_rule(cluster, host))?;
    DomainName::new(&host.name)
}

/// Returns the host outside the cluster for which an end stands.
fn outside(cluster: &Cluster, end: &WrittenEnd, namespace: &str) -> Option<Host> {
    let EndKind::Word(word) = &end.kind else { return None };
    let spec: Spec = word.parse().ok()?;
    match ends::end(cluster, &spec, namespace) {
        Ok(Resolved { end: End::Outside(Outside::Host(host)), .. }) => Some(host),
        _ => None,
    }
}
