//! Servers with invalid certificates.

use std::{net::TcpStream, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use crate::{
    ask,
    server::{Server, Stream, shop},
};

/// Signs certificates.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Serves the shop under a certificate for `name` until the year `until`. With `client`, it requires client
/// certificates that are signed by it.
fn serve(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    until: i32,
    client: Option<&CertifiedIssuer<'static, KeyPair>>,
) -> Server {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap());
    let wrap = move |stream: TcpStream| -> Option<Box<dyn Stream>> {
        let connection = ServerConnection::new(config.clone()).ok()?;
        Some(Box::new(StreamOwned::new(connection, stream)))
    };
    Server::wrapped(shop(), Box::new(|_| None), Box::new(wrap))
}

/// A kubeconfig that trusts this authority.
fn trusting(
    server: &Server,
    dir: &Path,
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> std::path::PathBuf {
    let path = dir.join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let ca = format!("    certificate-authority: {}\n", path.display());
    server.kubeconfig_with(&format!("https://{}", server.address()), "token: t", &ca)
}

#[test]
fn a_server_that_is_trusted_answers_and_others_are_told_apart() {
    let (good, other) = (authority("ours"), authority("another"));
    let dir = tempfile::TempDir::new().unwrap();
    let server = serve(&good, "127.0.0.1", 2099, None);
    let (code, _, err) = ask(&trusting(&server, dir.path(), &good), "can web db:8080");
    assert_eq!((code, &*err), (0, ""));
    for (server, says) in [
        (serve(&other, "127.0.0.1", 2099, None), "is this the right cluster?"),
        (serve(&good, "127.0.0.1", 2020, None), "the server's certificate has expired"),
        (serve(&good, "elsewhere.example", 2099, None), "the server's certificate is for another name"),
        (
            serve(&good, "127.0.0.1", 2099, Some(&other)),
            "the server does not accept the kubeconfig's client certificate",
        ),
    ] {
        let (code, out, err) = ask(&trusting(&server, dir.path(), &good), "can web db:8080");
        assert_eq!((code, &*out), (2, ""), "{says}: {err}");
        assert!(
            err.contains("cannot query the API server https://127.0.0.1:") && err.contains(says),
            "{says}: {err}"
        );
    }
}

/// TLS to a server without TLS, and the reverse.
#[test]
fn the_wrong_scheme_is_told() {
    let plain = Server::of(shop());
    let kubeconfig = plain.kubeconfig_with(&format!("https://{}", plain.address()), "token: t", "");
    let (code, _, err) = ask(&kubeconfig, "can web db:8080");
    assert_eq!(code, 2);
    assert!(err.contains("should the `server` of the kubeconfig begin with http://?"), "{err}");

    let tls = serve(&authority("ours"), "127.0.0.1", 2099, None);
    let (code, _, err) =
        ask(&tls.kubeconfig_with(&format!("http://{}", tls.address()), "token: t", ""), "can web db:8080");
    assert_eq!(code, 2);
    assert!(err.contains("should the `server` of the kubeconfig begin with https://?"), "{err}");
}
