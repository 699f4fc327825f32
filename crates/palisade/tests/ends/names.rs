//! Names: of the DNS, misspelt, and wrong ones with their cure.

use crate::{
    SHOP, answered,
    on_path::{manifest, run},
    refused,
};

#[test]
fn dns_names_and_urls_are_services_and_pods() {
    let dir = manifest(SHOP);
    for end in [
        "web.shop:80",
        "web.shop.svc:80",
        "web.shop.svc.cluster.local:main",
        "http://web.shop/login",
        "web.shop",
    ] {
        let ran = run(&format!("can shop/db {end}"), dir.path());
        answered(&ran, 1, &["shop/svc/web", "service port 80 → TCP 8080"]);
    }
    answered(
        &run("can staging/client db-0.db.shop.svc.cluster.local:443", dir.path()),
        1,
        &["shop/pod/db-0"],
    );
    answered(&run("can 10-0-0-7.staging.pod.cluster.local shop/db", dir.path()), 1, &["staging/client"]);
    answered(&run("can db.shop web.shop:80", dir.path()), 1, &["shop/statefulset/db"]);
    refused(
        &run("can shop/db web.shop:8080", dir.path()),
        &["no port 8080/TCP", "use the service's port 80"],
    );
    refused(&run("can shop/db web.shpo:80", dir.path()), &["no namespace `shpo`", "web.shop"]);
    refused(&run("can shop/db wbe.shop:80", dir.path()), &["wbe", "did you mean", "web"]);
    refused(&run("can shop/db web.shop.svc.cluster.local:https", dir.path()), &["it has 80/TCP (main)"]);
}

#[test]
fn an_external_name_of_the_cluster_is_followed_or_an_error() {
    let alias = |name: &str, target: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{type: ExternalName, externalName: {target}}}}}\n"
        )
    };
    let aliases = [
        ("front", "web.shop.svc.cluster.local"),
        ("frontier", "front.shop.svc.cluster.local."),
        ("replica", "db-0.db.shop.svc.cluster.local"),
        ("far", "elsewhere.shop.svc.cluster.local"),
        ("gone", "nobody.shop.svc.cluster.local"),
        ("loop", "pool.shop.svc.cluster.local"),
        ("pool", "loop.shop.svc.cluster.local"),
        ("short", "web"),
        ("shorter", "web.shop"),
    ];
    let dir =
        manifest(&aliases.iter().fold(SHOP.to_owned(), |all, (name, target)| all + &alias(name, target)));
    let can = |what: &str| run(&format!("can shop/db shop/svc/{what}"), dir.path());
    for name in ["front", "frontier"] {
        answered(&can(&format!("{name}:80")), 1, &["service port 80 → TCP 8080", "NetworkPolicy shop/web"]);
    }
    let of_pod = run("can staging/client shop/svc/replica:443", dir.path());
    answered(&of_pod, 1, &["db-0.db.shop.svc.cluster.local", "NetworkPolicy staging/out"]);
    answered(&can("far:443"), 0, &["another name for elsewhere.shop.svc", "another name for db.example.com"]);
    refused(&can("gone:80"), &["another name for nobody.shop.svc.cluster.local", "nobody"]);
    refused(&can("loop:80"), &["shop/svc/loop", "its own"]);
    for name in ["short", "shorter"] {
        let cure = "no search path completes this name: write web.shop.svc.cluster.local";
        refused(&can(&format!("{name}:80")), &[cure]);
    }
}

#[test]
fn a_name_that_only_one_namespace_has_is_found_and_said() {
    let dir = manifest(SHOP);
    let ran = run("can client web:8080", dir.path());
    answered(
        &ran,
        1,
        &["staging/pod/client", "note: `client` is not in namespace default; staging/pod/client is the only"],
    );
    refused(
        &run("can client web:8080 -n shop", dir.path()),
        &["no pod or workload `client` in namespace shop"],
    );
    let both = SHOP.replace("name: client, namespace: staging", "name: web, namespace: staging");
    refused(
        &run("can shop/db web:1", manifest(&both).path()),
        &["ambiguous", "shop/deployment/web", "staging/pod/web"],
    );
}

