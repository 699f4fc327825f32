//! One request to the endpoint.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use tokio::time::{Instant, timeout_at};

use crate::error_chain::with_causes;

use super::settings::{OtlpError, OtlpSettings};

/// The longest response that is read: it has a few numbers and a message.
const MAX_RESPONSE: usize = 64 << 10;
/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(90);
/// The longest pause that an endpoint may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What became of a request.
#[derive(Debug)]
pub(super) enum Sent {
    /// It was accepted; the body of the response.
    Accepted(Bytes),
    /// It may be accepted later.
    Later {
        /// Why not now.
        why: String,
        /// The pause that the endpoint asks for.
        after: Option<Duration>,
    },
    /// It will not be accepted.
    Refused(String),
}

/// Sends requests.
pub(super) struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
}

impl Sender {
    /// Prepares the connection, and opens none.
    ///
    /// # Errors
    /// If a certificate can't be read, or none is trusted.
    pub(super) fn new(settings: &OtlpSettings) -> Result<Self, OtlpError> {
        let secure = settings.logs.scheme_str() == Some("https");
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(settings, secure)?);
        let connector = connector.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { client, headers: settings.headers.clone(), timeout: settings.timeout })
    }

    /// Sends a message. The time limit is that of the response and its body together.
    pub(super) async fn send(&self, url: &Uri, message: Bytes) -> Sent {
        let until = Instant::now() + self.timeout;
        let response = match timeout_at(until, self.client.request(self.request(url, message))).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Sent::Later { why: with_causes(&error), after: None },
            Err(_) => {
                return Sent::Later { why: format!("no response within {:?}", self.timeout), after: None };
            }
        };
        let status = response.status();
        if !status.is_success() {
            return refused(status, retry_after(response.headers(), SystemTime::now()));
        }
        // It was accepted, whatever follows: sent again, it would be there twice.
        let body = timeout_at(until, Limited::new(response.into_body(), MAX_RESPONSE).collect()).await;
        Sent::Accepted(body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default())
    }

    fn request(&self, url: &Uri, message: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.extend(self.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("palisade/", env!("CARGO_PKG_VERSION"))));
        request
    }
}

/// These are the statuses after which the specification lets clients try again.
fn refused(status: StatusCode, after: Option<Duration>) -> Sent {
    let why = format!("HTTP status {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Sent::Later { why, after },
        _ => Sent::Refused(why),
    }
}

/// Returns the pause that a response asks for, in seconds or until a date (RFC 9110, section 10.2.3), bounded; zero if the date is over. `None`
/// if it asks for none, or in another way.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER).filter(|asked| !asked.is_empty())?;
    let pause = if asked.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number holds are too many.
        asked.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(asked).ok()?;
        // The endpoint's own time, if it has sent it: its clock may differ from the node's.
        let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        until.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

fn tls(settings: &OtlpSettings, secure: bool) -> Result<ClientConfig, OtlpError> {
    let error = |error: &dyn std::fmt::Display| OtlpError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    match &settings.trusted {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|e| error(&e))?).map_err(|e| error(&e))?;
            }
        }
        None if secure => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    if secure && roots.is_empty() {
        return Err(OtlpError::Tls(
            "no certificate is trusted; set OTEL_EXPORTER_OTLP_CERTIFICATE to a file with that of the endpoint's authority".to_owned(),
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|e| error(&e))?.with_root_certificates(roots);
    let Some((certificate, key)) = &settings.identity else { return Ok(builder.with_no_client_auth()) };
    let chain =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(|e| error(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| error(&e))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| error(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_statuses_are_tried_again() {
        for (status, again) in
            [(429, true), (502, true), (503, true), (504, true), (500, false), (404, false)]
        {
            let sent = refused(StatusCode::from_u16(status).unwrap(), Some(IDLE));
            assert_eq!(matches!(sent, Sent::Later { after: Some(IDLE), .. }), again, "{status}: {sent:?}");
        }
    }

    #[test]
    fn an_endpoint_may_ask_for_a_pause_of_some_minutes_at_most() {
        const MAX: Option<u64> = Some(MAX_RETRY_AFTER.as_secs());
        // 2026-03-01, 12:00:00, a Sunday.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        for (asked, date, expected) in [
            (None, None, None),
            (Some("7"), None, Some(7)),
            (Some("0"), None, Some(0)),
            (Some("18446744073709551615"), None, MAX),
            (Some("99999999999999999999999999"), None, MAX),
            (Some("Sun, 01 Mar 2026 12:00:09 GMT"), None, Some(9)),
            (Some("Sunday, 01-Mar-26 12:00:09 GMT"), None, Some(9)),
            (Some("Sun Mar  1 12:00:09 2026"), None, Some(9)),
            (Some("Sun, 01 Mar 2026 11:59:00 GMT"), None, Some(0)),
            (Some("Fri, 31 Dec 9999 23:59:59 GMT"), None, MAX),
            // The endpoint's clock is an hour fast, or slow.
            (Some("Sun, 01 Mar 2026 13:00:09 GMT"), Some("Sun, 01 Mar 2026 13:00:00 GMT"), Some(9)),
            (Some("Sun, 01 Mar 2026 11:00:09 GMT"), Some("Sun, 01 Mar 2026 11:00:00 GMT"), Some(9)),
            (Some("Sun, 01 Mar 2026 12:00:09 GMT"), Some("yesterday"), Some(9)),
            (Some(""), None, None),
            (Some("-1"), None, None),
            (Some("+5"), None, None),
            (Some("1.5"), None, None),
            (Some("soon"), None, None),
            (Some("Mon, 32 Mar 2026 12:00:09 GMT"), None, None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(RETRY_AFTER, asked), (DATE, date)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let pause = retry_after(&headers, now).map(|pause| pause.as_secs());
            assert_eq!(pause, expected, "{asked:?} at {date:?}");
        }
    }
}
