//! DNS in the lab: servers that answer from [`Zones`], pods that ask them, and connections to what was answered.
//!
//! ```text
//!  Zones ─► DnsServer, in the pods behind the DNS Service or outside
//!              ▲ │
//!        query │ ▼ answer, through the node's queue: its agent learns the addresses, programs them, and releases it
//!  NamePlan ─► run ─► connections at once, compared with the reference
//! ```

mod answers;
mod client;
mod plan;
mod run;
mod server;
mod zones;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use palisade_agent::names::NamesSettings;
use palisade_names::{DNS_PORT, dns_service_addresses};
use palisade_policy::{Cluster, Family, Protocol};

pub use client::{LookupOutcome, LookupPatience, lookup};
pub use plan::{ExpectedLookup, Lookup, NamePlan};
pub use run::{LookupResult, ask, learned_by_all, learned_from, run};
pub(crate) use server::DnsServer;
pub use zones::{Forgery, Records, ZoneName, Zones};

use crate::{
    layout::{Layout, LayoutError, Place},
    options::LayoutOptions,
    services::frontends,
};

/// The addresses of the DNS server outside, if the cluster has none. They are from the documentation ranges.
pub const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)),
];

/// The DNS servers of a lab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameServers {
    /// The addresses that pods ask, and that agents trust.
    pub ask: BTreeSet<SocketAddr>,
    /// Where servers listen.
    pub at: BTreeSet<(Place, SocketAddr)>,
}

impl NameServers {
    /// Returns the servers: those that the zones name, or the pods behind the cluster's DNS Service, or else one outside. Those outside have
    /// to be among the outside addresses of the layout.
    #[must_use]
    pub fn of(layout: &Layout, zones: &Zones) -> Self {
        let of_cluster: BTreeSet<IpAddr> = dns_service_addresses(&layout.cluster).collect();
        let mut out = Self::default();
        if zones.servers.is_empty() {
            for (frontend, (_, backends)) in frontends(layout) {
                let is_dns = frontend.port == DNS_PORT
                    && frontend.protocol == Protocol::Udp
                    && of_cluster.contains(&frontend.address);
                for backend in backends.iter().filter(|_| is_dns) {
                    out.ask.insert(SocketAddr::new(frontend.address, frontend.port));
                    let place = Place::of(&layout.cluster.endpoint(backend.address));
                    out.at.insert((place, SocketAddr::new(backend.address, backend.port)));
                }
            }
        }
        if out.ask.is_empty() {
            let outside = outside(layout, zones);
            out.ask = outside.map(|address| SocketAddr::new(address, DNS_PORT)).collect();
            out.at = out.ask.iter().map(|server| (Place::Outside, *server)).collect();
        }
        out
    }

    /// Returns the server that clients with an address of this family ask.
    #[must_use]
    pub fn of_family(&self, family: Family) -> Option<SocketAddr> {
        self.ask.iter().copied().find(|server| Family::of(server.ip()) == family)
    }
}

fn outside<'a>(layout: &'a Layout, zones: &'a Zones) -> impl Iterator<Item = IpAddr> + 'a {
    let named = zones.servers.iter().copied();
    let default = OUTSIDE.into_iter().filter(|_| zones.servers.is_empty());
    let is_of = |address: &IpAddr| layout.options.families.has(Family::of(*address));
    named.chain(default).filter(is_of).filter(|address| layout.outside.contains(address))
}

/// Lays out a cluster with the addresses of zones, and with an outside DNS server if it has none of its own.
///
/// # Errors
/// As [`Layout::of`].
pub fn layout(
    cluster: &Cluster,
    options: &LayoutOptions,
    zones: &Zones,
) -> Result<(Layout, NameServers), LayoutError> {
    let mut options = options.clone();
    options.outside.extend(zones.addresses());
    options.outside.extend(&zones.servers);
    let layout = Layout::of(cluster, &options)?;
    let servers = NameServers::of(&layout, zones);
    if !servers.ask.is_empty() {
        return Ok((layout, servers));
    }
    options.outside.extend(OUTSIDE);
    let layout = Layout::of(cluster, &options)?;
    let servers = NameServers::of(&layout, zones);
    Ok((layout, servers))
}

/// Returns the settings of agents that trust these servers, as the addresses that pods ask.
#[must_use]
pub fn settings(servers: &NameServers) -> NamesSettings {
    NamesSettings { resolvers: servers.ask.clone(), ..NamesSettings::default() }
}
