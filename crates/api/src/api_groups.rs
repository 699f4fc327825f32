//! The server's discovery documents. Only the names are read.

use serde::Deserialize;

/// The response to `/apis`.
#[derive(Default, Deserialize)]
pub(crate) struct ApiGroupList {
    #[serde(default)]
    pub(crate) groups: Vec<ApiGroup>,
}

/// A group, in `/apis` or as the response to `/apis/GROUP`.
#[derive(Deserialize)]
pub(crate) struct ApiGroup {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) versions: Vec<GroupVersion>,
}

/// A version of a group.
#[derive(Deserialize)]
pub(crate) struct GroupVersion {
    /// Without the group, such as `v1beta1`.
    pub(crate) version: String,
}

/// The response to `/apis/GROUP/VERSION`.
#[derive(Default, Deserialize)]
pub(crate) struct ApiResourceList {
    #[serde(default)]
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
struct ApiResource {
    name: String,
}

impl ApiResourceList {
    /// Whether the list has this plural.
    pub(crate) fn contains(&self, plural: &str) -> bool {
        self.resources.iter().any(|r| r.name == plural)
    }
}
