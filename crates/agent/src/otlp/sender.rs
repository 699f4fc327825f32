//! One request to the endpoint.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
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
const MAX_RETRY_AFTER: u64 = 300;

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
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if !status.is_success() {
            return refused(status, asked);
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
fn refused(status: StatusCode, asked: Option<u64>) -> Sent {
    let why = format!("HTTP status {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            let after = asked.map(|seconds| Duration::from_secs(seconds.min(MAX_RETRY_AFTER)));
            Sent::Later { why, after }
        }
        _ => Sent::Refused(why),
    }
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
    fn an_endpoint_may_ask_for_a_pause_of_some_minutes_at_most() {
        for (status, asked, expected) in [
            (429, None, Some(None)),
            (429, Some(7), Some(Some(7))),
            (503, Some(u64::MAX), Some(Some(MAX_RETRY_AFTER))),
            (500, Some(7), None),
            (404, None, None),
        ] {
            let later = match refused(StatusCode::from_u16(status).unwrap(), asked) {
                Sent::Later { after, .. } => Some(after.map(|pause| pause.as_secs())),
                Sent::Refused(_) | Sent::Accepted(_) => None,
            };
            assert_eq!(later, expected, "{status} with {asked:?}");
        }
    }
}
