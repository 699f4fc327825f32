//! Clusters that deny requests, fail, time out or reply with invalid data cause an error or a warning, never a wrong answer.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ask, asking,
    server::{Reply, Request, Server, forbidden, lines, other, policy, shop, status},
    support::{answer, refused, run},
};

fn is_list(request: &Request, plural: &str) -> bool {
    request.path.ends_with(&format!("/{plural}"))
}

#[test]
fn a_kind_that_is_refused_makes_the_answer_none() {
    let mut objects = shop();
    objects.push(other("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "a", json!({"spec": {}})));
    let server = Server::with(objects, |request| {
        is_list(request, "adminnetworkpolicies").then(|| forbidden("adminnetworkpolicies"))
    });
    let kubeconfig = server.kubeconfig();
    for words in ["can web db:8080", "connections", "describe db", "explain web db:8080"] {
        let (code, out, err) = ask(&kubeconfig, words);
        assert_eq!(code, 2, "{words}: {out}{err}");
        assert!(!out.is_empty(), "{words} answers all the same");
        assert!(
            err.contains(
                "incomplete: adminnetworkpolicies could not be read: connections shown as allowed may be denied by one"
            ),
            "{words}: {err}"
        );
        assert!(err.contains("User \"jane\" cannot list resource"), "{words}: {err}");
        let (code, ..) = ask(&kubeconfig, &format!("{words} --allow-incomplete"));
        assert_eq!(code, 0, "{words}");
        let (code, out, _) = ask(&kubeconfig, &format!("{words} -o json"));
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, 2);
        assert_eq!(json["incomplete"][0]["kind"], "AdminNetworkPolicy", "{words}");
        assert_eq!(json["incomplete"][0]["resource"], "adminnetworkpolicies");
        assert_eq!(json["incomplete"][0]["only_in"], json!([]));
    }
    let (code, out, err) = ask(&kubeconfig, "can web db:8080 -q");
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("incomplete:"), "{err}");
}

/// Kinds that an answer does not depend on do not make it incomplete.
#[test]
fn kinds_that_an_answer_does_not_need() {
    let server = Server::with(shop(), |request| {
        (is_list(request, "ingresses") || is_list(request, "replicasets")).then(|| forbidden("it"))
    });
    let kubeconfig = server.kubeconfig();
    let (code, out, err) = ask(&kubeconfig, "can web db-x:8080");
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("note: replicasets could not be read"), "{err}");
    assert!(!err.contains("ingresses"), "{err}");
    let (code, _, err) = ask(&kubeconfig, "connections");
    assert_eq!(code, 2);
    assert!(err.contains("incomplete: ingresses could not be read"), "{err}");
}

/// Without permission to list all namespaces, the user's namespace is read, and the rest is reported as unknown.
#[test]
fn a_user_of_one_namespace() {
    let alone = |request: &Request| {
        let own = request.path.contains("/namespaces/shop");
        (request.path != "/apis" && !own).then(|| forbidden(request.path.rsplit('/').next().unwrap()))
    };
    let server = Server::with(shop(), alone);
    let kubeconfig = server.kubeconfig();
    let (code, out, err) = ask(&kubeconfig, "can web db:8080 -o json");
    assert_eq!(code, 2, "{out}{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["verdict"], "undecided");
    let pods = json["incomplete"].as_array().unwrap().iter().find(|m| m["kind"] == "Pod").unwrap();
    assert_eq!(pods["only_in"], json!(["shop"]));
    assert!(err.contains("pods could not be read except in shop"), "{err}");
    assert!(err.contains("nodes could not be read:"), "{err}");
    assert_eq!(ask(&kubeconfig, "can web db:8080 --allow-incomplete").0, 0);
    // The namespace given by the user is read.
    let (code, out, err) = ask(&kubeconfig, "can nightly shop/db:8080 -n staging");
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("nothing could be read") && err.contains("incomplete: pods"), "{err}");
}

/// A user who may list each namespace, but not all at once, gets a complete answer.
#[test]
fn a_user_of_every_namespace_misses_nothing() {
    let server = Server::with(shop(), |request| {
        let everywhere = ["pods", "services", "networkpolicies", "replicasets", "jobs", "ingresses"];
        let plural = request.path.rsplit('/').next().unwrap();
        (everywhere.contains(&plural) && !request.path.contains("/namespaces/")).then(|| forbidden(plural))
    });
    let (code, out, err) = ask(&server.kubeconfig(), "connections -o json");
    assert_eq!((code, &*err), (0, ""));
    let whole = Server::of(shop());
    assert_eq!(ask(&whole.kubeconfig(), "connections -o json").1, out);
}

