//! Endpoints with `https`.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;

use crate::{LOGS, METRICS, agent::Agent, collector::Collector, ports, send, until};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Signs certificates.
fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The certificate of a collector at 127.0.0.1. With `clients`, clients need a certificate that is signed by it.
fn server(authority: &Authority, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

fn written(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Starts an agent that trusts an authority, and sends a packet.
fn agent(collector: &Collector, trusted: &Authority, dir: &TempDir, more: &[(&str, &str)]) -> Agent {
    let trusted = written(dir, "ca.pem", &trusted.pem());
    let variables = [&[("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted.to_str().unwrap())], more].concat();
    let agent = Agent::start(&format!("https://{}", collector.address), &variables);
    send(5432);
    agent
}

pub(crate) fn authorities() {
    let (ours, other, dir) = (authority("ours"), authority("another"), TempDir::new().unwrap());
    let collector = Collector::start(Some(server(&ours, None)));
    let trusting = agent(&collector, &ours, &dir, &[]);
    until("the record arrives", || ports(&collector) == ["5432"]);
    until("metrics arrive", || !collector.metrics(METRICS).is_empty());
    trusting.stop();

    let collector = Collector::start(Some(server(&other, None)));
    let trusting = agent(&collector, &ours, &dir, &[]);
    until("it is tried again", || collector.failed() >= 3);
    assert!(collector.received(LOGS).is_empty() && collector.received(METRICS).is_empty());
    trusting.stop();
}

pub(crate) fn client() {
    let (ours, clients, dir) = (authority("ours"), authority("clients"), TempDir::new().unwrap());
    let collector = Collector::start(Some(server(&ours, Some(&clients))));
    let without = agent(&collector, &ours, &dir, &[]);
    until("it is tried again", || collector.failed() >= 3);
    assert!(collector.received(LOGS).is_empty() && collector.received(METRICS).is_empty());
    without.stop();

    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["n1".to_owned()]).unwrap().signed_by(&key, &clients).unwrap();
    let certificate = written(&dir, "client.pem", &certificate.pem());
    let key = written(&dir, "client.key", &key.serialize_pem());
    let identity = [
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.to_str().unwrap()),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.to_str().unwrap()),
    ];
    let with = agent(&collector, &ours, &dir, &identity);
    until("the record arrives", || ports(&collector) == ["5432"]);
    with.stop();
}
