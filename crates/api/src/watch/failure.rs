//! What goes wrong on the way to the API server, in words that say what to do.

use std::time::Duration;

use http::StatusCode;
use kube::Error;

use crate::{Kind, trouble::Trouble};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The server answered with an error.
    #[error("{code}: {message}")]
    Status { code: u16, message: String, retry_after: Option<Duration> },
    /// The server has forgotten the version that we know (410).
    #[error("the server no longer knows the version from which to go on")]
    Expired,
    /// No connection.
    #[error("{0}")]
    Unreachable(String),
    /// No secure one.
    #[error("{0}")]
    Tls(String),
    /// No credentials to send.
    #[error("cannot read the credentials: {0}")]
    Credentials(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came for too long.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The server ended a watch as soon as it had begun.
    #[error("the server ended the watch at once")]
    Ended,
    /// What came is not what the API says.
    #[error("the answer can't be read: {0}")]
    Rubbish(String),
    /// It is longer than any object can be.
    #[error("the answer can't be read: {0} bytes without an end")]
    TooLong(usize),
}

impl Failure {
    /// From what the client says.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => {
                let asked = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
                let retry_after = (asked > 0).then(|| Duration::from_secs(asked.into()));
                Self::status(status.code, &status.message, retry_after)
            }
            other => match Trouble::of(other) {
                Trouble::Certificate(words) => Self::Tls(words),
                Trouble::Credentials(words) => Self::Credentials(words),
                Trouble::Broken(words) => Self::Broken(words),
                Trouble::Garbage(words) => Self::Rubbish(words),
                trouble => Self::Unreachable(trouble.to_string()),
            },
        }
    }

    /// From a status code.
    pub(crate) fn status(code: u16, message: &str, retry_after: Option<Duration>) -> Self {
        if code == StatusCode::GONE.as_u16() {
            return Self::Expired;
        }
        // A proxy's error page is long and says little.
        let message = message.trim().chars().take(300).collect();
        Self::Status { code, message, retry_after }
    }

    /// How long the server asks us to stay away.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Its HTTP status.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether other credentials, another CA bundle or another address could help.
    pub(crate) fn wants_new_connection(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Credentials(_) | Self::Unreachable(_)) || self.code() == Some(401)
    }

    /// Cause and cure of a watch that fails.
    pub(crate) fn why(&self, kind: Kind, was_listed: bool) -> String {
        let resource = if kind.group().is_empty() {
            kind.plural().to_owned()
        } else {
            format!("{}.{}", kind.plural(), kind.group())
        };
        let cure = match self {
            Self::Status { code: 401, .. } => {
                "the token or certificate has expired or was revoked; it is read again at each attempt".to_owned()
            }
            Self::Status { code: 403, .. } => format!(
                "the ClusterRole of our service account must allow list and watch on {resource}; \
                 `kubectl auth can-i watch {resource} -A --as=system:serviceaccount:palisade-system:palisade-agent` tells"
            ),
            Self::Status { code: 404, .. } if kind.is_optional() => {
                "its definition has been deleted, or the server is still starting: it is asked again".to_owned()
            }
            Self::Status { code: 404, .. } => {
                format!("the server does not serve {resource}; is this the address of a Kubernetes API server?")
            }
            Self::Status { code: 429, .. } => "the server is busy, and we wait as long as it asks".to_owned(),
            Self::Status { code: 500.., .. } => "look at the API server, its etcd and its load balancer".to_owned(),
            Self::Status { .. } => "look at the API server's log".to_owned(),
            Self::Unreachable(_) | Self::Silent(_) | Self::Broken(_) => {
                "look at the way to the API server: address, routes, firewall, load balancer".to_owned()
            }
            Self::Tls(_) => "certificates and CA bundle are read again at each attempt".to_owned(),
            Self::Credentials(_) => "look at the service account's token file, or at the kubeconfig".to_owned(),
            Self::Rubbish(_) | Self::TooLong(_) | Self::Ended => {
                "something that is no API server answers at its address, or a proxy in between changes the answers"
                    .to_owned()
            }
            Self::Expired => "everything is read anew".to_owned(),
        };
        let effect = match was_listed {
            true => "what was known stays in force",
            false => "until it has been read once nothing is programmed, and the rules in the kernel stay",
        };
        format!("cannot watch {resource}: {self}; {cure}; {effect}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_cause_cure_and_effect() {
        let forbidden = Failure::status(403, "pods is forbidden", None);
        let why = forbidden.why(Kind::Pod, false);
        assert!(why.contains("403: pods is forbidden") && why.contains("ClusterRole"), "{why}");
        assert!(why.ends_with("the rules in the kernel stay"), "{why}");
        let expired = Failure::Tls("invalid peer certificate: Expired".to_owned());
        assert!(expired.why(Kind::NetworkPolicy, true).contains("Expired; certificates"));
        assert!(Failure::status(503, "<html>…", None).why(Kind::Node, true).contains("etcd"));
        assert_eq!(Failure::status(410, "too old", None), Failure::Expired);
    }
}
