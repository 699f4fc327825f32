//! The network namespaces of pods whose paths the container runtime or the CNI plugin has named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    path::PathBuf,
};

use palisade_policy::ObjectKey;

use super::rtnetlink::Requests;

/// A pod with its network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedNamespace {
    /// The path of the namespace on the node.
    pub(crate) path: PathBuf,
    /// The pod.
    pub(crate) pod: ObjectKey,
    /// Its addresses.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// The namespaces, by sandbox, each with the kernel's number of it once that is known.
#[derive(Debug, Default)]
pub(super) struct NamedNamespaces {
    by_sandbox: BTreeMap<String, (NamedNamespace, Option<i32>)>,
}

impl NamedNamespaces {
    pub(super) fn add(&mut self, sandbox: &str, namespace: NamedNamespace) {
        let is_known = self.by_sandbox.get(sandbox).is_some_and(|(known, _)| *known == namespace);
        if !is_known {
            self.by_sandbox.insert(sandbox.to_owned(), (namespace, None));
        }
    }

    /// Returns whether any is forgotten.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) -> bool {
        let before = self.by_sandbox.len();
        self.by_sandbox.retain(|sandbox, _| is_kept(sandbox));
        self.by_sandbox.len() != before
    }

    /// Returns the pods by the kernel's numbers of their namespaces. A namespace gets its number when an interface here leads to it, and
    /// keeps it. One whose path can't be opened is left out: the process may see other paths than the runtime.
    pub(super) fn numbers(
        &mut self,
        requests: &mut Requests,
    ) -> BTreeMap<i32, (ObjectKey, BTreeSet<IpAddr>)> {
        let mut out = BTreeMap::new();
        for (named, number) in self.by_sandbox.values_mut() {
            if number.is_none()
                && let Ok(file) = File::open(&named.path)
            {
                *number = requests.namespace_number(&file).ok().flatten();
            }
            if let Some(number) = number {
                out.insert(*number, (named.pod.clone(), named.addresses.clone()));
            }
        }
        out
    }
}
