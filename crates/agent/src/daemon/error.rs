//! Errors that keep the agent from starting, or end it.

use std::{io, time::Duration};

use palisade_api::AccessError;

use super::listener::SocketError;
use crate::{
    DataPlaneError, config::ConfigError, lock::LockError, otlp::OtlpError, source::directory::DirectoryError,
    state::StateError,
};

/// Why the agent can't start or continue.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Invalid settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another agent runs, or the lock can't be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data plane can't be opened.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// The kernel refused an operation outside the data plane.
    #[error(transparent)]
    Kernel(#[from] palisade_nft::Error),
    /// The address or the credentials of the API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The directory of manifests.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The local socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What sends records and metrics can't be set up.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The system refused a thread, a runtime or a signal handler.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The source delivered no complete snapshot in time.
    #[error("no complete snapshot of the cluster within {} s{}", .0.as_secs(), .1.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoSnapshot(Duration, Option<String>),
    /// A command that needs the state directory.
    #[error("no state directory: set --state-dir to that of the agents")]
    NoStateDirectory,
    /// The node's state can't be removed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file of learned names can't be removed.
    #[error("cannot remove the file of learned names")]
    LearnedNames(#[source] io::Error),
    /// The source ended, which it never should.
    #[error("the source ended unexpectedly; this is a bug")]
    SourceEnded,
    /// The worker thread panicked.
    #[error("the worker thread ended unexpectedly; this is a bug. The rules stay in the kernel")]
    WorkerEnded,
    /// The CNI plugin can't be removed from the node's configuration.
    #[error("cannot remove the plugin from the CNI configuration")]
    Cni(#[from] crate::cni::InstallError),
    /// The records of pods that started through the CNI plugin can't be removed.
    #[error("cannot remove the records of pods that started through the CNI plugin")]
    Records(#[source] io::Error),
}
