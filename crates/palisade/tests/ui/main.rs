//! `palisade ui` as browsers and others meet it. What a browser does with the pages, `.ci/steps/ui` checks.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod client;
mod flood;
mod flows;
#[path = "../support/mod.rs"]
mod support;
mod trial;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use client::Server;
use support::{palisade, run};

/// The pages answer what the command line prints.
#[test]
fn answers_are_those_of_the_verbs() {
    let input = "-f examples/shop";
    let server = Server::start(&["-f", "examples/shop"]);
    let questions = [
        ("report", "report -o json"),
        ("overview", "overview -o json"),
        (
            "explain?from=staging%2Ffrontend&to=shop%2Fbackend%3A8080",
            "explain staging/frontend shop/backend:8080 -o json",
        ),
        (
            "explain?from=shop%2Ffrontend&to=shop%2Fbackend%3A8080&to-deny=true",
            "explain shop/frontend shop/backend:8080 --to-deny -o json",
        ),
        ("describe?what=shop%2Fnetpol%2Fbackend-egress", "describe shop/netpol/backend-egress -o json"),
        ("describe?what=shop%2Fbackend&format=svg", "describe shop/backend -o svg"),
        ("describe?what=ns%2Fshop&format=json", "describe ns/shop -o json"),
    ];
    for (path, verb) in questions {
        let answer = server.get(&format!("/api/v1/{path}"));
        let (_, printed, err) = run(&mut palisade(&format!("{verb} {input}")));
        assert!(!printed.is_empty(), "{verb}: {err}");
        assert_eq!((answer.status, answer.body), (200, printed), "{path}");
    }
    let source = server.get("/api/v1/source?file=examples%2Fshop%2Fbackend-egress.yaml").json();
    let text = fs::read_to_string(support::root().join("examples/shop/backend-egress.yaml")).unwrap();
    assert_eq!(source["text"], text);
}

#[test]
fn questions_that_can_not_be_answered_have_a_reason() {
    let server = Server::start(&["-f", "examples/shop"]);
    for (path, status, reason) in [
        ("explain?from=a&to=shop%2Fbackend", 422, "no pod or workload `a`"),
        ("explain?from=pod%3Aapp%3Da&to=shop%2Fbackend", 422, "that don't exist"),
        ("explain?to=shop%2Fbackend", 400, "`from` is missing"),
        ("explain?from=a&from=b&to=c", 400, "given twice"),
        ("explain?from=a&to=b&to-deny=1", 400, "neither `true` nor `false`"),
        ("describe?what=shop%2Fnetpol%2Fx", 422, "no NetworkPolicy shop/x"),
        ("describe?what=shop%2Fbackend&format=html", 400, "format"),
        ("report?x=1", 400, "unknown parameter `x`"),
        ("state?after=x", 400, "no number"),
        ("nothing", 404, "no such question"),
        // Only what was read is given out.
        ("source?file=%2Fetc%2Fpasswd", 422, "no such file was read"),
        ("source?file=examples%2Fshop%2F..%2Fshop%2Fbackend-egress.yaml", 422, "no such file was read"),
        ("source?file=", 422, "no such file was read"),
    ] {
        let answer = server.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_eq!(answer.json()["schema"], "palisade.ui.error/v1");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(reason), "{path}: {error}");
    }
}

#[test]
fn other_hosts_origins_tokens_and_methods_are_refused() {
    let server = Server::start(&["-f", "examples/shop"]);
    let host = server.address.to_string();
    let localhost = format!("localhost:{}", server.address.port());
    let (own, bearer) = (format!("http://{host}"), server.bearer());
    let path = "/api/v1/report";
    let get = |headers: &[(&str, &str)]| server.request("GET", path, headers).status;
    let with = |more: &[(&str, &str)]| {
        let usual = [("Host", &*host), ("Authorization", &*bearer)];
        get(&usual.iter().chain(more).copied().collect::<Vec<_>>())
    };
    assert_eq!(with(&[]), 200);
    assert_eq!(with(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]), 200);
    assert_eq!(get(&[("Host", &localhost), ("Authorization", &bearer)]), 200);
    // Hosts: a name that is made to resolve to this machine.
    for other in ["evil.example", "127.0.0.1", "localhost:1", "[::1]:80"] {
        assert_eq!(get(&[("Host", other), ("Authorization", &bearer)]), 421, "{other}");
        assert_eq!(server.request("GET", "/", &[("Host", other)]).status, 421, "{other}");
    }
    assert_eq!(get(&[("Authorization", &bearer)]), 421);
    // A target that names a server, as those to a proxy do.
    for (server_name, status) in [(&*host, 200), ("evil.example", 421)] {
        let target = format!("http://{server_name}{path}");
        let answer = server.request("GET", &target, &[("Host", &host), ("Authorization", &bearer)]);
        assert_eq!(answer.status, status, "{target}");
    }
    // Origins.
    for other in ["http://evil.example", "null", &format!("https://{host}"), &format!("http://{localhost}")] {
        assert_eq!(with(&[("Origin", other)]), 403, "{other}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(with(&[("Sec-Fetch-Site", site)]), 403, "{site}");
    }
    // Tokens.
    let longer = format!("{bearer}x");
    for other in ["", "Bearer", "Bearer ", "Bearer wrong", &server.token, &longer] {
        let answer = server.request("GET", path, &[("Host", &host), ("Authorization", other)]);
        assert_eq!(answer.status, 401, "{other}");
        assert!(!answer.body.contains("shop"), "{}", answer.body);
    }
    assert_eq!(
        server.request("GET", &format!("{path}?token={}", server.token), &[("Host", &host)]).status,
        401
    );
    // Methods.
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"] {
        for path in ["/", path] {
            let answer = server.request(method, path, &[("Host", &host), ("Authorization", &bearer)]);
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method} {path}");
        }
    }
}

