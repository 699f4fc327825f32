//! A suggested edit, and what it edits.

use palisade_analysis::edit::Edit;
use palisade_api::ClusterSnapshot;
use palisade_policy::Cluster;

use crate::inputs::ReadingArguments;

/// A suggested edit.
pub(crate) struct Suggestion {
    /// The edit itself.
    pub(crate) edit: Edit,
    /// A description of the edit.
    pub(crate) what: String,
    /// How to make the edit.
    pub(crate) how: SuggestedEdit,
    /// Whether it also affects other connections.
    pub(crate) wider: bool,
}

/// How to make an edit.
pub(crate) enum SuggestedEdit {
    /// A unified diff of the policy's file, verified by reading the patched file.
    Patch(String),
    /// A command that patches the policy in the cluster, verified on the object that was read.
    Command(String),
    /// The YAML to insert, if no patch is possible.
    Text(String),
}

/// The policies to edit, and how they were read.
#[derive(Clone, Copy)]
pub(crate) struct EditTarget<'a> {
    /// The cluster with its policies.
    pub(crate) cluster: &'a Cluster,
    /// The namespace of manifests without one.
    pub(crate) namespace: &'a str,
    /// SuggestedEdit manifests are read.
    pub(crate) reading: &'a ReadingArguments,
    /// The objects read from the API server, if any.
    pub(crate) live: Option<&'a ClusterSnapshot>,
    /// The kubeconfig context that the user gave.
    pub(crate) context: Option<&'a str>,
}