#[test]
fn an_expired_page_begins_the_list_anew() {
    let many = || {
        let mut objects = shop();
        objects.extend((0..700).map(|n| {
            policy(&format!("shop/p{n}"), json!({"podSelector": {"matchLabels": {"app": "none"}}}))
        }));
        objects
    };
    let times = AtomicUsize::new(0);
    let server = Server::with(many(), move |request| {
        let second = is_list(request, "networkpolicies") && request.query.contains_key("continue");
        (second && times.fetch_add(1, Ordering::SeqCst) == 0).then(|| status(410, "too old resource version"))
    });
    let (code, _, err) = ask(&server.kubeconfig(), "can web db:8080");
    assert_eq!((code, &*err), (0, ""), "{}", lines(&server.requests()));
    // If pages expire at once, the whole list is requested.
    let server = Server::with(many(), |request| {
        let second = is_list(request, "networkpolicies") && request.query.contains_key("continue");
        second.then(|| status(410, "too old resource version"))
    });
    let (code, _, err) = ask(&server.kubeconfig(), "can web db:8080");
    let log = lines(&server.requests());
    assert_eq!((code, &*err), (0, ""), "{log}");
    assert!(log.contains("networkpolicies {}"), "{log}");
}

#[test]
fn a_kind_that_fails_is_missing() {
    for (reply, says) in [
        (0, "cannot decode the response"),
        (1, "the connection was lost"),
        (2, "no response within 400 ms; set a larger --request-timeout"),
        (3, "500 Internal Server Error: etcd is on fire"),
        (4, "expected a list, received a `Pod`"),
        (5, "the list does not end"),
        (6, "a NetworkPolicy without name or namespace"),
        (7, "cannot decode the response"),
    ] {
        let server = Server::with(shop(), move |request| {
            is_list(request, "networkpolicies").then(|| match reply {
                0 => Reply::Text(200, "<html>sign in</html>".to_owned()),
                1 => Reply::Cut,
                2 => Reply::Silence,
                3 => status(500, "etcd is on fire"),
                4 => Reply::Json(200, json!({"kind": "Pod"})),
                5 => {
                    Reply::Json(200, json!({"kind": "XList", "items": [], "metadata": {"continue": "again"}}))
                }
                6 => Reply::Json(200, json!({"kind": "XList", "items": [{"spec": {}}]})),
                _ => Reply::Text(200, String::new()),
            })
        });
        let began = Instant::now();
        let (code, out, err) = ask(&server.kubeconfig(), "can web db:8080 --request-timeout 400ms");
        assert_eq!(code, 2, "{says}: {out}{err}");
        assert!(
            err.contains("incomplete: networkpolicies could not be read") && err.contains(says),
            "{says}: {err}"
        );
        assert!(began.elapsed() < Duration::from_secs(60), "{says}");
    }
}

/// A request is retried after a broken connection.
#[test]
fn a_connection_that_breaks_is_tried_again() {
    let times = AtomicUsize::new(0);
    let server = Server::with(shop(), move |request| {
        (is_list(request, "pods") && times.fetch_add(1, Ordering::SeqCst) == 0).then_some(Reply::Cut)
    });
    let (code, _, err) = ask(&server.kubeconfig(), "can web db:8080");
    assert_eq!((code, &*err), (0, ""));
}

#[test]
fn a_server_that_cannot_be_asked_is_an_error() {
    let refused = |server: &Server, kubeconfig: &std::path::Path, says: &str| {
        let (code, out, err) = ask(kubeconfig, "can web db:8080 --request-timeout 400ms");
        assert_eq!((code, &*out), (2, ""), "{says}: {err}");
        assert!(err.contains(says), "{says}: {err}");
        assert!(err.starts_with("error: cannot query the API server"), "{err}");
        drop(server.requests());
    };
    let silent = Server::with(shop(), |_| Some(Reply::Silence));
    refused(&silent, &silent.kubeconfig(), "no response within 400 ms");
    let unauthorized = Server::with(shop(), |_| Some(status(401, "Unauthorized")));
    refused(&unauthorized, &unauthorized.kubeconfig(), "401 Unauthorized: Unauthorized; log in again");
    let html = Server::with(shop(), |_| Some(Reply::Text(200, "<html>".to_owned())));
    refused(&html, &html.kubeconfig(), "is this the address of a Kubernetes API server?");
    let unreachable = Server::of(Vec::new());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kubeconfig = unreachable.kubeconfig_with(&format!("http://{free}"), "token: t", "");
    refused(
        &unreachable,
        &kubeconfig,
        "connection refused: no server listens at this address; is the cluster running?",
    );
    let kubeconfig = unreachable.kubeconfig_with("http://nowhere.invalid:6443", "token: t", "");
    refused(&unreachable, &kubeconfig, "cannot connect:");
    // TLS to a server without TLS.
    let kubeconfig =
        unreachable.kubeconfig_with(&format!("https://{}", unreachable.address()), "token: t", "");
    refused(&unreachable, &kubeconfig, "cannot query the API server");
}

