//! Which Service has an address.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::{Cluster, ObjectKey, Protocol};

/// The shortest interval between two builds of the index, while Services change.
const REBUILD_INTERVAL: Duration = Duration::from_secs(1);

/// The most addresses of a Service, beside its cluster IPs, by which it is found. Nothing else limits how many a user may write.
const MOST_ADDRESSES: usize = 64;

/// An index of the cluster's Services. Only records need it, so it is made when one does, and not with each change.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_address: HashMap<IpAddr, ObjectKey>,
    by_node_port: HashMap<(Protocol, u16), ObjectKey>,
    built: Option<Instant>,
    is_stale: bool,
}

impl Services {
    /// Services have changed.
    pub(super) fn invalidate(&mut self) {
        self.is_stale = true;
    }

    /// Makes the index if it is missing, or if Services have changed and it is a second old. Returns whether it names other Services than
    /// before. `O(services)`.
    pub(super) fn refresh(&mut self, cluster: &Cluster, now: Instant) -> bool {
        let is_due = match self.built {
            None => true,
            Some(built) => self.is_stale && now.saturating_duration_since(built) >= REBUILD_INTERVAL,
        };
        if !is_due {
            return false;
        }
        (self.built, self.is_stale) = (Some(now), false);
        let by_address = std::mem::take(&mut self.by_address);
        let by_node_port = std::mem::take(&mut self.by_node_port);
        let services = || cluster.services.values();
        // The API server gives each cluster IP to one Service. Users choose external IPs themselves, so these come second.
        let cluster_ips = services().flat_map(|service| service.addresses.iter().map(move |a| (*a, service)));
        let others = services().flat_map(|service| {
            service.access.translated().take(MOST_ADDRESSES).map(move |address| (address, service))
        });
        for (address, service) in cluster_ips.chain(others) {
            self.by_address.entry(address).or_insert_with(|| service.key.clone());
        }
        for service in services() {
            for port in &service.ports {
                if let Some(node_port) = port.node_port {
                    let key = (port.protocol, node_port);
                    self.by_node_port.entry(key).or_insert_with(|| service.key.clone());
                }
            }
        }
        self.by_address != by_address || self.by_node_port != by_node_port
    }

    /// Returns the Service with an address, or with a port of all nodes if the address is that of a node.
    pub(super) fn at(&self, address: IpAddr, port: (Protocol, u16), is_node: bool) -> Option<&ObjectKey> {
        self.by_address.get(&address).or_else(|| self.by_node_port.get(&port).filter(|_| is_node))
    }
}
