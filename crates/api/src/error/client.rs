//! Errors of the client and of responses, as errors of requests.

use std::{error::Error, sync::Arc, time::Duration};

use http::StatusCode;
use kube::{client::AuthError, config::KubeconfigError};

use super::{ApiError, ApiErrorKind};

/// The longest message of a server or a proxy that is kept, in characters.
const MAX_MESSAGE: usize = 300;

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        let kind = ApiErrorKind::Malformed(first_line(&error.to_string()));
        Self { kind, source: Some(Arc::new(error)) }
    }
}

impl From<http::Error> for ApiError {
    fn from(error: http::Error) -> Self {
        let kind = ApiErrorKind::Unreachable(format!("the request is invalid: {error}"));
        Self { kind, source: Some(Arc::new(error)) }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        let kind = match &error {
            kube::Error::Api(status) => {
                let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
                let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                return Self::status(status.code, &status.message, retry_after).caused_by(error);
            }
            kube::Error::Auth(error) => ApiErrorKind::Credentials(auth_error(error)),
            kube::Error::FromUtf8(_) => ApiErrorKind::Malformed("it is not UTF-8".to_owned()),
            other => transport_error(other),
        };
        Self::from(kind).caused_by(error)
    }
}

impl ApiError {
    /// Returns the error of a response with this status code.
    pub(crate) fn status(code: u16, message: &str, retry_after: Option<Duration>) -> Self {
        if code == StatusCode::GONE.as_u16() {
            return ApiErrorKind::Expired.into();
        }
        ApiErrorKind::Status { code, message: first_line(message), retry_after }.into()
    }

    /// Returns the error of a response that the API does not define.
    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        ApiErrorKind::Malformed(reason.into()).into()
    }

    fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// Whether other credentials, another CA bundle or another address could help.
    pub(crate) fn may_need_new_client(&self) -> bool {
        let kind = &self.kind;
        matches!(kind, ApiErrorKind::Tls(_) | ApiErrorKind::Credentials(_) | ApiErrorKind::Unreachable(_))
            || self.is_unauthorized()
    }
}

/// Returns the first line of a text, without control characters and up to [`MAX_MESSAGE`] characters. A proxy's error page is long and
/// of little use.
pub(crate) fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

/// Returns the messages of an error and of all errors below it.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut messages = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        messages.push(first_line(&error.to_string()));
        next = error.source();
    }
    messages
}

/// Classifies an error below HTTP. The client's error types are opaque, so their messages are matched.
fn transport_error(error: &kube::Error) -> ApiErrorKind {
    let messages = chain(error);
    let deepest = messages.last().cloned().unwrap_or_default();
    let contains = |text: &str| messages.iter().any(|message| message.contains(text));
    let tls = [
        "certificate",
        "CertificateError",
        "tls handshake",
        "fatal alert",
        "InvalidContentType",
        "corrupt message",
    ];
    if tls.iter().any(|text| contains(text)) {
        return ApiErrorKind::Tls(tls_error(&messages));
    }
    if contains("invalid HTTP version") {
        return ApiErrorKind::Malformed(
            "it is not HTTP; should the `server` of the kubeconfig begin with https://?".to_owned(),
        );
    }
    if contains("Connection refused") {
        return ApiErrorKind::Unreachable(
            "connection refused: no server listens at this address; is the cluster running?".to_owned(),
        );
    }
    if contains("dns error") || contains("failed to lookup") {
        return ApiErrorKind::Unreachable(format!("the server's name cannot be resolved ({deepest})"));
    }
    if contains("deadline has elapsed") || contains("timed out") {
        return ApiErrorKind::Unreachable(
            "the connection attempt timed out; is a firewall in between, or a VPN off?".to_owned(),
        );
    }
    if contains("tcp connect error") || contains("unreachable") {
        return ApiErrorKind::Unreachable(deepest);
    }
    ApiErrorKind::ConnectionLost(deepest)
}

