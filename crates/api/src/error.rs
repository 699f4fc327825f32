//! Why a request to the API server failed.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

#[cfg(feature = "client")]
mod client;

#[cfg(feature = "client")]
pub(crate) use client::{auth_error, first_line, kubeconfig_error};

/// The error of a request to the API server.
///
/// Two errors are equal if they are of the same kind, whatever caused them.
#[derive(Clone, Debug)]
pub struct ApiError {
    kind: ApiErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of an [`ApiError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiErrorKind {
    /// The server responded with an error, other than 410.
    #[error("{}", status_line(*code, message))]
    Status {
        /// The HTTP status code.
        code: u16,
        /// The server's message; empty if there is none.
        message: String,
        /// How long the server requests us to wait.
        retry_after: Option<Duration>,
    },
    /// The server no longer has the requested resource version (410).
    #[error("the server no longer has the requested resource version (410 Gone)")]
    Expired,
    /// There was no response in time.
    #[error("no response within {}", seconds(*.0))]
    TimedOut(Duration),
    /// No connection could be established.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The server's certificate is not accepted, or the server does not accept ours.
    #[error("{0}")]
    Tls(String),
    /// The credentials could not be obtained.
    #[error("cannot get the credentials: {0}")]
    Credentials(String),
    /// The connection was lost before the response was complete.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// The server closed a watch immediately.
    #[error("the server closed the watch immediately")]
    WatchClosed,
    /// The response is not one of the Kubernetes API.
    #[error("cannot decode the response: {0}")]
    Malformed(String),
    /// The response is longer than any object can be.
    #[error("cannot decode the response: it has more than {0} bytes")]
    TooLarge(usize),
}

impl PartialEq for ApiError {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<ApiErrorKind> for ApiError {
    fn from(kind: ApiErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl ApiError {
    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> &ApiErrorKind {
        &self.kind
    }

    /// The HTTP status code, if the server responded with an error other than 410.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.kind {
            ApiErrorKind::Status { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether the server does not accept the credentials (401).
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.code() == Some(401)
    }

    /// Whether a right is missing (403).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether the object or the kind does not exist (404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the server no longer has the requested resource version (410).
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.kind == ApiErrorKind::Expired
    }

    /// How long the server requests us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            ApiErrorKind::Status { retry_after, .. } => retry_after,
            _ => None,
        }
    }

    /// The error, and what a user of the command line can do about it.
    #[must_use]
    pub fn with_advice(&self) -> String {
        let advice = match &self.kind {
            ApiErrorKind::Status { code: 401, .. } => "log in again, or choose another context",
            ApiErrorKind::TimedOut(_) => "set a larger --request-timeout",
            ApiErrorKind::Malformed(_) | ApiErrorKind::TooLarge(_) => {
                "is this the address of a Kubernetes API server?"
            }
            _ => return self.to_string(),
        };
        format!("{self}; {advice}")
    }
}

/// `403 Forbidden: pods is forbidden`.
fn status_line(code: u16, message: &str) -> String {
    let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
    let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{code}{reason}{message}")
}

/// `30 s`, `400 ms`.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds == seconds.trunc() { format!("{seconds} s") } else { format!("{} ms", duration.as_millis()) }
}
