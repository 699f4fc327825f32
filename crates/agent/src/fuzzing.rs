//! Entry points for the fuzz targets (`fuzz/`), for what has no public one. Not part of the API: compiled with `--cfg fuzzing` only.

use tokio::{io::DuplexStream, net::UnixStream};

/// Serves one connection of the metrics and health listener. Nothing answers questions about the agent's state.
pub async fn http(stream: DuplexStream) {
    crate::daemon::fuzz_http(stream).await;
}

/// Serves one connection of the agent's socket. Every valid question is answered with `done`.
pub async fn socket(stream: UnixStream) {
    crate::daemon::fuzz_socket(stream).await;
}
