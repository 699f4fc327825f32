//! What was read of a cluster.

use palisade_manifest::Input;

use crate::{error::ApiError, resource::ResourceKind};

/// The objects of one [`Input`].
const INPUT_OBJECTS: usize = 1000;

/// An object, reduced to the fields that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The object as JSON.
    pub json: Box<str>,
}

/// A kind that could not be read, or not in all namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The kind.
    pub kind: ResourceKind,
    /// The error.
    pub error: ApiError,
    /// The namespaces in which the kind could be read, sorted.
    pub only_in: Vec<String>,
}

/// The objects of a cluster, as far as they could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// The server's address.
    pub server: String,
    /// The context of the kubeconfig; `None` for a service account.
    pub context: Option<String>,
    /// The namespace of names without one.
    pub namespace: String,
    /// The objects, sorted by kind, namespace and name.
    pub objects: Vec<Object>,
    /// The kinds that could not be read, sorted.
    pub missing: Vec<Missing>,
    /// The kinds that the cluster serves, as far as its discovery reports them.
    pub served: Vec<ResourceKind>,
}

impl ClusterSnapshot {
    /// Returns the objects as inputs of the loader, a thousand at a time.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.objects.chunks(INPUT_OBJECTS).map(|chunk| {
            let items: Vec<&str> = chunk.iter().map(|object| &*object.json).collect();
            let items = items.join(",");
            Input::Cluster(format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#))
        })
    }

    /// Returns the object with this kind, namespace (empty for cluster-scoped kinds) and name.
    #[must_use]
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.iter().find(|o| o.kind.as_str() == kind && o.namespace == namespace && o.name == name)
    }
}
