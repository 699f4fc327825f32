//! What leads into a cluster through a controller: Ingress, the routes of the Gateway API, OpenShift's Route.
//!
//! All of them say the same thing in the end: a controller, which is a pod like any other, forwards what comes from
//! outside to the pods behind services. A [`Route`] is one such object. Policies never see it; they see a connection
//! from the controller to a pod.

use std::fmt;

use palisade_policy::{Name, ObjectKey, Origin, Protocol};

/// One object that leads to services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The kind in the API's spelling, such as `Ingress` or `HTTPRoute`.
    pub kind: Name,
    /// Namespace and name.
    pub key: ObjectKey,
    /// What it leads to.
    pub backends: Vec<RouteBackend>,
    /// Where it begins, if it came from a file.
    pub origin: Option<Origin>,
}

/// One service that a route leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteBackend {
    /// The service; perhaps in another namespace.
    pub service: ObjectKey,
    /// Which of its ports.
    pub port: RoutePort,
    /// What the controller speaks to it.
    pub protocol: Protocol,
}

/// Which ports of a service a route means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutePort {
    /// All of them.
    Any,
    /// A port of the service.
    Service(PortSpec),
    /// A port of the pods behind it, as OpenShift's Route names it: the number that the service port leads to, or the
    /// name of the service port or of that target.
    Target(PortSpec),
}

/// Which port of a service or pod is meant.
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
