//! Ingresses, routes, gateways and reference grants.

use std::collections::BTreeMap;

use palisade_names::RoutePort;
use palisade_policy::{Name, ObjectKey, Origin, Protocol, Selector};

/// An Ingress, an OpenShift Route, or a route of the Gateway API.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredRoute {
    pub(crate) origin: Origin,
    /// The class of an Ingress.
    pub(crate) class: Option<Name>,
    /// The backends, each with the position and path of its first mention.
    pub(crate) backends: BTreeMap<DeclaredBackend, (Origin, String)>,
    /// The gateways that it refers to; `None` for kinds without gateways.
    pub(crate) parents: Option<Vec<ParentRef>>,
    /// The hosts that it serves. Empty means any.
    pub(crate) hosts: Vec<Name>,
}

/// A service that a route refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeclaredBackend {
    pub(crate) service: ObjectKey,
    pub(crate) port: RoutePort,
    pub(crate) protocol: Protocol,
}

/// A Gateway with its listeners.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    /// Its class.
    pub(crate) class: Option<Name>,
    pub(crate) listeners: Vec<Listener>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: Name,
    pub(crate) port: Option<u16>,
    /// The host that it serves; `None` means any.
    pub(crate) host: Option<Name>,
    pub(crate) namespaces: AllowedNamespaces,
    /// The kinds of routes that it accepts; `None` means any.
    pub(crate) kinds: Option<Vec<Name>>,
}

/// The namespaces whose routes a listener accepts.
#[derive(Clone, Debug)]
pub(crate) enum AllowedNamespaces {
    /// The gateway's namespace.
    Same,
    /// Every namespace.
    All,
    /// Namespaces with matching labels.
    Selector(Selector),
    /// No namespace.
    None,
}

/// A reference of a route to its parent.
#[derive(Clone, Debug)]
pub(crate) struct ParentRef {
    pub(crate) kind: ParentKind,
    pub(crate) key: ObjectKey,
    /// The name of the only listener that is meant.
    pub(crate) section: Option<Name>,
    pub(crate) port: Option<u16>,
}

/// The kind of a route's parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParentKind {
    Gateway,
    /// A Service. The route applies to requests of a service mesh to that service, and forwards nothing into the
    /// cluster.
    Service,
    /// An unknown kind, such as ListenerSet.
    Other,
}

/// A ReferenceGrant: routes of these kinds and namespaces may refer to services of the grant's namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReferenceGrant {
    /// Kind and namespace.
    pub(crate) from: Vec<(Name, Name)>,
    /// The services; `None` means all.
    pub(crate) to: Vec<Option<Name>>,
}
