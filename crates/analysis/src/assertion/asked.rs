//! The traffic that an assertion is about.

use std::collections::BTreeSet;

use palisade_policy::{Name, Pod, PortSet, Protocol, Traffic};

use super::PortName;
use crate::exposure::PodTraffic;

/// The traffic that an assertion is about: ports by number, and ports by the name that the destination gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedTraffic {
    /// Ports by number.
    pub numbers: Traffic,
    /// Ports by name, each with its protocol.
    pub names: BTreeSet<(Name, Protocol)>,
}

impl AskedTraffic {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self { numbers: Traffic::all(), names: BTreeSet::new() }
    }

    /// Returns the traffic to a pod, or to an end that names no ports.
    #[must_use]
    pub fn to(&self, pod: Option<&Pod>) -> Traffic {
        let named = self.names.iter().flat_map(|(name, protocol)| {
            pod.into_iter().flat_map(move |pod| pod.named_ports(name, Some(*protocol)))
        });
        named.fold(self.numbers.clone(), |sum, (protocol, port)| {
            sum.union(&Traffic::of(protocol, PortSet::range(port, port)))
        })
    }

    /// Returns what rules must allow so that a pod that may exist is reached: it may give a number that is asked about any
    /// name, and a name that is asked about any number.
    pub(super) fn possible(&self, named: &BTreeSet<PortName>) -> PodTraffic {
        let by_number = |(_, protocol): &&PortName| !self.numbers.ports(*protocol).is_empty();
        let asked = |name: &&PortName| self.names.contains(*name);
        let fitting = named.iter().filter(|name| by_number(name) || asked(name)).cloned().collect();
        let any = self.names.iter().map(|(_, protocol)| Traffic::of(*protocol, PortSet::range(1, u16::MAX)));
        PodTraffic { numbers: any.fold(self.numbers.clone(), |sum, one| sum.union(&one)), named: fitting }
    }

    /// Returns what rules must allow so that every pod that may exist is reached.
    pub(super) fn certain(&self) -> PodTraffic {
        PodTraffic { numbers: self.numbers.clone(), named: self.names.clone() }
    }

    /// Returns whether there is traffic in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        !self.numbers.intersection(&other.numbers).is_none()
            || self.names.intersection(&other.names).next().is_some()
    }
}
