//! What an API server says of itself when asked what it serves: of its answers only the names.

use serde::Deserialize;

/// The answer to `/apis`.
#[derive(Default, Deserialize)]
pub(crate) struct Groups {
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
}

/// A group, in `/apis` or as the answer to `/apis/GROUP`.
#[derive(Deserialize)]
pub(crate) struct Group {
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

/// The answer to `/apis/GROUP/VERSION`.
#[derive(Deserialize)]
pub(crate) struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

impl Resources {
    /// The plurals; those of subresources, such as `pods/status`, are among them.
    pub(crate) fn plurals(self) -> impl Iterator<Item = String> {
        self.resources.into_iter().map(|r| r.name)
    }

    /// Whether this plural is among them.
    pub(crate) fn has(&self, plural: &str) -> bool {
        self.resources.iter().any(|r| r.name == plural)
    }
}