#[test]
fn pages_may_load_and_ask_this_server_only() {
    let server = Server::start(&["-f", "examples/shop"]);
    let host = server.address.to_string();
    let get = |path: &str| server.request("GET", path, &[("Host", &host)]);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/app.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/licenses.txt", "text/plain; charset=utf-8"),
    ] {
        let answer = get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let page = get("/").body;
    assert!(!page.contains("<style") && !page.contains("style=") && !page.contains(" on"), "{page}");
    assert!(page.contains("src=\"/app.js\"></script>"), "{page}");
    for absent in ["/index.html", "//", "/../Cargo.toml", "/assets/app.js", "/app.js/"] {
        assert_eq!(get(absent).status, 404, "{absent}");
    }
}

#[test]
fn edits_are_followed_and_a_broken_file_changes_nothing() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("all.yaml");
    let pods = fs::read_to_string(support::root().join("examples/shop/workloads.yaml")).unwrap();
    fs::write(&file, &pods).unwrap();
    let server = Server::start(&["-f", dir.path().to_str().unwrap()]);
    let first = server.state();
    assert_eq!((&first["world"], &first["problem"]), (&1.into(), &serde_json::Value::Null));
    let open = server.get("/api/v1/report").body;

    fs::write(dir.path().join("broken.yaml"), "kind: NetworkPolicy\nspec: [\n").unwrap();
    let broken = server.wait("the broken file", |state| !state["problem"].is_null());
    let error = &broken["problem"]["errors"][0];
    assert!(error["file"].as_str().unwrap().ends_with("broken.yaml"), "{broken:#}");
    assert!(error["line"].as_u64().is_some(), "{broken:#}");
    assert_eq!(broken["world"], 1);
    assert_eq!(server.get("/api/v1/report").body, open);

    fs::remove_file(dir.path().join("broken.yaml")).unwrap();
    let deny = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\nspec: {podSelector: {}}\n";
    fs::write(&file, format!("{pods}{deny}")).unwrap();
    server.wait("the policy", |state| state["problem"].is_null() && state["world"] != 1);
    let report =
        server.wait("the policy", |_| server.get("/api/v1/report").body.contains("NetworkPolicy shop/deny"));
    assert!(report["number"].as_u64() > broken["number"].as_u64());

    // All objects are gone: that is an error, too, and what was read last stays.
    fs::remove_file(&file).unwrap();
    server.wait("the removed file", |state| !state["problem"].is_null());
    assert!(server.get("/api/v1/report").body.contains("NetworkPolicy shop/deny"));
}

#[test]
fn clients_that_send_nothing_or_too_much_stop_no_one() {
    let server = Server::start(&["-f", "examples/shop"]);
    let began = Instant::now();
    let mut idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    idle.iter_mut().for_each(|stream| stream.write_all(b"GET / HTTP/1.1\r\n").unwrap());
    // They are closed after 5 s, and keep no other waiting.
    assert_eq!(server.get("/api/v1/state").status, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    _ = idle[0].set_read_timeout(Some(Duration::from_secs(60)));
    _ = idle[0].read_to_end(&mut rest);
    drop(idle);

    let long = "x".repeat(100_000);
    let answer = server.get(&format!("/api/v1/explain?from={long}&to=shop"));
    assert!(matches!(answer.status, 0 | 414 | 431), "{}", answer.head);
    assert_eq!(server.send("\0\u{7f}\r\n\r\n").status, 400);
    assert_eq!(server.get("/api/v1/state").status, 200);
}

#[test]
fn waiting_for_a_change_ends_without_one() {
    let server = Server::start(&["-f", "examples/shop"]);
    let began = Instant::now();
    let state = server.get("/api/v1/state?after=1");
    assert!(began.elapsed() >= Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!((state.status, &state.json()["number"]), (200, &1.into()));
    let began = Instant::now();
    assert_eq!(server.get("/api/v1/state?after=0").json()["number"], 1);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// The matrix of more workloads would need gigabytes in a browser.
#[test]
fn of_too_many_workloads_namespaces_are_shown() {
    let dir = tempfile::TempDir::new().unwrap();
    let pod = |n: usize| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}, namespace: n{}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n",
            n % 3
        )
    };
    let all: String = (0..2_001).map(pod).collect();
    fs::write(dir.path().join("pods.yaml"), all).unwrap();
    let server = Server::start(&["-f", dir.path().to_str().unwrap(), "--pod-cidr", "10.0.0.0/16"]);
    assert_eq!(server.state()["ends"], "namespace");
    let report = server.get("/api/v1/report").json();
    let ends = report["ends"].as_array().unwrap();
    let names: Vec<&str> =
        ends.iter().filter(|e| e["kind"] == "namespace").map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["namespace n0", "namespace n1", "namespace n2"]);
    assert_eq!(report["counts"]["workloads"], 2_001);
}

#[test]
fn what_can_not_be_read_or_listened_on_is_an_error() {
    for (words, reason) in [
        ("ui -f examples/nothing", "examples/nothing"),
        ("ui -f crates/palisade/tests/cases/describe/idle.yaml --port 0", "port"),
        ("ui", "-f PATH"),
        ("ui --live", "-f PATH"),
    ] {
        let (code, out, err) = run(&mut palisade(words));
        assert_eq!((code, &*out), (2, ""), "{words}: {err}");
        assert!(err.contains(reason), "{words}: {err}");
    }
    let server = Server::start(&["-f", "examples/shop"]);
    let (code, out, err) =
        run(&mut palisade(&format!("ui -f examples/shop --port {}", server.address.port())));
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("can't listen on 127.0.0.1:"), "{err}");
}
