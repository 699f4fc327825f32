//! One request to the API server, and the body of its response.

use std::time::Duration;

use http::{Request, header};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde::{Deserialize, de::DeserializeOwned};

use crate::error::{ApiError, ApiErrorKind};

/// A longer error message comes from something else than an API server.
const MAX_ERROR_BODY: usize = 64 << 10;
/// A document that is read whole: an object, or a list of versions or resources.
const MAX_DOCUMENT: usize = 4 << 20;

/// Sends a request and returns the body of a successful response.
///
/// # Errors
/// If there is no response within `timeout`, or the response is an error.
pub(crate) async fn send(
    client: &Client,
    request: Request<Vec<u8>>,
    timeout: Duration,
) -> Result<Body, ApiError> {
    let response = tokio::time::timeout(timeout, client.send(request.map(Body::from))).await;
    let response = response.map_err(|_| ApiErrorKind::TimedOut(timeout))??;
    let code = response.status();
    if code.is_success() {
        return Ok(response.into_body());
    }
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = read_body(response.into_body(), MAX_ERROR_BODY, timeout).await.unwrap_or_default();
    Err(error_status(&body, code.as_u16(), retry_after.map(Duration::from_secs)))
}

/// Reads a body to its end.
///
/// # Errors
/// If the body has more than `max` bytes, the connection is lost, or nothing is received for `idle_timeout`.
pub(crate) async fn read_body(
    mut body: Body,
    max: usize,
    idle_timeout: Duration,
) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    loop {
        let frame = tokio::time::timeout(idle_timeout, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ApiErrorKind::TimedOut(idle_timeout))? else { return Ok(bytes) };
        if let Ok(data) = frame.map_err(connection_lost)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > max {
            return Err(ApiErrorKind::TooLarge(max).into());
        }
    }
}

/// Reads the JSON document at a path.
///
/// # Errors
/// If the response is not complete within `timeout`, is an error, or is not the document.
pub(crate) async fn get_json<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    timeout: Duration,
) -> Result<T, ApiError> {
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(Vec::new())?;
    let response = async {
        let body = send(client, request, timeout).await?;
        read_body(body, MAX_DOCUMENT, timeout).await
    };
    let bytes =
        tokio::time::timeout(timeout, response).await.map_err(|_| ApiErrorKind::TimedOut(timeout))??;
    Ok(serde_json::from_slice(&bytes)?)
}

/// An error in the middle of a body. A connection had been established, so the server was reachable.
pub(crate) fn connection_lost(error: kube::Error) -> ApiError {
    let error = ApiError::from(error);
    match error.kind() {
        ApiErrorKind::Unreachable(reason) => ApiErrorKind::ConnectionLost(reason.clone()).into(),
        _ => error,
    }
}

/// Returns the error in a `Status` object. `code` is that of the response, for a body that is not a `Status`: a proxy responds in HTML,
/// and some refusals of the API server are plain text.
pub(crate) fn error_status(object: &[u8], code: u16, retry_after: Option<Duration>) -> ApiError {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        code: Option<u16>,
        message: Option<String>,
        details: Option<Details>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Details {
        retry_after_seconds: Option<u32>,
    }
    let Ok(status) = serde_json::from_slice::<Status>(object) else {
        return ApiError::status(code, &String::from_utf8_lossy(object), retry_after);
    };
    let in_details = status.details.and_then(|d| d.retry_after_seconds).filter(|s| *s > 0);
    let retry_after = retry_after.or(in_details.map(|s| Duration::from_secs(s.into())));
    let code = status.code.filter(|c| *c != 0).unwrap_or(code);
    ApiError::status(code, &status.message.unwrap_or_default(), retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_its_code_and_the_requested_pause() {
        let expired =
            br#"{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}"#;
        assert!(error_status(expired, 200, None).is_expired());
        let busy = br#"{"kind":"Status","code":429,"message":"wait","details":{"retryAfterSeconds":3}}"#;
        assert_eq!(error_status(busy, 429, None).retry_after(), Some(Duration::from_secs(3)));
        let page = error_status(b"<html>\x1b[31mBad gateway</html>", 502, None);
        assert_eq!(page.to_string(), "502 Bad Gateway: <html>[31mBad gateway</html>");
    }
}