/// If discovery is denied, each kind is requested, and missing ones are skipped.
#[test]
fn discovery_may_be_refused() {
    let server = Server::with(shop(), |request| (request.path == "/apis").then(|| forbidden("discovery")));
    let (code, _, err) = ask(&server.kubeconfig(), "can web db:8080");
    assert_eq!((code, &*err), (0, ""), "{}", lines(&server.requests()));
}

#[test]
fn kubeconfigs_that_do_not_work() {
    let server = Server::of(shop());
    let kubeconfig = server.kubeconfig();
    let refused = |kubeconfig: &std::path::Path, words: &str, says: &[&str]| {
        let (code, out, err) = ask(kubeconfig, words);
        assert_eq!((code, &*out), (2, ""), "{err}");
        for part in says {
            assert!(err.contains(part), "{part}: {err}");
        }
    };
    refused(
        &kubeconfig,
        "can web db --context prod",
        &["has no context `prod`; choose one with --context: test, elsewhere"],
    );
    refused(
        "/nonexistent/kubeconfig".as_ref(),
        "can web db",
        &[
            "no cluster: there is no kubeconfig and no service account: /nonexistent/kubeconfig does not exist",
            "-f PATH",
        ],
    );
    refused(
        "/dev/null".as_ref(),
        "can web db --kubeconfig /nonexistent/k",
        &["cannot use the kubeconfig /nonexistent/k: ", "No such file or directory"],
    );
    let write = |text: &str| std::fs::write(&kubeconfig, text).unwrap();
    write("{{{");
    let named = format!("cannot use the kubeconfig {}: it is not a kubeconfig: line 1", kubeconfig.display());
    refused(&kubeconfig, "can web db", &[&named]);
    write("apiVersion: v1\nkind: Config\n");
    refused(&kubeconfig, "can web db", &["has no current context; it has no contexts"]);
    write(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: gone, user: u}}]\n",
    );
    refused(&kubeconfig, "can web db", &["its context names the cluster `gone`, which it does not define"]);
    write(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1', \
           certificate-authority: /nonexistent/ca}}]\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n",
    );
    refused(&kubeconfig, "can web db", &["certificate-authority", "/nonexistent/ca"]);
}

#[test]
fn a_program_for_credentials_that_fails() {
    let server = Server::of(shop());
    let of = |command: &str| {
        let user = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: {command}, interactiveMode: Never}}"
        );
        server.kubeconfig_with(&format!("http://{}", server.address()), &user, "")
    };
    for (command, says) in [
        ("/nonexistent/login", "cannot run the kubeconfig's credential plugin"),
        (
            "sh, args: [-c, 'echo session expired >&2; exit 3']",
            "failed (exit status: 3): session expired; log in again",
        ),
        ("sh, args: [-c, 'echo hello']", "ExecCredential"),
    ] {
        let (code, out, err) = ask(&of(command), "can web db:8080");
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert!(
            err.contains("cannot get the credentials for http://") && err.contains(says),
            "{says}: {err}"
        );
    }
    let good = r#"sh, args: [-c, 'echo "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"x\"}}"']"#;
    assert_eq!(ask(&of(good), "can web db:8080").0, 0);
    assert_eq!(server.requests().last().unwrap().headers["authorization"], "Bearer x");
}

/// An invalid object is an error, unless the user skips it.
#[test]
fn a_malformed_object_is_no_silent_gap() {
    let mut objects = shop();
    objects.push(policy("shop/bad", json!({"podSelector": 7})));
    let server = Server::of(objects);
    let kubeconfig = server.kubeconfig();
    let (code, out, err) = ask(&kubeconfig, "can web db:8080");
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("NetworkPolicy shop/bad: spec.podSelector"), "{err}");
    // It isolates its namespace.
    let (code, out, err) = ask(&kubeconfig, "can db web:8080 --keep-going");
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.starts_with("denied") && err.contains("NetworkPolicy shop/bad"), "{out}{err}");
    assert_eq!(ask(&kubeconfig, "can db web:8080 --keep-going --allow-incomplete").0, 1);
}

/// Without a cluster, files are read; without both, the error names both options.
#[test]
fn neither_files_nor_a_cluster() {
    answer(0, "can shop/frontend shop/backend:8080 -f examples/shop");
    refused("connections", "no cluster: there is no kubeconfig");
    refused("diff --live examples/shop", "no cluster: there is no kubeconfig");
    refused("can a b", "or use -f PATH to read manifests");
}

#[test]
fn progress_is_for_terminals() {
    let server = Server::with(shop(), |request| {
        if is_list(request, "pods") {
            std::thread::sleep(Duration::from_millis(2600));
        }
        None
    });
    let (code, _, err) = run(&mut asking(&server.kubeconfig(), "can web db:8080"));
    assert_eq!((code, &*err), (0, ""));
}
