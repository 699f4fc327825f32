//! Why a connection to the runtime could not be made, or ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no connection to the container runtime.
#[derive(Debug, thiserror::Error)]
pub enum NriError {
    /// The runtime has no NRI socket: NRI is disabled, or the runtime doesn't run.
    #[error("{}: no NRI socket: NRI is disabled in the container runtime, or the runtime is not running", path.display())]
    NoSocket {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The socket could not be connected to.
    #[error("{}: cannot connect to the NRI socket", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket failed.
    #[error("the NRI socket failed")]
    Socket(#[source] io::Error),
    /// The runtime refused the plugin.
    #[error("the container runtime refused the plugin: {0}")]
    Refused(String),
    /// The runtime didn't answer in time.
    #[error("the container runtime did not answer within {0:?}")]
    Silent(Duration),
    /// The runtime closed the connection: it stopped, or this plugin took too long to answer.
    #[error("the container runtime closed the NRI connection")]
    Closed,
    /// What was received is not NRI.
    #[error("not understood: {0}")]
    Protocol(String),
}
