//! One endpoint as JSON, for answers that list endpoints one by one.

use palisade_policy::{Cluster, Endpoint};
use serde::Serialize;

/// An endpoint.
#[derive(Serialize)]
pub(crate) struct JsonEnd {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl JsonEnd {
    /// Returns an endpoint of a cluster, without an address that only stands for an unknown one.
    pub(crate) fn new(end: &Endpoint, cluster: &Cluster) -> Self {
        let address = Some(end.address()).filter(|address| !cluster.addressing.is_placeholder(*address));
        let address = address.map(|address| address.to_string());
        match end {
            Endpoint::Pod { key, .. } => {
                let (namespace, name) = (Some(key.namespace.to_string()), Some(key.name.to_string()));
                Self { kind: "pod", namespace, name, address }
            }
            Endpoint::Node { name, .. } => {
                Self { kind: "node", namespace: None, name: Some(name.to_string()), address }
            }
            Endpoint::External(_) => Self { kind: "external", namespace: None, name: None, address },
        }
    }
}
