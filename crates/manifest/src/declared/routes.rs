//! Ingresses, routes, gateways and the grants between namespaces.

use std::collections::BTreeMap;

use palisade_names::RoutePort;
use palisade_policy::{Name, ObjectKey, Origin, Protocol, Selector};

/// A route of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredRoute {
    pub(crate) origin: Origin,
    /// What it leads to, each with its place and path: the first, where it is named again.
    pub(crate) backends: BTreeMap<DeclaredBackend, (Origin, String)>,
    /// The gateways that it asks for; `None` where the kind has none.
    pub(crate) parents: Option<Vec<ParentRef>>,
    /// The hosts that it is for; none: any.
    pub(crate) hosts: Vec<Name>,
}

/// One service that a route names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeclaredBackend {
    pub(crate) service: ObjectKey,
    pub(crate) port: RoutePort,
    pub(crate) protocol: Protocol,
}

/// A Gateway: what its listeners take in.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) listeners: Vec<Listener>,
}

/// One listener of a Gateway.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: Name,
    pub(crate) port: Option<u16>,
    /// The hosts that it is for; `None`: any.
    pub(crate) host: Option<Name>,
    pub(crate) namespaces: AllowedNamespaces,
    /// The kinds of routes that it takes; `None`: any.
    pub(crate) kinds: Option<Vec<Name>>,
}

/// The namespaces whose routes a listener takes.
#[derive(Clone, Debug)]
pub(crate) enum AllowedNamespaces {
    /// That of the gateway.
    Same,
    /// Every one.
    All,
    /// Those with such labels.
    Selector(Selector),
    /// None.
    None,
}

/// A gateway that a route asks for.
#[derive(Clone, Debug)]
pub(crate) struct ParentRef {
    pub(crate) kind: ParentKind,
    pub(crate) key: ObjectKey,
    /// The one listener that is meant.
    pub(crate) section: Option<Name>,
    pub(crate) port: Option<u16>,
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParentKind {
    /// A Gateway.
    Gateway,
    /// A Service: the route is for what pods of a mesh send to it, and lets nothing in.
    Service,
    /// Something that we don't know, such as a ListenerSet.
    Other,
}

/// A ReferenceGrant: routes of these kinds and namespaces may lead to services of its own namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReferenceGrant {
    /// Kind and namespace.
    pub(crate) from: Vec<(Name, Name)>,
    /// The services; `None`: all.
    pub(crate) to: Vec<Option<Name>>,
}
