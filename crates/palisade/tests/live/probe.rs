//! `palisade test --probe`: what is sent to the API server, and what is made of what containers leave.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::{
    ask,
    server::{Reply, Request, Server, shop, status},
};

const ASSERTIONS: &str = "\
schema: palisade.test/v1
assertions:
- name: web reaches db
  from: shop/deploy/web
  to: shop/db-x-a
  ports: [8080]
  expect: allow
- name: staging does not
  from: staging/nightly-1-z
  to: shop/db-x-a
  ports: [8080]
  expect: deny
";

/// What the containers of a server's pods leave: in `shop`, and in `staging`.
type Messages = [&'static str; 2];

/// A cluster in which everything is allowed but `denied`, and whose ephemeral containers end at once.
fn cluster(messages: Messages, denied: &'static str) -> Server {
    let started: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    Server::with(shop(), move |request| answer(request, &started, messages, denied))
}

fn answer(
    request: &Request,
    started: &Mutex<Vec<(String, String)>>,
    messages: Messages,
    denied: &str,
) -> Option<Reply> {
    let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
    if request.path.ends_with("/selfsubjectaccessreviews") {
        let asked = &body["spec"]["resourceAttributes"];
        let right = format!("{} {}", asked["subresource"].as_str().unwrap_or_default(), asked["namespace"]);
        let mut review = body.clone();
        review["status"] = json!({"allowed": !(denied.len() > 1 && right.contains(denied))});
        return Some(Reply::Json(201, review));
    }
    if request.path == "/apis/apps/v1/namespaces/palisade-system/daemonsets" {
        let set = json!({"spec": {"template": {"spec": {"containers": [{"image": "registry.example/palisade:1"}]}}}});
        return Some(Reply::Json(200, json!({"items": [set]})));
    }
    let pod = request.path.strip_suffix("/ephemeralcontainers").unwrap_or(&request.path);
    let (_, name) = pod.split_once("/pods/")?;
    let mut started = started.lock().unwrap();
    let uid = format!("uid-{name}");
    if request.method == "PATCH" {
        assert_eq!(body["metadata"]["uid"], *uid, "the pod that was read: {body}");
        let container = body["spec"]["ephemeralContainers"][0]["name"].as_str().unwrap();
        started.push((name.to_owned(), container.to_owned()));
    }
    let message = messages[usize::from(pod.contains("/staging/"))];
    let of_pod = started.iter().filter(|(of, _)| of == name).map(|(_, container)| {
        json!({"name": container, "state": {"terminated": {"exitCode": 0, "message": message}}})
    });
    let statuses: Vec<Value> = of_pod.collect();
    let status = json!({"phase": "Running", "ephemeralContainerStatuses": statuses});
    Some(Reply::Json(200, json!({"metadata": {"name": name, "uid": uid}, "status": status})))
}

fn probed(server: &Server, rest: &str) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tests.yaml");
    std::fs::write(&file, ASSERTIONS).unwrap();
    ask(&server.kubeconfig(), &format!("test {} --live --probe{rest}", file.display()))
}

fn patches(server: &Server) -> Vec<Request> {
    server.requests().into_iter().filter(|request| request.method == "PATCH").collect()
}

#[test]
fn packets_that_agree_are_counted() {
    let server = cluster(["palisade-dial/1 a", "palisade-dial/1 s"], "");
    let (code, out, err) = probed(&server, "");
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.matches("packets: 1 connection tried, 0 break it").count(), 2, "{out}");
    assert!(err.contains("trying 2 connections from 2 pods (shop/web-7d9f-a"), "{err}");
    assert!(err.contains("registry.example/palisade:1"), "{err}");
    let patches = patches(&server);
    assert_eq!(patches.len(), 2, "one pod of each class: {patches:?}");
    let body: Value = serde_json::from_str(&patches[0].body).unwrap();
    let container = &body["spec"]["ephemeralContainers"][0];
    let words = json!(["/usr/local/bin/palisade", "__dial", "1", "tcp:10.0.0.3:8080"]);
    assert_eq!((&container["command"], &container["image"]), (&words, &json!("registry.example/palisade:1")));
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(
        (&security["runAsNonRoot"], &security["allowPrivilegeEscalation"]),
        (&json!(true), &json!(false))
    );
    for absent in ["targetContainerName", "volumeMounts", "envFrom", "ports", "stdin", "tty"] {
        assert!(container[absent].is_null(), "{container:#}");
    }
}

