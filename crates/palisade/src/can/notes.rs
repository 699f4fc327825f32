//! Notes below an answer about where a real cluster may differ from it.
//!
//! They are in [`TABLE`], one row for each note; docs/semantics.md explains them. A note is shown only
//! if it concerns this answer: nothing is said about source addresses where no policy looks at them.

use palisade_analysis::alike::Relation;
use palisade_names::Way;
use palisade_policy::{Cluster, Endpoint, Protocol, Reason, Side};

use super::{
    note::Note,
    question::{Access, QuestionFlow},
};

/// A flow with its decision.
pub(crate) struct Decided<'a> {
    /// The flow.
    pub(crate) asked: &'a QuestionFlow,
    /// The egress side.
    pub(crate) egress: &'a Side,
    /// The ingress side.
    pub(crate) ingress: &'a Side,
}

/// What notes depend on.
pub(crate) struct Facts<'a> {
    pub(crate) cluster: &'a Cluster,
    /// How the destination is reached, if it is a service.
    pub(crate) access: Option<&'a Access>,
    pub(crate) decided: &'a [Decided<'a>],
}

impl Facts<'_> {
    fn any(&self, holds: impl Fn(&Decided<'_>) -> bool) -> bool {
        self.decided.iter().any(holds)
    }
}

/// Whether rules decide a side, so that it depends on the address of the peer.
fn by_rules(side: &Side) -> bool {
    matches!(side.reason, Reason::Rule(_) | Reason::Isolated { .. })
}

/// A row of [`TABLE`]: a word for programs, and the text, if the note concerns the answer.
type Row = (&'static str, fn(&Facts<'_>) -> Option<String>);

/// All notes that depend on verdicts.
const TABLE: [Row; 7] = [
    ("client-address", client_address),
    ("source-ranges", source_ranges),
    ("tunnel-address", tunnel_address),
    ("own-node", own_node),
    ("egress-address", egress_address),
    ("node-local-dns", node_local_dns),
    ("link-local", link_local),
];

/// Returns the notes that concern an answer.
pub(crate) fn of(facts: &Facts<'_>) -> Vec<Note> {
    TABLE.iter().filter_map(|(code, text)| Some(Note { code, text: text(facts)? })).collect()
}

/// kube-proxy masquerades what comes through an address of the outside, unless the policy is Local.
fn client_address(facts: &Facts<'_>) -> Option<String> {
    let access = facts.access.filter(|access| !access.external_local)?;
    let masqueraded = |source: &Endpoint| match source {
        Endpoint::Pod { .. } => access.way.is_external(),
        Endpoint::External(_) => true,
        Endpoint::Node { .. } => false,
    };
    facts.any(|d| masqueraded(&d.asked.flow.source) && by_rules(d.ingress)).then(|| {
        format!(
            "externalTrafficPolicy: Cluster: for pods behind {} on the node that the client asks, policies see the client's \
             address; for those on other nodes they see the address of the node asked",
            access.service
        )
    })
}

fn source_ranges(facts: &Facts<'_>) -> Option<String> {
    let access = facts.access.filter(|a| !a.source_ranges.is_empty() && a.way != Way::NodePort)?;
    let outside = |d: &Decided<'_>| matches!(d.asked.flow.source, Endpoint::External(_));
    let ranges = access.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    facts.any(outside).then(|| {
        format!("loadBalancerSourceRanges: the load balancer of {} admits only {ranges}", access.service)
    })
}

fn tunnel_address(facts: &Facts<'_>) -> Option<String> {
    let from_node = |d: &Decided<'_>| {
        matches!(
            (&d.asked.flow.source, &d.asked.flow.destination),
            (Endpoint::Node { .. }, Endpoint::Pod { .. })
        ) && d.asked.alike.relation == Relation::Other
            && by_rules(d.ingress)
    };
    facts.any(from_node).then(|| {
        "with flannel, or Calico in tunnel mode, a node reaches pods of other nodes from its tunnel address, which Node \
         objects do not list: rules that admit nodes by address must have it too"
            .to_owned()
    })
}

fn own_node(facts: &Facts<'_>) -> Option<String> {
    let unplaced = |d: &Decided<'_>| {
        let Endpoint::Pod { key, .. } = &d.asked.flow.destination else { return false };
        let node = facts.cluster.pods.get(key).and_then(|pod| pod.node.as_ref());
        matches!(d.asked.flow.source, Endpoint::Node { .. })
            && node.is_none()
            && !d.ingress.verdict.is_allow()
    };
    facts
        .any(unplaced)
        .then(|| "a pod always accepts its own node; the input does not say on which node it runs".to_owned())
}

fn egress_address(facts: &Facts<'_>) -> Option<String> {
    // A question about the whole internet is not about what a server there sees.
    let leaves = |d: &Decided<'_>| {
        matches!(
            (&d.asked.flow.source, &d.asked.flow.destination),
            (Endpoint::Pod { .. }, Endpoint::External(_))
        ) && d.asked.region.is_none()
            && d.asked.service.is_none()
            && d.egress.verdict.is_allow()
    };
    facts.any(leaves).then(|| {
        "nodes usually replace a pod's address by their own on the way out: the destination, and firewalls before it, see a \
         node"
            .to_owned()
    })
}

/// The port of DNS.
const DNS: u16 = palisade_names::DNS_PORT;

fn node_local_dns(facts: &Facts<'_>) -> Option<String> {
    let asks = |d: &Decided<'_>| {
        let port = d.asked.service_port.unwrap_or(d.asked.flow.port);
        port == DNS && matches!(d.asked.flow.protocol, Protocol::Udp | Protocol::Tcp) && by_rules(d.egress)
    };
    if !facts.any(asks) {
        return None;
    }
    let servers = palisade_names::dns_servers(facts.cluster);
    let is_server = |end: &Endpoint| match end {
        Endpoint::Pod { key, .. } => servers.iter().any(|server| server.pod.key == *key),
        _ => false,
    };
    facts.any(|d| asks(d) && is_server(&d.asked.flow.destination)).then(|| {
        "with NodeLocal DNSCache, pods ask 169.254.20.10 on their own node instead, which egress rules must allow as well"
            .to_owned()
    })
}

fn link_local(facts: &Facts<'_>) -> Option<String> {
    let is_local = |end: &Endpoint| match end.address() {
        std::net::IpAddr::V4(address) => address.is_link_local(),
        std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let local = |d: &Decided<'_>| d.asked.region.is_none() && is_local(&d.asked.flow.destination);
    facts.any(local).then(|| {
        "link-local addresses belong to the pod's own node (NodeLocal DNSCache) or to the cloud's metadata service; not every \
         data plane applies policies to them"
            .to_owned()
    })
}
