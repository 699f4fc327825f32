//! A suggested edit, and what it edits.

use palisade_analysis::edit::Edit;
use palisade_api::ClusterSnapshot;
use palisade_policy::Cluster;

use crate::inputs::ReadingArguments;

/// One edit.
pub(crate) struct Suggestion {
    /// The edit itself.
    pub(crate) edit: Edit,
    /// In words.
    pub(crate) what: String,
    /// What to write.
    pub(crate) how: SuggestedEdit,
    /// Whether it changes more connections than the one in question.
    pub(crate) wider: bool,
}

/// What to write.
pub(crate) enum SuggestedEdit {
    /// A unified diff of the policy's file, which was read back and means the edit.
    Patch(String),
    /// A command that patches the policy in the cluster, which was tried on the object and means the edit.
    Command(String),
    /// The YAML to write, where no patch could be made.
    Text(String),
}

/// Where the policies are that could be edited.
#[derive(Clone, Copy)]
pub(crate) struct EditTarget<'a> {
    /// All of them.
    pub(crate) cluster: &'a Cluster,
    /// The namespace of objects in manifests that have none.
    pub(crate) namespace: &'a str,
    /// SuggestedEdit manifests are read.
    pub(crate) reading: &'a ReadingArguments,
    /// What a live cluster has.
    pub(crate) live: Option<&'a ClusterSnapshot>,
    /// The context by which the user named it.
    pub(crate) context: Option<&'a str>,
}
