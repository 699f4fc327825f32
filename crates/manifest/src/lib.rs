//! Kubernetes manifests to Palisade's domain values, with source positions, API defaulting and validation.
//!
//! [`load`] reads files, directories, standard input or texts and gives a [`Loaded`]: the [`palisade_policy::Cluster`]
//! that they describe, and a [`Diagnostic`] for everything that is wrong with them. It takes in what it can: a broken
//! document costs that document alone.
//!
//! * YAML means what kubectl makes of it ([`scalar`]); a document is parsed once into a [`tree`] whose every node knows
//!   its bytes, and objects are decoded from that tree.
//! * NetworkPolicies are defaulted and validated as the API server does it (SEMANTICS A.2, A.3). One that the server
//!   would reject is reported and not taken in.
//! * ClusterNetworkPolicies, AdminNetworkPolicies and BaselineAdminNetworkPolicies are checked with the rules of their
//!   CustomResourceDefinitions, in either release channel ([`Channel`]). What those leave unchecked and can't be used
//!   fails closed, with a warning (SEMANTICS C23, C24, G-15 to G-17).
//! * Ingress, the routes of the Gateway API and OpenShift's Route are read as far as it takes to know which pods a
//!   controller forwards to ([`Loaded::routes`]).
//! * Workloads become pods, and pods and services without addresses get some ([`addresses`]).
//!
//! ```
//! use palisade_manifest::{Input, LoadOptions, load};
//!
//! let text = "
//! apiVersion: networking.k8s.io/v1
//! kind: NetworkPolicy
//! metadata: {name: web, namespace: shop}
//! spec:
//!   podSelector: {matchLabels: {app: web}}
//!   ingress:
//!   - ports: [{port: 80000}]
//! ";
//! let loaded = load(&[Input::Text { name: "web.yaml".into(), text: text.into() }], &LoadOptions::default());
//! assert!(loaded.cluster.policies.is_empty());
//! assert_eq!(
//!     loaded.diagnostics[0].to_string(),
//!     "web.yaml:8:20: error: NetworkPolicy shop/web: spec.ingress[0].ports[0].port: Invalid value: 80000: \
//!      must be between 1 and 65535, inclusive"
//! );
//! ```

#![forbid(unsafe_code)]

mod absent;
pub mod addresses;
pub mod api_objects;
mod assemble;
pub mod cidr;
mod cluster_wide;
mod declared;
mod decode;
pub mod diagnostic;
mod fold;
mod gather;
mod input;
mod kinds;
mod load;
mod loaded;
mod meta;
pub mod names;
mod network_policy;
mod node;
mod object;
mod options;
mod overlay;
mod pod;
pub mod printable;
mod render;
mod routes;
pub mod scalar;
mod selector;
mod service;
mod shared_addresses;
pub mod text;
pub mod tree;
mod workload;

pub use addresses::{AddressPlan, Unaddressed, assign_addresses, keep_addresses};
pub use diagnostic::{Code, Diagnostic, Severity};
pub use fold::folded;
pub use input::{Input, files};
pub use load::load;
pub use loaded::{Counts, Loaded};
pub use options::{Admission, Channel, LoadOptions};
pub use printable::{needs_escape, printable};
pub use render::{Style, render};
