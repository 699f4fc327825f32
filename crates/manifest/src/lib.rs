//! Reads Kubernetes manifests into Palisade's domain values, with source positions, API defaulting and validation.
//!
//! [`load()`] reads files, directories, standard input or texts and returns a [`Loaded`]: the
//! [`palisade_policy::Cluster`] that they describe, and a [`Diagnostic`] for each error and warning. A broken document
//! is skipped; the others are still read. Only a broken policy stays, without what it allows ([`Loaded::refused`]).
//!
//! * YAML is read as kubectl reads it ([`scalar`]). A document is parsed once into a [`tree`] whose nodes carry their
//!   byte ranges, and objects are decoded from that tree.
//! * NetworkPolicies are defaulted and validated as by the API server (SEMANTICS A.2, A.3). One that the server would
//!   reject is reported, and isolates what it selects.
//! * ClusterNetworkPolicies, AdminNetworkPolicies and BaselineAdminNetworkPolicies are validated by the rules of their
//!   CustomResourceDefinitions, in either release channel ([`Channel`]). Anything unusable that these rules admit fails
//!   closed, with a warning (SEMANTICS C23, C24, G-15 to G-17).
//! * Of Ingress, the routes of the Gateway API and OpenShift's Route, only the fields that decide which pods a
//!   controller forwards to are read ([`Loaded::routes`]).
//! * Workloads are expanded into pods. Pods and nodes without addresses get placeholders, which decide nothing
//!   ([`assign_addresses`]).
//!
//! The kinds that are read, and how to add one, are in `kinds.rs`.
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
//! assert_eq!(loaded.refused.len(), 1);
//! assert_eq!(
//!     loaded.diagnostics[0].to_string(),
//!     "web.yaml:8:20: error: NetworkPolicy shop/web: spec.ingress[0].ports[0].port: Invalid value: 80000: \
//!      must be between 1 and 65535, inclusive"
//! );
//! ```

#![forbid(unsafe_code)]

mod addresses;
mod allow_source;
pub mod api_objects;
mod assemble;
mod callers;
pub mod cidr;
mod cluster_wide;
mod collapse;
mod custom_workload;
mod declared;
mod decode;
mod deny;
mod diagnostic;
mod embedded;
mod endpoints;
mod gather;
mod input;
mod isolation;
mod kinds;
mod kustomization;
mod list;
mod load;
mod loaded;
mod meta;
mod missing_namespaces;
mod mode;
pub mod names;
mod network_policy;
mod node;
mod not_manifest;
mod note;
mod object;
mod options;
mod other_networks;
mod overlay;
mod pod;
mod pod_makers;
mod printable;
mod references;
mod refused;
mod render;
mod routes;
pub mod scalar;
mod selector;
mod service;
mod shared_addresses;
mod text;
pub mod tree;
mod unrendered;
mod workload;

pub use addresses::{
    AddressEvidence, AddressPlan, FamilySource, FamilyWitness, MADE_UP_NODE, assign_addresses,
};
pub use callers::{CallTarget, Caller, ScrapedPort};
pub use collapse::collapse;
pub use diagnostic::{Code, Diagnostic, Severity};
pub use input::{DirectoryFile, Input, files, is_read};
pub use load::load;
pub use loaded::{Counts, Loaded, WorkloadLabels};
pub use network_policy::OTHER_FAMILY;
pub use note::Note;
pub use options::{Admission, Channel, LoadOptions};
pub use pod_makers::PodMakers;
pub use printable::{needs_escape, printable};
pub use references::{Reference, References, UnreadSetting, WorkloadReferences};
pub use refused::RefusedPolicy;
pub use render::{Style, render, render_group};
pub use text::Excerpt;