#[test]
fn misspelt_names_come_with_what_there_is() {
    let dir = manifest(SHOP);
    refused(&run("can shop/wbe shop/db", dir.path()), &["did you mean shop/deployment/web"]);
    refused(&run("can shop/gateway shop/db", dir.path()), &["shop/deployment/web", "shop/statefulset/db"]);
    refused(&run("can deployement/web shop/db", dir.path()), &["did you mean deployment/web"]);
    refused(&run("can shop/deploymnt/web shop/db", dir.path()), &["did you mean deployment"]);
    refused(&run("can shop/db shop/web:htpp", dir.path()), &["named `htpp`", "they declare http (TCP 8080)"]);
    refused(&run("can shpo/web shop/db", dir.path()), &["did you mean shop"]);
    refused(&run("can ns/shpo shop/db", dir.path()), &["no namespace `shpo`", "did you mean shop"]);
}

/// A wrong end comes with its cause, and with what to write instead.
#[test]
fn wrong_ends_come_with_a_cure() {
    let dir = manifest(SHOP);
    for (source, destination, says) in [
        ("10.0.0.300", "shop/db", "`10.0.0.300` is not an IP address"),
        ("clinet", "shop/db", "there is no pod or workload `clinet`; did you mean staging/pod/client?"),
        ("quarterly-report", "shop/db", "there is no pod or workload `quarterly-report`; there are "),
        ("shop", "shop/db", "did you mean ns/shop?"),
        ("quarterly/report", "shop/db", "there is no namespace `quarterly`; there are "),
        ("shop/db", "netpol/web", "`netpol` is not a kind with network endpoints"),
        ("shop/db", "secret/web", "`secret` is not a kind with network endpoints"),
        ("shop/db", "web/8080", "did you mean web:8080?"),
        ("shop/db", "shop/web:", "no port after the colon"),
        ("shop/db", "shop/web:80-90", "give one port. `palisade connections --port` takes ranges"),
        ("shop/db", "shop/web:80,90", "give one port"),
        ("shop/db", "fd00::7:80", "give the port: '[fd00::7:80]:PORT"),
        ("shop/db", "shop/web 8080/TCP", "the port is part of the destination: DST:8080/TCP"),
        ("shop/db", "shop/web examples", "manifests are given with -f: '-f examples'"),
    ] {
        refused(&run(&format!("can {source} {destination}"), dir.path()), &[says]);
    }
    refused(&run("describe shop", dir.path()), &["did you mean ns/shop?"]);
    refused(&run("lint examples", dir.path()), &["manifests are given with -f: '-f examples'"]);
    refused(&run("diff", dir.path()), &["manifests are given without -f: 'palisade diff PATH'"]);
    refused(
        &run("connections --ingress-controller web-1", dir.path()),
        &["there is no pod or workload `web-1`; did you mean shop/deployment/web?"],
    );
    refused(&run("suggest", dir.path()), &["--from-services needs no records"]);
    refused(&run("lint --select PAL999", dir.path()), &["rules have codes, from PAL001 to PAL0"]);
}

#[test]
fn names_of_the_cluster_are_never_names_of_the_outside() {
    let dir = manifest(
        "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: data}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: data, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: data}
spec: {podSelector: {}}
",
    );
    answered(&run("can shop/web db-0.db.data:5432", dir.path()), 1, &["denied"]);
    refused(&run("can shop/web db-5.db.data:5432", dir.path()), &["db-5"]);
    refused(&run("can shop/web db-0.bd.data:5432", dir.path()), &["bd"]);
    refused(&run("can shop/web data.db:5432", dir.path()), &["did you mean db.data?"]);
    let address = run("can shop/web 10-0-0-7.data.pod:5432", dir.path());
    refused(&address, &["no pod has the address 10.0.0.7"]);
    answered(&run("can shop/web api.github.com:443", dir.path()), 0, &["allowed"]);
}
