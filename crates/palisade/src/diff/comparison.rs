//! Two clusters and the difference of their connections.

use palisade_analysis::Diff;
use palisade_api::Missing;
use palisade_manifest::Loaded;

/// Two clusters and the difference of their connections.
pub(crate) struct Comparison {
    pub(crate) before: Loaded,
    pub(crate) after: Loaded,
    pub(crate) difference: Diff,
    /// The kinds that could not be read and without which the result may be wrong.
    pub(crate) missing: Vec<Missing>,
}
