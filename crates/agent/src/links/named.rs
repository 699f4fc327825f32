//! The network namespaces of pods whose paths the container runtime or the CNI plugin has named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use palisade_policy::ObjectKey;

use super::rtnetlink::Requests;

/// Opens a network namespace by a path that another program has named. Opening a pipe without a writer
/// would block the calling thread, and opening some devices has an effect, so nothing but a regular file is opened.
pub(crate) fn open_namespace(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a network namespace"));
    }
    // It may be replaced in between.
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)
}

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
                && let Ok(file) = open_namespace(&named.path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_not_opened_and_does_not_stop_the_thread() {
        let dir = tempfile::TempDir::new().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [&pipe, &link, Path::new("/dev/null"), dir.path()] {
            assert_eq!(open_namespace(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
        assert_eq!(open_namespace(&dir.path().join("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
        open_namespace(Path::new("/proc/self/ns/net")).unwrap();
        open_namespace(Path::new("/proc/self/task/../ns/net")).unwrap();
    }
}