fn tls_error(messages: &[String]) -> String {
    let contains = |text: &str| messages.iter().any(|message| message.contains(text));
    let reason = if contains("Expired") || contains("certificate expired") {
        "the server's certificate has expired, or this machine's clock is wrong: renew the certificate"
    } else if contains("NotValidYet") {
        "the server's certificate is not valid yet: is this machine's clock right?"
    } else if contains("NotValidForName") || contains("not valid for name") {
        "the server's certificate is for another name: is the `server` of the kubeconfig right?"
    } else if contains("UnknownIssuer") || contains("BadSignature") {
        "the server's certificate is not signed by the kubeconfig's `certificate-authority`: is this the right cluster?"
    } else if contains("received fatal alert") {
        "the server does not accept the kubeconfig's client certificate: has it expired?"
    } else if contains("InvalidContentType") || contains("corrupt message") || contains("handshake eof") {
        "the server does not use TLS at this address: should the `server` of the kubeconfig begin with http://?"
    } else {
        "the server's certificate is not trusted"
    };
    format!("{reason} ({})", messages.last().map_or("", String::as_str))
}

/// Returns what is wrong with a kubeconfig.
pub(crate) fn kubeconfig_error(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("cannot read {}: {error}", path.display()),
        KubeconfigError::Parse(error) => {
            let error = first_line(&error.to_string());
            format!("it is not a kubeconfig: {}", error.strip_prefix("error: ").unwrap_or(&error))
        }
        KubeconfigError::LoadClusterOfContext(cluster) => {
            format!("its context names the cluster `{cluster}`, which it does not define")
        }
        KubeconfigError::MissingClusterUrl => "its cluster has no `server`".to_owned(),
        KubeconfigError::ParseClusterUrl(error) => {
            format!("the `server` of its cluster is not a URL: {error}")
        }
        KubeconfigError::LoadCertificateAuthority(error) => format!("`certificate-authority`: {error}"),
        KubeconfigError::LoadClientCertificate(error) => format!("`client-certificate`: {error}"),
        KubeconfigError::LoadClientKey(error) => format!("`client-key`: {error}"),
        other => first_line(&other.to_string()),
    }
}

/// Returns why there are no credentials.
pub(crate) fn auth_error(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecStart(error) => format!(
            "cannot run the kubeconfig's credential plugin ({error}): install it, or log in another way"
        ),
        AuthError::AuthExecRun { cmd, out } => {
            let program = cmd.split_whitespace().next().unwrap_or(cmd).trim_matches('"');
            let stderr = String::from_utf8_lossy(&out.stderr);
            let last = stderr.lines().rfind(|l| !l.trim().is_empty());
            format!(
                "{program}, the kubeconfig's credential plugin, failed ({}){}; log in again, or run it by hand to see more",
                out.status,
                last.map(|line| format!(": {}", first_line(line))).unwrap_or_default()
            )
        }
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            "the output of the kubeconfig's credential plugin is not an ExecCredential".to_owned()
        }
        AuthError::MissingCommand => "the kubeconfig's `exec` has no command".to_owned(),
        AuthError::ReadTokenFile(error, path) => {
            format!("cannot read the token file {}: {error}", path.display())
        }
        other => chain(other).join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_server_are_one_line_without_control_characters() {
        assert_eq!(first_line("a\u{1b}[31mb\nc"), "a[31mb");
        assert_eq!(first_line(""), "");
        assert_eq!(first_line(&"x".repeat(1000)).len(), 300);
    }

    #[test]
    fn errors_are_classified_and_keep_their_source() {
        assert!(ApiError::status(410, "too old", None).is_expired());
        let forbidden = ApiError::status(403, "pods is forbidden", None);
        assert!(forbidden.is_forbidden() && !forbidden.may_need_new_client());
        assert_eq!(forbidden.to_string(), "403 Forbidden: pods is forbidden");
        assert_eq!(ApiError::status(599, "", None).to_string(), "599");
        let decoded = serde_json::from_str::<u8>("{").map_err(ApiError::from);
        assert!(decoded.unwrap_err().source().is_some_and(|source| source.is::<serde_json::Error>()));
    }

    #[test]
    fn advice_follows_the_error() {
        let timed_out = |timeout| ApiError::from(ApiErrorKind::TimedOut(timeout)).with_advice();
        assert_eq!(
            timed_out(Duration::from_secs(30)),
            "no response within 30 s; set a larger --request-timeout"
        );
        assert!(timed_out(Duration::from_millis(250)).contains("250 ms"));
        let unauthorized = ApiError::status(401, "who?", None).with_advice();
        assert_eq!(unauthorized, "401 Unauthorized: who?; log in again, or choose another context");
    }
}
