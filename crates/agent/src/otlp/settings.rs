//! Where to send, and how: the setting `otlp-endpoint`, and the environment variables of the OpenTelemetry specification.

use std::{fs, io, path::Path, time::Duration};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no URL.
    #[error("otlp-endpoint `{0}` is not a URL such as http://collector:4318 or https://collector:4318")]
    Endpoint(String),
    /// A variable can't be read.
    #[error("{variable}: {why}")]
    Variable {
        /// The environment variable.
        variable: &'static str,
        /// What is wrong with it. Values may be secret, and are not repeated.
        why: String,
    },
    /// TLS can't be set up.
    #[error("TLS for otlp-endpoint: {0}")]
    Tls(String),
    /// No thread or runtime.
    #[error("can't start the OTLP exporter")]
    Start(#[source] io::Error),
}

const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The defaults of the specification.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// Shorter intervals would load the node, and longer ones never end.
const INTERVALS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
/// The largest file with certificates or a key.
const MAX_FILE: u64 = 1 << 20;

/// Where to send, and how.
pub(crate) struct OtlpSettings {
    /// The URL of logs.
    pub(crate) logs: Uri,
    /// The URL of metrics.
    pub(crate) metrics: Uri,
    /// Headers of each request. They may be secret.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The time limit of a request.
    pub(crate) timeout: Duration,
    /// How often metrics are sent.
    pub(crate) interval: Duration,
    /// PEM with the certificates that are trusted. `None`: those of the system.
    pub(crate) trusted: Option<Vec<u8>>,
    /// PEM with the certificate and the key of the client.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Attributes of the resource.
    pub(crate) resource: Vec<(String, String)>,
}

impl OtlpSettings {
    /// Reads the settings; `var` returns the value of an environment variable.
    ///
    /// # Errors
    /// If a value or a file can't be read.
    pub(crate) fn new(endpoint: &str, var: impl Fn(&str) -> Option<String>) -> Result<Self, OtlpError> {
        let set = |name| var(name).filter(|value| !value.is_empty());
        let milliseconds = |variable, default: Duration| match set(variable) {
            None => Ok(default),
            Some(text) => match text.trim().parse() {
                Ok(number) if INTERVALS.contains(&number) => Ok(Duration::from_millis(number)),
                _ => Err(wrong(variable, "must be a number of milliseconds from 100 to 86400000")),
            },
        };
        let file = |variable| set(variable).map(|path| read(variable, Path::new(&path))).transpose();
        let headers = set(HEADERS).map(|text| headers(&text)).transpose()?.unwrap_or_default();
        let identity = match (file(CLIENT_CERTIFICATE)?, file(CLIENT_KEY)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong(CLIENT_KEY, "must be set too")),
            (None, Some(_)) => return Err(wrong(CLIENT_CERTIFICATE, "must be set too")),
        };
        Ok(Self {
            logs: url(endpoint, "v1/logs")?,
            metrics: url(endpoint, "v1/metrics")?,
            headers,
            timeout: milliseconds(TIMEOUT, DEFAULT_TIMEOUT)?,
            interval: milliseconds(INTERVAL, DEFAULT_INTERVAL)?,
            trusted: file(CERTIFICATE)?,
            identity,
            resource: set(RESOURCE).map(|text| pairs(RESOURCE, &text)).transpose()?.unwrap_or_default(),
        })
    }
}

fn wrong(variable: &'static str, why: impl Into<String>) -> OtlpError {
    OtlpError::Variable { variable, why: why.into() }
}

/// Returns the URL of a signal.
fn url(endpoint: &str, path: &str) -> Result<Uri, OtlpError> {
    let error = || OtlpError::Endpoint(endpoint.to_owned());
    let base = endpoint.trim_end_matches('/');
    let url: Uri = format!("{base}/{path}").parse().map_err(|_| error())?;
    let known = matches!(url.scheme_str(), Some("http" | "https"));
    // A user and a password in the URL would be in the process list; headers are for them.
    let host = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if known && host && url.query().is_none() { Ok(url) } else { Err(error()) }
}

fn read(variable: &'static str, path: &Path) -> Result<Vec<u8>, OtlpError> {
    let size = fs::metadata(path).map_err(|error| wrong(variable, format!("{}: {error}", path.display())))?;
    if !size.is_file() || size.len() > MAX_FILE {
        return Err(wrong(variable, format!("{}: not a file of at most 1 MiB", path.display())));
    }
    fs::read(path).map_err(|error| wrong(variable, format!("{}: {error}", path.display())))
}

/// Reads `name=value,name=value`, whose values are percent-encoded.
fn pairs(variable: &'static str, text: &str) -> Result<Vec<(String, String)>, OtlpError> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| pair(part).ok_or_else(|| wrong(variable, "must be NAME=VALUE,NAME=VALUE"))).collect()
}

fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, OtlpError> {
    let header = |(name, value): (String, String)| {
        let name =
            HeaderName::try_from(&*name).map_err(|_| wrong(HEADERS, "has a name that no header can have"))?;
        let mut value = HeaderValue::try_from(&*value)
            .map_err(|_| wrong(HEADERS, format!("the value of {name} is no header value")))?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    pairs(HEADERS, text)?.into_iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: &str, vars: &[(&str, &str)]) -> Result<OtlpSettings, String> {
        let var =
            |name: &str| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        OtlpSettings::new(endpoint, var).map_err(|error| error.to_string())
    }

    #[test]
    fn endpoints_are_base_urls() {
        let settings = with("http://collector:4318/x/", &[]).unwrap();
        assert_eq!(settings.logs, "http://collector:4318/x/v1/logs");
        assert_eq!(settings.metrics, "http://collector:4318/x/v1/metrics");
        assert_eq!((settings.timeout, settings.interval), (DEFAULT_TIMEOUT, DEFAULT_INTERVAL));
        for bad in
            ["", "collector:4318", "grpc://c:4317", "http://", "http://u:p@c", "http://c/?a=b", "http://c d"]
        {
            assert!(with(bad, &[]).is_err_and(|error| error.contains("is not a URL")), "{bad}");
        }
    }

    #[test]
    fn variables_are_read_and_secrets_are_not_repeated() {
        let settings = with(
            "http://c",
            &[(HEADERS, "authorization=Bearer%20x, a=b"), (TIMEOUT, "200"), (RESOURCE, "k8s.cluster.name=c")],
        )
        .unwrap();
        let headers: Vec<_> =
            settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(headers, [("authorization", &b"Bearer x"[..]), ("a", b"b")]);
        assert_eq!(settings.timeout, Duration::from_millis(200));
        assert_eq!(settings.resource, [("k8s.cluster.name".to_owned(), "c".to_owned())]);
        for (name, value) in [
            (HEADERS, "secret"),
            (HEADERS, "a b=secret"),
            (HEADERS, "a=secret%0a"),
            (TIMEOUT, "secret"),
            (INTERVAL, "0"),
            (CERTIFICATE, "/nonexistent"),
            (CERTIFICATE, "/dev/zero"),
            (CLIENT_KEY, "/dev/null"),
            (RESOURCE, "=x"),
        ] {
            let error = with("http://c", &[(name, value)]).err().unwrap();
            assert!(error.starts_with(name) && !error.contains("secret"), "{name}={value}: {error}");
        }
    }
}
