//! Queries of rights, over the network: an HTTP server in this process responds as an API server does.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use palisade_api::{
    Access, ResourceKind, Rights,
    rights::{Purpose, RightsError},
};
use serde_json::{Value, json};

/// Returns status and body of the response to a request, given its method, path and body.
type Handler = fn(&str, &str, &Value) -> (u16, String);

/// The server of one test, and a kubeconfig for it. It runs until the process ends.
struct Server {
    access: Access,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(date: &'static str, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, date, handler));
            }
        });
        let dir = tempfile::TempDir::new().unwrap();
        let kubeconfig = dir.path().join("config");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let timeout = Some(Duration::from_secs(20));
        Self { access: Access { kubeconfig: Some(kubeconfig), context: None, timeout }, _dir: dir }
    }

    fn query(&self) -> Result<Rights, RightsError> {
        Rights::query_blocking(&self.access)
    }
}

/// Handles one request and closes the connection.
fn serve(stream: TcpStream, date: &str, handler: Handler) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, path, ..] = words[..] else { return };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", n)) => length = n.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (status, text) = handler(method, path, &serde_json::from_slice(&body).unwrap_or(Value::Null));
    let response = format!(
        "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // The client may have closed the connection.
    _ = reader.into_inner().write_all(response.as_bytes());
}

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Allows everything except watching pods and writing other leases than ours.
fn some_rights(method: &str, path: &str, body: &Value) -> (u16, String) {
    let body = match (method, path) {
        ("GET", "/version") => json!({"major": "1", "minor": "33", "gitVersion": "v1.33.1"}),
        ("GET", "/apis") => json!({"groups": [
            {"name": "apps", "versions": [{"version": "v1"}]},
            {"name": "policy.networking.k8s.io", "versions": [{"version": "v1alpha2"}, {"version": "v1alpha1"}]},
        ]}),
        ("GET", "/apis/policy.networking.k8s.io/v1alpha2") => {
            json!({"resources": [{"name": "clusternetworkpolicies"}, {"name": "clusternetworkpolicies/status"}]})
        }
        ("GET", "/apis/policy.networking.k8s.io/v1alpha1") => {
            json!({"resources": [{"name": "adminnetworkpolicies"}]})
        }
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews?") => {
            let attributes = &body["spec"]["resourceAttributes"];
            let watches_pods = attributes["resource"] == "pods" && attributes["verb"] == "watch";
            let status_of_policy = attributes["resource"] != "clusternetworkpolicies"
                || attributes["verb"] != "patch"
                || attributes["subresource"] == "status";
            let lease = attributes["verb"] != "update"
                || (attributes["name"] == "palisade-status-writer"
                    && attributes["namespace"] == "palisade-system");
            json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
                "status": {"allowed": !watches_pods && status_of_policy && lease}})
        }
        other => panic!("unexpected request {other:?}"),
    };
    (if method == "POST" { 201 } else { 200 }, body.to_string())
}

#[test]
fn every_right_is_reviewed_and_every_kind_is_found() {
    let rights = Server::start(LONG_AGO, some_rights).query().unwrap();
    assert_eq!(rights.version, "v1.33.1");
    assert!(rights.clock_ahead.unwrap() > 30 * 365 * 86_400);
    assert_eq!(
        rights.served,
        [
            (ResourceKind::ClusterNetworkPolicy, vec!["v1alpha2".to_owned()]),
            (ResourceKind::AdminNetworkPolicy, vec!["v1alpha1".to_owned()]),
        ]
    );
    let missing: Vec<String> =
        rights.rights.iter().filter(|right| !right.allowed).map(ToString::to_string).collect();
    assert_eq!(missing, ["watch pods"]);
    let of = |purpose| rights.rights.iter().filter(|right| right.purpose == purpose).count();
    // Six kinds to list and watch; Events, one status, three verbs of a Lease.
    assert_eq!((of(Purpose::Enforcing), of(Purpose::Reporting)), (12, 5));
}

#[test]
fn rights_are_reviewed_without_the_right_to_discover() {
    let rights = Server::start("some day", |method, path, body| match path {
        "/apis" => {
            (403, json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}).to_string())
        }
        _ => some_rights(method, path, body),
    });
    let rights = rights.query().unwrap();
    assert_eq!((rights.served, rights.clock_ahead), (vec![], None));
    assert_eq!(rights.rights.iter().filter(|right| right.purpose == Purpose::Enforcing).count(), 8);
}

#[test]
fn something_other_than_an_api_server_is_an_error() {
    let malformed = Server::start(LONG_AGO, |_, _, _| (200, "<html>".to_owned())).query().unwrap_err();
    assert!(malformed.to_string().contains("cannot decode the response"), "{malformed}");
    let unauthorized = Server::start(LONG_AGO, |_, _, _| {
        (401, json!({"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "who?"}).to_string())
    });
    let unauthorized = unauthorized.query().unwrap_err();
    assert!(unauthorized.to_string().contains("401 Unauthorized"), "{unauthorized}");
}
