//! From names as people write them to the objects of a cluster, and from objects back to words.
//!
//! * [`find`] resolves `deploy/web` or `shop/svc/db` to the object, or suggests what may have been meant.
//! * [`endpoints_of`] lists the addresses of a pod, [`backends`] and [`route_backends`] the pods behind a service.
//! * [`Route`] is an Ingress, a Gateway API route or an OpenShift Route.
//! * [`describe_peer`] and its siblings put a policy's peers and ports into words.

#![forbid(unsafe_code)]

mod describe;
mod endpoints;
mod lookup;
mod routes;
#[cfg(test)]
mod sample;
mod services;
mod spelling;

pub use describe::{describe_entry, describe_missing, describe_peer, describe_port};
pub use endpoints::{NoEndpoint, endpoints_of, of_family};
pub use lookup::{EndpointKind, LookupError, Named, UnknownKind, find};
pub use routes::{PortSpec, Route, RouteBackend, RoutePort};
pub use services::{Backend, NoBackend, backends, route_backends, service_at};
