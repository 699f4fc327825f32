//! What a server says of our rights, over the wire: an HTTP server in this process answers as an API server does.

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

/// Answers each request, given its method, path and body, with a status and a body.
type Answering = fn(&str, &str, &Value) -> (u16, String);

/// A server of one test, and the way to it. It ends with the process.
struct Server {
    access: Access,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(date: &'static str, answering: Answering) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, date, answering));
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

    fn ask(&self) -> Result<Rights, RightsError> {
        Rights::query_blocking(&self.access)
    }
}

/// One request, then the connection ends.
fn serve(stream: TcpStream, date: &str, answering: Answering) {
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
    let (status, text) = answering(method, path, &serde_json::from_slice(&body).unwrap_or(Value::Null));
    let answer = format!(
        "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // Who asked may have gone.
    _ = reader.into_inner().write_all(answer.as_bytes());
}

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// All but watching pods and writing leases other than the right one.
fn some_rights(method: &str, path: &str, body: &Value) -> (u16, String) {
    let answer = match (method, path) {
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
            let asked = &body["spec"]["resourceAttributes"];
            let watches_pods = asked["resource"] == "pods" && asked["verb"] == "watch";
            let status_of_policy = asked["resource"] != "clusternetworkpolicies"
                || asked["verb"] != "patch"
                || asked["subresource"] == "status";
            let lease = asked["verb"] != "update"
                || (asked["name"] == "palisade-status-writer" && asked["namespace"] == "palisade-system");
            json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
                "status": {"allowed": !watches_pods && status_of_policy && lease}})
        }
        other => panic!("{other:?} is not asked"),
    };
    (if method == "POST" { 201 } else { 200 }, answer.to_string())
}

#[test]
fn each_right_is_asked_and_each_kind_found() {
    let rights = Server::start(LONG_AGO, some_rights).ask().unwrap();
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
fn a_server_that_does_not_discover_is_asked_for_rights_all_the_same() {
    let rights = Server::start("some day", |method, path, body| match path {
        "/apis" => {
            (403, json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}).to_string())
        }
        _ => some_rights(method, path, body),
    });
    let rights = rights.ask().unwrap();
    assert_eq!((rights.served, rights.clock_ahead), (vec![], None));
    assert_eq!(rights.rights.iter().filter(|right| right.purpose == Purpose::Enforcing).count(), 8);
}

#[test]
fn what_is_no_api_server_is_an_error() {
    let garbage = Server::start(LONG_AGO, |_, _, _| (200, "<html>".to_owned())).ask().unwrap_err();
    assert!(garbage.to_string().contains("cannot decode the response"), "{garbage}");
    let refused = Server::start(LONG_AGO, |_, _, _| {
        (401, json!({"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "who?"}).to_string())
    });
    let refused = refused.ask().unwrap_err();
    assert!(refused.to_string().contains("401 Unauthorized"), "{refused}");
}
