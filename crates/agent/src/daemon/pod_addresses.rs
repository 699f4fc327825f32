//! The addresses of a pod whose runtime doesn't report them (NRI before 0.8), read from its network namespace before any container of it runs.
//!
//! The namespace is not entered, so that CAP_NET_ADMIN suffices. Each reading is bounded in time, and so is the number of those under way.

use std::{
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, time::timeout};

use crate::links::open_namespace;

/// The interface that runtimes give a pod: of its networks the one whose addresses the kubelet reports.
const INTERFACE: &str = "eth0";
/// How long a reading may take: less than runtimes wait.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most readings under way, of which all but one hang.
const MAX_READINGS: usize = 4;
/// The most addresses that are taken, as from a runtime.
const MAX_ADDRESSES: usize = 64;

/// Why addresses are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    /// The namespace can't be opened or read.
    #[error("cannot read the addresses in the network namespace {}", path.display())]
    Unreadable {
        /// The namespace, as this process finds it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The interface is missing or has none.
    #[error("{INTERFACE} in the network namespace {} has no address", .0.display())]
    Without(PathBuf),
    /// There are too many.
    #[error("{INTERFACE} in the network namespace {} has {count} addresses; {MAX_ADDRESSES} are allowed", path.display())]
    TooMany {
        /// The namespace.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// It takes too long.
    #[error("reading the addresses in the network namespace {} takes longer than {PATIENCE:?}", .0.display())]
    Slow(PathBuf),
    /// Earlier readings hang.
    #[error("{MAX_READINGS} readings of other pods' addresses have not ended")]
    Busy,
}

/// Reads addresses.
#[derive(Clone, Debug)]
pub(super) struct PodAddresses(Arc<Semaphore>);

impl Default for PodAddresses {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_READINGS)))
    }
}

impl PodAddresses {
    /// Reads the addresses of a pod by the path of its network namespace, as its runtime names it.
    pub(super) async fn read(&self, named: &Path) -> Result<Vec<IpAddr>, AddressError> {
        let permit = Arc::clone(&self.0).try_acquire_owned().map_err(|_| AddressError::Busy)?;
        let path = local(named);
        let of = path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let found = addresses(&of);
            // The permit of a reading that hangs is not given back.
            drop(permit);
            found
        });
        let found = match timeout(PATIENCE, reading).await {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(source))) => return Err(AddressError::Unreadable { path, source }),
            Ok(Err(ended)) => {
                return Err(AddressError::Unreadable { path, source: io::Error::other(ended) });
            }
            Err(_) => return Err(AddressError::Slow(path)),
        };
        match found.len() {
            0 => Err(AddressError::Without(path)),
            1..=MAX_ADDRESSES => Ok(found),
            count => Err(AddressError::TooMany { path, count }),
        }
    }
}

fn addresses(path: &Path) -> io::Result<Vec<IpAddr>> {
    palisade_netns::addresses_of(open_namespace(path)?.as_fd(), INTERFACE)
}

/// Runtimes name namespaces below `/var/run`, which is `/run`. A container has no such link.
fn local(named: &Path) -> PathBuf {
    named.strip_prefix("/var/run").map_or_else(|_| named.to_owned(), |rest| Path::new("/run").join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_namespace_is_named_and_does_not_hang() {
        let dir = tempfile::TempDir::new().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let addresses = PodAddresses::default();
        for path in [&pipe, &dir.path().join("gone"), Path::new("/dev/null"), dir.path()] {
            let error = addresses.read(path).await.unwrap_err();
            assert!(matches!(error, AddressError::Unreadable { .. }), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(addresses.0.available_permits(), MAX_READINGS);
    }

    #[test]
    fn a_namespace_below_var_run_is_found_below_run() {
        assert_eq!(local(Path::new("/var/run/netns/cni-1")), Path::new("/run/netns/cni-1"));
        assert_eq!(local(Path::new("/proc/7/ns/net")), Path::new("/proc/7/ns/net"));
    }
}
