//! The client that all requests of an agent share. It is replaced if the server no longer accepts it.

use std::time::Duration;

use http::Request;
use kube::{Client, client::Body};
use tokio::sync::Mutex;

use crate::{access::Access, error::ApiError, transport::send};

/// One client for all watches. The client re-reads a token file about once a minute; certificates, CA bundles and addresses it reads
/// once. [`ClientPool::renew`] re-reads all of them.
#[derive(Debug)]
pub(crate) struct ClientPool {
    access: Option<Access>,
    current: Mutex<PooledClient>,
}

/// A client, and how many the pool has had before it.
#[derive(Clone)]
pub(crate) struct PooledClient {
    pub(crate) client: Client,
    number: u64,
}

impl std::fmt::Debug for PooledClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledClient").field("number", &self.number).finish_non_exhaustive()
    }
}

impl PooledClient {
    /// Sends a request and returns the body of a successful response.
    ///
    /// # Errors
    /// If there is no response within `timeout`, or the response is an error.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>, timeout: Duration) -> Result<Body, ApiError> {
        send(&self.client, request, timeout).await
    }
}

impl ClientPool {
    pub(crate) fn new(client: Client, access: Option<Access>) -> Self {
        Self { access, current: Mutex::new(PooledClient { client, number: 0 }) }
    }

    /// Returns the current client.
    pub(crate) async fn current(&self) -> PooledClient {
        self.current.lock().await.clone()
    }

    /// Replaces the client `failed`, unless another task has replaced it already.
    pub(crate) async fn renew(&self, failed: &PooledClient) {
        let Some(access) = &self.access else { return };
        let mut current = self.current.lock().await;
        if current.number != failed.number {
            return;
        }
        match access.connect_without_retries().await {
            Ok(client) => *current = PooledClient { client, number: current.number + 1 },
            Err(error) => {
                let err: &dyn std::error::Error = &error;
                tracing::warn!(
                    err,
                    "cannot re-read the API server's address and credentials, keeping the current ones"
                );
            }
        }
    }
}
