//! Addresses of Services that blocks have. Connections to them are translated before policies look.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Family, IpBlock, IpRange, Service, address::to_number};

use crate::context::Context;

/// The addresses of the input: those of Services, and those that a block may be meant for beside them.
pub(crate) struct ServiceAddresses<'a> {
    services: BTreeMap<(Family, u128), (IpAddr, &'a Service)>,
    others: BTreeSet<(Family, u128)>,
    ranges: Vec<IpRange>,
}

impl<'a> ServiceAddresses<'a> {
    /// The addresses that `of` returns for each Service.
    pub(crate) fn new(cx: &Context<'a>, of: impl Fn(&Service) -> Vec<IpAddr>) -> Self {
        let cluster = &cx.loaded.cluster;
        let at = |address: &IpAddr| (Family::of(*address), to_number(*address));
        let services = cluster.services.values();
        let of_nodes = cluster.nodes.values().flat_map(|node| node.addresses.iter());
        let pods = cluster.pods.values().flat_map(|pod| pod.addresses.iter());
        let of_pods = pods.filter(|address| !cluster.addressing.is_placeholder(**address));
        Self {
            services: services.flat_map(|s| of(s).into_iter().map(move |a| (at(&a), (a, s)))).collect(),
            others: of_nodes.chain(of_pods).map(at).collect(),
            ranges: cluster.nodes.values().flat_map(|n| n.pod_cidrs.iter().map(IpRange::of_net)).collect(),
        }
    }

    /// Returns a Service whose address a block has, if it is that address, or a network that seems to be that of Services.
    pub(crate) fn within(&self, block: &IpBlock) -> Option<(IpAddr, &'a Service)> {
        // The largest that Kubernetes allows are /12 and /108; wider blocks have other things, too.
        let widest = if block.cidr.addr().is_ipv4() { 12 } else { 108 };
        if block.cidr.prefix_len() < widest {
            return None;
        }
        let family = Family::of_net(&block.cidr);
        block.ranges().iter().find_map(|range| {
            let keys = (family, to_number(range.first))..=(family, to_number(range.last));
            let (_, found) = self.services.range(keys.clone()).next()?;
            let has_others = self.others.range(keys).next().is_some()
                || self.ranges.iter().any(|pods| range.contains(pods.first) || pods.contains(range.first));
            (!has_others).then_some(*found)
        })
    }
}
