//! Services: the addresses that stand for pods.
//!
//! Policies never match services; they match the pods behind them (SEMANTICS A.12, G-1). So no decision depends on the
//! values here: questions about a service are translated to its pods before anything is decided.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Name, ObjectKey, Protocol, Selector};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The cluster IPs; empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// The selector of the pods behind it, in its own namespace; `None` for a service without selector.
    pub selector: Option<Selector>,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// The other ways to it.
    pub access: ServiceAccess,
    /// The endpoints of a service without selector, which EndpointSlices and Endpoints list. Always empty for a service
    /// with a selector, whose endpoints are its pods.
    pub endpoints: Vec<ServiceEndpoints>,
}

impl Service {
    /// Makes a service without addresses, selector and ports.
    #[must_use]
    pub fn new(key: ObjectKey) -> Self {
        Self {
            key,
            addresses: Vec::new(),
            selector: None,
            ports: Vec::new(),
            access: ServiceAccess::default(),
            endpoints: Vec::new(),
        }
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The name, if any.
    pub name: Option<Name>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port on the service address.
    pub port: u16,
    /// The port on the pod: a number or a container port name.
    pub target: TargetPort,
    /// The port on the addresses of every node, if it is known.
    pub node_port: Option<u16>,
}

/// The target of a service port on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A port number.
    Number(u16),
    /// A container port name, looked up on each pod.
    Name(Name),
}

/// The ways to a service other than its cluster IPs, and which endpoints they lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccess {
    /// `clusterIP: None`: nothing translates connections to it. Its name stands for the addresses of its endpoints, and a
    /// client connects to the port that it likes.
    pub headless: bool,
    /// Whether clients outside the cluster may use it: its type is NodePort or LoadBalancer.
    pub exposed: bool,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of the load balancer: `status.loadBalancer.ingress[].ip`, and `spec.loadBalancerIP`.
    pub load_balancer: Vec<IpAddr>,
    /// `spec.loadBalancerIP`, unless the load balancer has that address. Every user who may create Services can request any address.
    pub load_balancer_wish: Option<IpAddr>,
    /// The host names of the load balancer: `status.loadBalancer.ingress[].hostname`.
    pub host_names: Vec<Name>,
    /// The ranges of clients that the load balancer admits; empty for all.
    pub source_ranges: Vec<IpNet>,
    /// The host name for which an ExternalName service stands.
    pub external_name: Option<Name>,
    /// `externalTrafficPolicy: Local`: a node forwards connections from outside only to its own pods, and keeps the
    /// client's address.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`: connections to the cluster IP reach only pods on the client's node.
    pub internal_local: bool,
}

impl ServiceAccess {
    /// Iterates over the addresses that nodes translate besides cluster IPs: external IPs, and those that the load balancer has.
    pub fn translated(&self) -> impl Iterator<Item = IpAddr> {
        let of_load_balancer = self.load_balancer.iter().filter(|own| self.load_balancer_wish != Some(**own));
        self.external_ips.iter().chain(of_load_balancer).copied()
    }

    /// Iterates over the external IPs and the addresses of the load balancer.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.external_ips.iter().chain(&self.load_balancer).copied()
    }
}

/// Endpoints of a service without selector: addresses that have the same ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceEndpoints {
    /// The addresses, of pods or of anything else.
    pub addresses: Vec<IpAddr>,
    /// The ports. Each belongs to the service port with the same name and protocol.
    pub ports: Vec<EndpointPort>,
}

/// A port of [`ServiceEndpoints`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPort {
    /// The name of the service port, if it has one.
    pub name: Option<Name>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port on the address; `None` for the service's own.
    pub port: Option<u16>,
}