/// Silence where the engine allows, and an answer where it denies.
#[test]
fn packets_that_contradict_the_engine_fail_an_assertion() {
    let (code, out, _) = probed(&cluster(["palisade-dial/1 s", "palisade-dial/1 r"], ""), "");
    assert_eq!(code, 1, "{out}");
    assert_eq!(out.matches("packets and engine disagree").count(), 2, "{out}");
    assert!(out.contains("no answer; allowed by the engine"), "{out}");
    assert!(
        out.contains("refused by the destination, which a packet reached; denied by the engine"),
        "{out}"
    );
}

/// What containers leave is not trusted: a message of another form, or of another length, proves nothing.
#[test]
fn what_proves_nothing_is_undecided() {
    for message in [
        "palisade-dial/1 u",
        "palisade-dial/1 aa",
        "palisade-dial/1 ",
        "panic\u{1b}[31m",
        "palisade-dial/2 a",
    ] {
        let (code, out, _) = probed(&cluster([message, "palisade-dial/1 s"], ""), "");
        assert_eq!(code, 2, "{message:?}: {out}");
        assert!(out.contains("undecided  web reaches db") && out.contains("unclear: "), "{message:?}: {out}");
        assert!(!out.contains('\u{1b}'), "{out}");
    }
    let (code, out, _) =
        probed(&cluster(["palisade-dial/1 u", "palisade-dial/1 s"], ""), " --allow-incomplete");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("unclear: "), "{out}");
}

#[test]
fn without_a_right_nothing_is_started() {
    let server = cluster(["", ""], "ephemeralcontainers");
    let (code, out, err) = probed(&server, "");
    assert_eq!((code, &*out), (2, ""), "{err}");
    let rights = "nothing was started: patch pods/ephemeralcontainers in shop; patch pods/ephemeralcontainers in staging\n";
    assert!(err.contains(rights), "{err}");
    assert!(patches(&server).is_empty());
}

/// What a user may not try is said and undecided; what the user leaves out is said.
#[test]
fn a_namespace_may_be_left_out() {
    let server = cluster(["palisade-dial/1 a", ""], "ephemeralcontainers \"staging\"");
    let (code, out, _) = probed(&server, "");
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("undecided  staging does not"), "{out}");
    let why = "pod staging/nightly-1-z: you may not patch pods/ephemeralcontainers there";
    assert!(out.contains(why) && out.contains("holds      web reaches db"), "{out}");
    assert_eq!(patches(&server).len(), 1);
    let server = cluster(["palisade-dial/1 a", ""], "");
    let (code, out, _) = probed(&server, " --probe-namespace shop");
    assert_eq!(code, 2, "nothing was tried of the second: {out}");
    assert!(out.contains("packets: connections from namespaces that --probe-namespace leaves out"), "{out}");
    assert_eq!(patches(&server).len(), 1);
}

#[test]
fn without_agents_an_image_must_be_given() {
    let server = Server::with(shop(), |request| {
        let of_agents = request.path.contains("palisade-system");
        let allowed = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {}, "status": {"allowed": true}});
        let is_review = request.path.ends_with("reviews");
        is_review
            .then_some(Reply::Json(201, allowed))
            .or(of_agents.then(|| status(403, "daemonsets is forbidden")))
    });
    let (code, out, err) = probed(&server, "");
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("403 Forbidden") && err.contains("--probe-image"), "{err}");
    assert!(patches(&server).is_empty());
}

#[test]
fn manifests_are_not_probed() {
    let server = Server::of(shop());
    let (code, _, err) = probed(&server, " -f examples/shop");
    assert_eq!(code, 2);
    assert!(err.contains("--probe tries connections of the cluster as it is"), "{err}");
}
