//! Which of the kinds a cluster serves, and in which version.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{RESOURCES, Resource, list::Asking};
use crate::{
    catalogue::{Group, Groups, Resources},
    trouble::Trouble,
};

/// What a version of a group has; `None` where the server doesn't say.
async fn plurals(asking: &Asking<'_>, group: &str, version: &str) -> Option<BTreeSet<String>> {
    match asking.get::<Resources>(&format!("/apis/{group}/{version}"), "application/json").await {
        Ok(all) => Some(all.plurals().collect()),
        Err(Trouble::NotFound) => Some(BTreeSet::new()),
        Err(_) => None,
    }
}

/// A kind and the versions in which to ask for it, the best first; more than one where discovery doesn't say.
pub(super) type Wanted = (&'static Resource, Vec<&'static str>);

/// The kinds to ask for. What a cluster doesn't serve is not among them: there is nothing to read.
///
/// # Errors
/// When the server can't be asked anything.
pub(super) async fn served(asking: &Asking<'_>) -> Result<Vec<Wanted>, Trouble> {
    let groups = match asking.get::<Groups>("/apis", "application/json").await {
        Ok(groups) => Some(groups),
        // Who may not discover may list all the same.
        Err(Trouble::Refused(_)) => None,
        Err(trouble) => return Err(trouble),
    };
    let versions: Option<BTreeMap<String, BTreeSet<String>>> = groups.map(|groups| {
        let of = |g: Group| (g.name, g.versions.into_iter().map(|v| v.version).collect());
        groups.groups.into_iter().map(of).collect()
    });
    // The resources of each version of an optional group; `None` where the server doesn't say.
    let mut known: BTreeMap<(&str, &str), Option<BTreeSet<String>>> = BTreeMap::new();
    let mut wanted = Vec::new();
    for resource in RESOURCES {
        let mut ask = Vec::new();
        for version in resource.versions {
            if !resource.is_optional() {
                ask.push(*version);
                continue;
            }
            let listed = versions
                .as_ref()
                .is_none_or(|all| all.get(resource.group).is_some_and(|v| v.contains(*version)));
            if !listed {
                continue;
            }
            let key = (resource.group, *version);
            if let Entry::Vacant(unknown) = known.entry(key) {
                unknown.insert(plurals(asking, resource.group, version).await);
            }
            match &known[&key] {
                Some(plurals) if plurals.contains(resource.plural) => {
                    ask.push(*version);
                    break;
                }
                Some(_) => {}
                None => ask.push(*version),
            }
        }
        if !ask.is_empty() {
            wanted.push((resource, ask));
        }
    }
    Ok(wanted)
}
