//! Services as kube-proxy does them: destination NAT on every node, in a table of the lab's own.
//!
//! One look-up by address, protocol and port leads to the chain of a service port, where each backend is as likely as any
//! other. A pod that reaches itself is masqueraded, or it would answer itself directly. A service port without backends is
//! refused.

mod program;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use palisade_policy::{Cluster, Family, Phase, Pod, Protocol, Service, cluster::TargetPort};

use crate::{layout::Layout, namespace::Namespace};

/// The table that holds the translation on every node.
pub const TABLE: &str = "palisade-lab-services";

/// Why services could not be translated.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The socket failed.
    #[error("netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error(
        "the kernel refused to {request}; does it have nf_tables with NAT (CONFIG_NFT_NAT, CONFIG_NFT_MASQ)?"
    )]
    Refused {
        /// What, in words.
        request: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Where a service port is reached, and where it leads. Of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The service address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The service port.
    pub port: u16,
}

/// A pod behind a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend<'a> {
    /// The pod.
    pub pod: &'a palisade_policy::ObjectKey,
    /// Its address.
    pub address: IpAddr,
    /// The port on it.
    pub port: u16,
}

/// The running pods with an address that a service selects, in the order of their names. Pods that share their node's
/// network are among them.
pub fn backends<'a>(cluster: &'a Cluster, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
    let in_namespace = |p: &&Pod| p.key.namespace == service.key.namespace;
    let selected = move |p: &&Pod| service.selector.as_ref().is_some_and(|s| s.matches(&p.labels));
    let runs = |p: &&Pod| !matches!(p.phase, Phase::Succeeded | Phase::Failed) && !p.addresses.is_empty();
    cluster.pods.values().filter(in_namespace).filter(selected).filter(runs)
}

/// The number that a service port stands for on a pod; `None` if the pod has no port of that name and protocol. Of several
/// the first, as the endpoints controller does.
#[must_use]
pub fn target_on(pod: &Pod, protocol: Protocol, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Number(n) => Some(*n),
        TargetPort::Name(name) => pod.named_ports(name, Some(protocol)).next().map(|(_, port)| port),
    }
}

/// Every service port of a lab with its backends. `O(services · pods)`.
#[must_use]
pub fn frontends(layout: &Layout) -> BTreeMap<Frontend, (&Service, Vec<Backend<'_>>)> {
    let mut out = BTreeMap::new();
    for service in layout.cluster.services.values() {
        let served = service.addresses.iter().filter(|a| layout.options.families.has(Family::of(**a)));
        for address in served {
            for port in &service.ports {
                let backend = |pod| backend(layout, pod, Family::of(*address), port);
                let found = backends(&layout.cluster, service).filter_map(backend).collect();
                let frontend = Frontend { address: *address, protocol: port.protocol, port: port.port };
                // Of two services with one address and port the first has it, as its rules would come first.
                out.entry(frontend).or_insert((service, found));
            }
        }
    }
    out
}

fn backend<'a>(
    layout: &Layout,
    pod: &'a Pod,
    family: Family,
    port: &palisade_policy::cluster::ServicePort,
) -> Option<Backend<'a>> {
    let on_the_wire = match layout.pods.get(&pod.key) {
        Some(place) => &place.addresses,
        None => layout.nodes.get(pod.node.as_ref()?)?,
    };
    let address = on_the_wire.iter().copied().find(|a| Family::of(*a) == family)?;
    Some(Backend { pod: &pod.key, address, port: target_on(pod, port.protocol, &port.target)? })
}

/// What a node's kernel must hold: backends by frontend.
type Rules = BTreeMap<Frontend, BTreeSet<(IpAddr, u16)>>;

/// The service translation of one node.
pub(crate) struct Translation {
    socket: Socket,
    programmed: Option<Rules>,
}

impl std::fmt::Debug for Translation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translation").field("programmed", &self.programmed).finish_non_exhaustive()
    }
}

impl Translation {
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, ServiceError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = namespace.run(open).and_then(|r| r).map_err(ServiceError::Socket)?;
        Ok(Self { socket, programmed: None })
    }

    /// Makes the node translate the services of `layout`, in one transaction; nothing is sent if nothing changes.
    pub(crate) fn set(&mut self, layout: &Layout) -> Result<(), ServiceError> {
        let wanted: Rules = frontends(layout)
            .into_iter()
            .map(|(f, (_, backends))| (f, backends.iter().map(|b| (b.address, b.port)).collect()))
            .collect();
        if self.programmed.as_ref() == Some(&wanted) || (self.programmed.is_none() && wanted.is_empty()) {
            return Ok(());
        }
        program::commit(&self.socket, &wanted)?;
        self.programmed = Some(wanted);
        Ok(())
    }
}
