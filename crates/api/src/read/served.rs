//! Which kinds a cluster serves, and in which versions.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Candidate, ObjectReader};
use crate::{
    api_groups::{ApiGroup, ApiGroupList, ApiResourceList},
    error::ApiError,
    resource::ResourceKind,
};

/// Returns the kinds to read. Kinds that the cluster doesn't serve are left out.
///
/// # Errors
/// If the server can't be reached, or does not accept the credentials.
pub(super) async fn served(reader: &ObjectReader<'_>) -> Result<Vec<Candidate>, ApiError> {
    let groups = match reader.get::<ApiGroupList>("/apis").await {
        Ok(groups) => Some(groups),
        // Without the right to discover, lists may still be allowed.
        Err(error) if error.is_forbidden() => None,
        Err(error) => return Err(error),
    };
    let groups: Option<BTreeMap<String, BTreeSet<String>>> = groups.map(|groups| {
        let versions = |g: ApiGroup| (g.name, g.versions.into_iter().map(|v| v.version).collect());
        groups.groups.into_iter().map(versions).collect()
    });
    let mut resources = ResourceLists { reader, lists: BTreeMap::new() };
    let mut candidates = Vec::new();
    for kind in ResourceKind::all() {
        let mut versions = Vec::new();
        for version in kind.versions().iter().copied() {
            if !kind.is_optional() {
                versions.push(version);
                continue;
            }
            let has_version = groups
                .as_ref()
                .is_none_or(|groups| groups.get(kind.group()).is_some_and(|all| all.contains(version)));
            if !has_version {
                continue;
            }
            match resources.contains(kind, version).await {
                Some(true) => {
                    versions.push(version);
                    break;
                }
                Some(false) => {}
                None => versions.push(version),
            }
        }
        if !versions.is_empty() {
            candidates.push(Candidate { kind, versions });
        }
    }
    Ok(candidates)
}

/// The resources of each version of a group, requested once. `None` if the server doesn't report them.
struct ResourceLists<'a> {
    reader: &'a ObjectReader<'a>,
    lists: BTreeMap<String, Option<ApiResourceList>>,
}

impl ResourceLists<'_> {
    /// Whether the version has the kind; `None` if that is unknown.
    async fn contains(&mut self, kind: ResourceKind, version: &str) -> Option<bool> {
        let api_version = kind.api_version(version);
        if !self.lists.contains_key(&api_version) {
            let list = match self.reader.get(&format!("/apis/{api_version}")).await {
                Ok(list) => Some(list),
                Err(error) if error.is_not_found() => Some(ApiResourceList::default()),
                Err(_) => None,
            };
            self.lists.insert(api_version.clone(), list);
        }
        let list = self.lists.get(&api_version)?.as_ref()?;
        Some(list.contains(kind.plural()))
    }
}
