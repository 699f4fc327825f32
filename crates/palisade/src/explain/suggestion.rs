//! Suggested edits, and what they edit.

use palisade_analysis::edit::{Edit, Plan};
use palisade_api::ClusterSnapshot;
use palisade_manifest::Loaded;

use crate::inputs::ReadingArguments;

/// Edits that together give the requested verdict.
pub(crate) struct Suggestion {
    /// The edits, and what else changes.
    pub(crate) plan: Plan,
    /// Each edit in words.
    pub(crate) texts: Vec<String>,
    /// One patch for each file. They apply as they stand.
    pub(crate) patches: Vec<FilePatch>,
    /// Commands that edit objects in the cluster, verified on the objects that were read.
    pub(crate) commands: Vec<String>,
    /// What must be inserted by hand, as YAML, where no patch is possible.
    pub(crate) by_hand: Vec<String>,
}

/// A unified diff of one file.
pub(crate) struct FilePatch {
    /// The file, as in the patch.
    pub(crate) file: String,
    /// The patch.
    pub(crate) patch: String,
}

/// The objects to edit, and how they were read.
#[derive(Clone, Copy)]
pub(crate) struct EditTarget<'a> {
    /// The cluster with its policies, and where they were read.
    pub(crate) loaded: &'a Loaded,
    /// The namespace of manifests without one.
    pub(crate) namespace: &'a str,
    /// How manifests are read.
    pub(crate) reading: &'a ReadingArguments,
    /// The files and directories that the user named.
    pub(crate) files: &'a [String],
    /// The objects read from the API server, if any.
    pub(crate) live: Option<&'a ClusterSnapshot>,
    /// The kubeconfig context that the user gave.
    pub(crate) context: Option<&'a str>,
}

impl Suggestion {
    /// Returns whether nothing is left to be done by hand.
    pub(crate) fn is_complete(&self) -> bool {
        self.by_hand.is_empty()
    }

    /// Returns the edits in words: `add … and replace …`.
    pub(crate) fn text(&self) -> String {
        self.texts.join(", and ")
    }

    /// Returns the edits.
    pub(crate) fn edits(&self) -> &[Edit] {
        &self.plan.edits
    }
}
