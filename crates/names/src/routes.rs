//! Routes into a cluster through a controller: Ingress, the routes of the Gateway API, OpenShift's Route.
//!
//! All of them mean the same: a controller, which is an ordinary pod, forwards connections from outside to the pods
//! behind services. Policies don't refer to routes; they apply to the connection from the controller to a pod.

use std::fmt;

use palisade_policy::{Name, ObjectKey, Origin, Protocol};

/// A route object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The kind in the API's spelling, such as `Ingress` or `HTTPRoute`.
    pub kind: Name,
    /// Namespace and name.
    pub key: ObjectKey,
    /// The class, which says which controller serves it: of the Ingress, or of the first Gateway that accepts the route.
    pub class: Option<Name>,
    /// The services to which it forwards.
    pub backends: Vec<RouteBackend>,
    /// The origin, if it is known.
    pub origin: Option<Origin>,
}

/// A service to which a route forwards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteBackend {
    /// The service, possibly in another namespace.
    pub service: ObjectKey,
    /// The ports of it.
    pub port: RoutePort,
    /// The protocol of the forwarded connections.
    pub protocol: Protocol,
}

/// Ports of a service to which a route forwards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutePort {
    /// All ports.
    Any,
    /// A port of the service.
    Service(PortSpec),
    /// A port of the pods, as in OpenShift's Route: the number of the target port, or the name of the service port or
    /// of the target port.
    Target(PortSpec),
}

/// A port of a service or pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSpec {
    /// By number.
    Number(u16),
    /// By name.
    Name(Name),
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Name(n) => f.write_str(n),
        }
    }
}
