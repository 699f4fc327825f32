//! Whether pods reach the DNS of the cluster.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use palisade_names::{DNS_PORT, DnsServer, dns_servers, dns_service_addresses};
use palisade_policy::{Direction, Pod, Policy, PortMatch, Protocol, Rule};

use crate::{
    admits::{Other, allowed, is_isolated, isolating},
    context::{Class, Context},
    index::Profile,
};

/// The address on which NodeLocal DNS listens unless it is told otherwise: `-localip` of its manifest.
pub(crate) const LINK_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

/// The label of NodeLocal DNS in its manifest.
const NODE_LOCAL: (&str, &str) = ("k8s-app", "node-local-dns");

/// What answers DNS in the cluster, as far as the input has it.
pub(crate) struct Resolvers<'a> {
    pub(crate) servers: Vec<DnsServer<'a>>,
    /// Whether a cache on each node answers at [`LINK_LOCAL`].
    pub(crate) node_local: bool,
    /// Where pods ask it.
    addresses: HashSet<IpAddr>,
}

impl<'a> Resolvers<'a> {
    pub(crate) fn new(cx: &Context<'a>) -> Self {
        let (key, value) = NODE_LOCAL;
        let mut pods = cx.loaded.cluster.pods.values();
        let node_local = pods.any(|pod| pod.host_network && pod.labels.get(key) == Some(value));
        let servers = dns_servers(&cx.loaded.cluster);
        let own = servers.iter().flat_map(|server| server.pod.addresses.iter().copied());
        let addresses = own.chain(dns_service_addresses(&cx.loaded.cluster)).chain([LINK_LOCAL]).collect();
        Self { servers, node_local, addresses }
    }

    /// Returns whether the pods of a profile reach a DNS server over a protocol.
    pub(crate) fn reach_server(&self, cx: &Context<'_>, profile: &[u32], protocol: Protocol) -> bool {
        self.servers.iter().any(|server| {
            let other = Other::of(cx, server.pod);
            allowed(cx, profile, Direction::Egress, other, Some(server.pod)).contains(protocol, server.port)
        })
    }

    /// Returns whether the pods of a profile reach the cache on their node over a protocol.
    pub(crate) fn reach_node_local(cx: &Context<'_>, profile: &[u32], protocol: Protocol) -> bool {
        let other = Other::Address(Some(LINK_LOCAL));
        allowed(cx, profile, Direction::Egress, other, None).contains(protocol, DNS_PORT)
    }

    /// Returns the classes of pods that ask the DNS of the cluster, except its servers.
    pub(crate) fn clients<'c>(&'c self, cx: &'c Context<'a>) -> impl Iterator<Item = &'c Class<'a>> + 'c {
        let is_server = |class: &Class<'_>| {
            self.servers
                .iter()
                .any(|s| s.pod.key.namespace == *class.namespace && s.pod.labels == *class.labels)
        };
        let asks = |pod: &&Pod| {
            let own = cx.loaded.own_dns.get(&pod.key);
            own.is_none_or(|servers| servers.iter().any(|server| self.addresses.contains(server)))
        };
        cx.all_classes().filter(move |class| !is_server(class) && class.pods.iter().any(asks))
    }

    /// Returns the distinct profiles of such pods.
    pub(crate) fn client_profiles(&self, cx: &Context<'a>) -> Vec<Profile> {
        let mut known = HashSet::new();
        let profiles = self.clients(cx).map(|class| cx.profile(class));
        profiles.filter(|profile| known.insert(Rc::as_ptr(profile))).collect()
    }

    /// Returns the distinct profiles of such pods that NetworkPolicies isolate for egress.
    pub(crate) fn isolated_clients(&self, cx: &Context<'a>) -> Vec<Profile> {
        let mut profiles = self.client_profiles(cx);
        profiles.retain(|profile| is_isolated(cx, profile, Direction::Egress));
        profiles
    }
}

/// Returns whether a rule names the port of DNS: not all ports, and not a wide range.
pub(crate) fn names_dns(rule: &Rule) -> bool {
    const WIDE: u16 = 100;
    rule.ports.iter().flatten().any(|entry| match &entry.port {
        PortMatch::Numbers { first, last, .. } => (*first..=*last).contains(&DNS_PORT) && last - first < WIDE,
        PortMatch::Named { name, .. } => ["dns", "dns-tcp"].contains(&&**name),
    })
}

/// Returns the policy that a finding about the egress of a profile is shown at: the first with a rule that fits, or with any
/// rule, or any.
pub(crate) fn shown_at<'a>(
    cx: &Context<'a>,
    profile: &[u32],
    fits: impl Fn(&Rule) -> bool,
) -> Option<&'a Policy> {
    let rules = |policy: &&'a Policy| policy.rules(Direction::Egress).unwrap_or_default();
    let mut all = isolating(cx, profile, Direction::Egress);
    let fitting = all.clone().find(|policy| rules(policy).iter().any(&fits));
    let with_rules = || all.clone().find(|policy| !rules(policy).is_empty());
    fitting.or_else(with_rules).or_else(|| all.next())
}
