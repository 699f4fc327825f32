//! The way to the API server, made anew when it no longer leads there.

use std::time::Duration;

use http::{Request, header::RETRY_AFTER};
use kube::{Client, client::Body};
use tokio::sync::Mutex;

use super::{failure::Failure, lines::whole, message::status};
use crate::Access;

/// No error message is longer; what is, comes from something else than an API server.
const LONGEST_ERROR: usize = 64 << 10;

/// One client for all watches. The client reads a token file about once a minute by itself; certificates, CA bundles and
/// addresses it reads once. [`Doors::renew`] reads all of them.
#[derive(Debug)]
pub(crate) struct Doors {
    access: Option<Access>,
    current: Mutex<Door>,
}

/// A client, and how many there were before it.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) client: Client,
    number: u64,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Door {
    /// Sends a request, and gives the body of the answer if that is what was asked for.
    ///
    /// # Errors
    /// When there is no answer within `patience`, or it is an error.
    pub(crate) async fn ask(&self, request: Request<Vec<u8>>, patience: Duration) -> Result<Body, Failure> {
        let answer = tokio::time::timeout(patience, self.client.send(request.map(Body::from))).await;
        let answer = answer.map_err(|_| Failure::Silent(patience))?.map_err(|e| Failure::of(&e))?;
        let code = answer.status();
        if code.is_success() {
            return Ok(answer.into_body());
        }
        let asked = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let text = whole(answer.into_body(), LONGEST_ERROR, patience).await.unwrap_or_default();
        Err(status(&text, code.as_u16(), asked.map(Duration::from_secs)))
    }
}

impl Doors {
    pub(crate) fn new(client: Client, access: Option<Access>) -> Self {
        Self { access, current: Mutex::new(Door { client, number: 0 }) }
    }

    /// The present client.
    pub(crate) async fn door(&self) -> Door {
        self.current.lock().await.clone()
    }

    /// A new client in the place of `used`, unless somebody has put one there already.
    pub(crate) async fn renew(&self, used: &Door) {
        let Some(access) = &self.access else { return };
        let mut current = self.current.lock().await;
        if current.number != used.number {
            return;
        }
        match access.connect_for_watching().await {
            Ok(client) => *current = Door { client, number: current.number + 1 },
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "cannot read how to reach the API server; going on with what was known"
                );
            }
        }
    }
}
