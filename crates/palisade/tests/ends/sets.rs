//! Several ends at once: namespaces, ranges, hosts, and pods that do not exist.

use crate::{
    SHOP, answered, case,
    on_path::{manifest, run},
    refused,
};

#[test]
fn namespaces_and_everything_are_ends() {
    let dir = manifest(SHOP);
    for source in ["ns/shop", "shop/*", "*"] {
        let ran = run(&format!("can {source} shop/web:8080"), dir.path());
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    }
    answered(&run("can ns/shop db.shop:5432", dir.path()), 0, &["namespace/shop → shop/statefulset/db"]);
    answered(&run("can ns/staging ns/shop:443", dir.path()), 1, &["namespace/staging → namespace/shop"]);
    refused(&run("can shop/w* shop/db", dir.path()), &["no pattern"]);
}

#[test]
fn ranges_are_split_where_policies_split_them() {
    let dir = manifest(SHOP);
    answered(&run("can staging/client 8.0.0.0/8:443", dir.path()), 0, &["8.0.0.0/8"]);
    answered(&run("can staging/client 10.0.0.0/7:443", dir.path()), 1, &["differs by address", "11.0.0.0"]);
    answered(&run("can 10.0.0.0/8 shop/web:8080", dir.path()), 1, &["note: ", "left out"]);
    answered(&run("can 8.8.8.8/32 shop/db:5432", dir.path()), 0, &["8.8.8.8"]);
}

#[test]
fn a_host_is_answered_if_every_public_address_has_the_same_verdict() {
    let dir = manifest(SHOP);
    answered(
        &run("can staging/client api.github.com:443", dir.path()),
        0,
        &["api.github.com", "note: policies see addresses"],
    );
    answered(&run("can staging/client https://api.github.com/x", dir.path()), 0, &["api.github.com"]);
    answered(&run("can staging/client api.github.com:80", dir.path()), 1, &["api.github.com"]);
    let ran = run("can staging/client github.com:22", dir.path());
    answered(&ran, 2, &["undecided", "140.82.112.0", "give"]);
    let json = run("can staging/client github.com:22 -o json", dir.path());
    answered(&json, 2, &["\"verdict\": \"undecided\"", "host-addresses"]);
    answered(
        &run("can staging/client shop/svc/elsewhere:443", dir.path()),
        0,
        &["another name for db.example.com"],
    );
}

#[test]
fn pods_that_do_not_exist_are_asked_about_by_labels() {
    let dir = manifest(SHOP);
    answered(&run("can pod:role=frontend@shop shop/web", dir.path()), 0, &["shop/pod/pod:role=frontend"]);
    answered(&run("can pod:role=backend@shop shop/web", dir.path()), 1, &[]);
    answered(&run("can pod:role=frontend@other shop/web", dir.path()), 1, &["other/pod/pod:role=frontend"]);
    answered(&run("can shop/db pod:app=web@shop:8080", dir.path()), 1, &["NetworkPolicy shop/web"]);
    answered(&run("can shop/db pod:app=new,tier=x@team=a:80", dir.path()), 0, &[]);
    answered(&run("explain pod:role=frontend@shop shop/web:8080", dir.path()), 0, &[]);
    refused(
        &run("can pod:role=frontend@shpo shop/web", dir.path()),
        &["no namespace `shpo`", "did you mean shop"],
    );
    refused(&run("can pod:role@shop shop/web", dir.path()), &["invalid label"]);
}

#[test]
fn replicas_are_folded() {
    let many = SHOP.replace("replicas: 3", "replicas: 1000").replace("replicas: 2", "replicas: 1000");
    let dir = manifest(&many);
    let began = std::time::Instant::now();
    answered(
        &run("can shop/db shop/web", dir.path()),
        1,
        &["denied  shop/statefulset/db → shop/deployment/web"],
    );
    answered(&run("can shop/web shop/web", dir.path()), 1, &["denied"]);
    let json = run("can shop/db shop/web -o json", dir.path());
    answered(&json, 1, &["\"pairs\": 1000000"]);
    assert!(json.out.len() < 20_000, "{} bytes", json.out.len());
    // A debug build on a busy machine; before, this was an error, and minutes without it.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    let only = many
        + "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: one, namespace: shop}
spec:
  podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: db-7}}
  policyTypes: [Egress]
";
    let dir = manifest(&only);
    let ran = run("can shop/db shop/db:5432", dir.path());
    answered(&ran, 1, &["differs by pod", "shop/db-7 → shop/db-0", "995 more"]);
}

#[test]
fn notes_say_where_a_real_cluster_may_differ() {
    let path = case("services/load-balancer.yaml");
    let address = "note: externalTrafficPolicy: Cluster: for pods behind";
    answered(&run("can shop/db 203.0.113.50:80", &path), 1, &[address]);
    answered(&run("can 198.51.100.7 203.0.113.50:80", &path), 1, &[address]);
    let inside = run("can shop/db 10.96.0.77:80", &path);
    assert!(!inside.out.contains("note:"), "{}", inside.out);
    answered(
        &run("can node/n1 shop/web:8080", &path),
        1,
        &["tunnel address", "a pod always accepts its own node"],
    );
    let open = run("can node/n1 shop/db:1", &path);
    assert!(!open.out.contains("note:"), "{}", open.out);
    let json = run("can shop/db 203.0.113.50:80 -o json", &path);
    answered(&json, 1, &["\"notes\"", "\"code\": \"client-address\""]);
}
