//! The body of a question: JSON of a limited size that arrives within a limited time.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    HeaderMap, StatusCode,
    body::{Body, Bytes},
    header::CONTENT_TYPE,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The largest body, in bytes: more than anyone edits, and less than takes long to read.
const MOST: usize = 256 << 10;
/// The body must arrive within this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a body is not read.
#[derive(Debug)]
pub(super) struct BadBody {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

/// Reads a body.
///
/// # Errors
/// When it is too large or too slow, or no such JSON. Pages of other servers can't send this content type without asking
/// first, which is refused.
pub(super) async fn json_body<T, B>(headers: &HeaderMap, body: B) -> Result<T, BadBody>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |status, reason: &str| BadBody { status, reason: reason.to_owned() };
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return Err(bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"));
    }
    let bytes = match timeout(PATIENCE, Limited::new(body, MOST).collect()).await {
        Err(_) => return Err(bad(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let reason = format!("the body is larger than {} KiB", MOST >> 10);
            return Err(bad(StatusCode::PAYLOAD_TOO_LARGE, &reason));
        }
        Ok(Err(_)) => return Err(bad(StatusCode::BAD_REQUEST, "the body is incomplete")),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| BadBody { status: StatusCode::BAD_REQUEST, reason: format!("the body: {error}") })
}
