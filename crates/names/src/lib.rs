//! Names and words: from names as people write them to the objects of a cluster, and from objects to words.
//!
//! * [`find`] resolves a name such as `web` in a namespace to the object, or suggests similar names.
//! * [`endpoints_of`] returns the endpoints of a pod; [`backends`] and [`route_backends`] return the pods behind a
//!   service.
//! * [`recognized_controllers`] finds the pods that forward connections for routes.
//! * [`Route`] is an Ingress, a route of the Gateway API or an OpenShift Route.
//! * [`host_mentions`] finds the hosts that a setting names, and [`MentionResolver`] what they are in a cluster.
//! * [`dns_servers`] finds the pods that serve DNS.
//! * [`describe_peer`] and its siblings describe peers and ports of policies.

#![forbid(unsafe_code)]

mod describe;
mod dns;
mod dns_name;
mod endpoints;
mod ingress_controllers;
mod lookup;
mod mentioned;
mod mentions;
mod routes;
#[cfg(test)]
mod sample;
mod scrapers;
mod service_addresses;
mod service_targets;
mod services;
mod spelling;

pub use describe::{describe_entry, describe_missing, describe_peer, describe_port};
pub use dns::{DNS_PORT, DnsServer, dns_servers, dns_service_addresses, is_dns_service, usual_dns_server};
pub use dns_name::{DnsName, dashed};
pub use endpoints::{NoEndpoint, endpoints_of, endpoints_on_any_node, of_family};
pub use ingress_controllers::{RecognizedController, is_served_from_outside, recognized_controllers};
pub use lookup::{EndpointKind, LookupError, Named, UnknownKind, find, find_anywhere, unknown_anywhere};
pub use mentioned::{MentionResolver, Mentioned};
pub use mentions::{HostMention, MentionForm, host_mentions, is_host_setting};
pub use routes::{PortSpec, Route, RouteBackend, RoutePort};
pub use scrapers::is_scraper;
pub use service_addresses::{Way, has_port, host_port, node_port, service_at, service_of_host, services_at};
pub use service_targets::{
    API_SERVER, ServiceTarget, ServiceTargets, api_server, is_api_server, service_targets,
};
pub use services::{Backend, NoBackend, backends, route_backends};
pub use spelling::near;
