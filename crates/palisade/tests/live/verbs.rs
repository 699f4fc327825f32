//! Every verb that reads a cluster, without errors.

use serde_json::{Value, json};

use tempfile::TempDir;

use crate::{
    ask,
    server::{Server, lines, other, policy, shop},
    support::{palisade, recorded, run},
};

#[test]
fn can_decides_and_points_at_the_object_and_field() {
    let server = Server::of(shop());
    let kubeconfig = server.kubeconfig();
    let (code, out, err) = ask(&kubeconfig, "can web db:8080");
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(
        out.contains("shop/deployment/web → shop/rollout/db") || out.contains("shop/deployment/web"),
        "{out}"
    );
    assert!(
        out.contains("NetworkPolicy shop/db, ingress[0] (networkpolicy/shop/db spec.ingress[0])"),
        "{out}"
    );
    let (code, out, _) = ask(&kubeconfig, "can staging/cronjob/nightly svc/db:80");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("requires pods app=web in namespace shop (spec.ingress[0].from[0])"), "{out}");
    let (code, out, _) = ask(&kubeconfig, "can nightly shop/db:8080 -n staging -o json");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["verdict"]), (1, &json!("denied")));
    let near = &json["answers"][0]["ingress"]["near"][0];
    assert_eq!(near["rule"]["file"], "networkpolicy/shop/db spec.ingress[0]");
    assert_eq!((&near["rule"]["line"], &near["line"]), (&Value::Null, &Value::Null));
    assert!(json.get("incomplete").is_none());
}

#[test]
fn the_context_gives_the_namespace_and_the_flags_choose_the_context() {
    let server = Server::of(shop());
    let kubeconfig = server.kubeconfig();
    let (code, out, err) = ask(&kubeconfig, "can nightly shop/db:8080 --context elsewhere");
    assert_eq!((code, &*err), (1, ""), "{out}");
    let words = format!("can web db:8080 --kubeconfig {}", kubeconfig.display());
    assert_eq!(ask("/nonexistent".as_ref(), &words).0, 0);
    let (code, _, err) = ask(&kubeconfig, "can nobody db:8080");
    assert_eq!(code, 2);
    assert!(err.contains("nobody"), "{err}");
    // The only object of this name is in another namespace, and a note says so.
    let (code, out, _) = ask(&kubeconfig, "can nightly db:8080");
    assert_eq!(code, 1);
    assert!(out.contains("note: ") && out.contains("staging/"), "{out}");
}

/// No secrets are requested, everything is read in pages, and names come from metadata only.
#[test]
fn what_is_asked_of_the_server() {
    let server = Server::of(shop());
    ask(&server.kubeconfig(), "connections");
    let request = server.requests();
    let log = lines(&request);
    assert!(!log.contains("secret") && !log.contains("configmap"), "{log}");
    assert!(
        !log.contains("policy.networking") && !log.contains("gateway") && !log.contains("route"),
        "{log}"
    );
    for one in request.iter().filter(|a| a.path != "/apis") {
        assert_eq!(one.query.get("limit").map(String::as_str), Some("500"), "{log}");
        let metadata_only =
            ["/namespaces", "/replicasets", "/jobs"].iter().any(|end| one.path.ends_with(end));
        assert_eq!(one.headers["accept"].contains("PartialObjectMetadataList"), metadata_only, "{one:?}");
        assert_eq!(one.headers["authorization"], "Bearer t");
    }
}

#[test]
fn workloads_go_by_their_owners() {
    let server = Server::of(shop());
    let (code, out, err) = ask(&server.kubeconfig(), "connections -o json");
    assert_eq!((code, &*err), (0, ""));
    let json: Value = serde_json::from_str(&out).unwrap();
    let ids: Vec<&str> = json["ends"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    for wanted in ["shop/deployment/web", "shop/rollout/db", "staging/cronjob/nightly"] {
        assert!(ids.contains(&wanted), "{wanted} in {ids:?}");
    }
    assert!(!ids.iter().any(|id| id.contains("old")), "{ids:?}");
}

#[test]
fn cluster_wide_policies_are_read_in_the_newest_version_served() {
    let deny = |version: &str, name: &str| {
        let peers = json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}});
        other(
            version,
            "ClusterNetworkPolicy",
            name,
            json!({"spec": {"tier": "Admin", "priority": 1,
            "subject": {"namespaces": {}}, "ingress": [{"name": "no", "action": "Deny", "from": [peers]}]}}),
        )
    };
    let mut objects = shop();
    objects.push(deny("policy.networking.k8s.io/v1alpha2", "old"));
    let server = Server::of(objects.clone());
    let (code, out, _) = ask(&server.kubeconfig(), "can web db:8080");
    assert_eq!(code, 1);
    assert!(out.contains("clusternetworkpolicy/old spec.ingress[0]"), "{out}");
    // A server that serves both versions has the same objects in each; only one is requested.
    objects.push(deny("policy.networking.k8s.io/v1beta1", "new"));
    let server = Server::of(objects);
    let (code, out, _) = ask(&server.kubeconfig(), "can web db:8080");
    assert_eq!(code, 1);
    assert!(out.contains("clusternetworkpolicy/new") && !out.contains("old"), "{out}");
    let log = lines(&server.requests());
    assert!(!log.contains("v1alpha2/clusternetworkpolicies"), "{log}");
}

/// A rule with a field of a later version is not supported, and must not allow anything.
#[test]
fn a_rule_of_a_later_version_fails_closed() {
    let mut objects = shop();
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [{"name": "x", "action": "Accept", "from": [{"namespaces": {}}], "onlyOnMondays": true}]});
    objects.push(other(
        "policy.networking.k8s.io/v1beta1",
        "ClusterNetworkPolicy",
        "later",
        json!({"spec": spec}),
    ));
    let server = Server::of(objects);
    let (code, out, err) = ask(&server.kubeconfig(), "can staging/nightly db:8080");
    assert_eq!(code, 1, "{out}");
    assert!(err.contains("ClusterNetworkPolicy later") && err.contains("onlyOnMondays"), "{err}");
}

#[test]
fn describe_and_explain_answer() {
    let server = Server::of(shop());
    let kubeconfig = server.kubeconfig();
    let (code, out, err) = ask(&kubeconfig, "describe db");
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("(networkpolicy/shop/db)"), "{out}");
    let (code, out, err) = ask(&kubeconfig, "explain staging/nightly db:8080");
    assert_eq!((code, &*err), (1, ""));
    assert!(out.contains("networkpolicy/shop/db spec.ingress[0]"), "{out}");
    assert!(
        out.contains(
            r#"kubectl -n shop patch networkpolicy db --type=json -p '[{"op":"add","path":"/spec/ingress/"#
        ),
        "{out}"
    );
    let (_, out, _) = ask(&kubeconfig, "explain staging/nightly db:8080 -o json --context test");
    let json: Value = serde_json::from_str(&out).unwrap();
    let command = json["suggestions"][0]["commands"][0].as_str().unwrap();
    assert!(
        command.starts_with("kubectl --context test -n shop patch networkpolicy db --type=json -p '["),
        "{command}"
    );
}

/// The suggested patch has the requested effect once it is applied to the cluster.
#[test]
fn a_suggested_patch_has_the_promised_effect() {
    let server = Server::of(shop());
    let (_, out, _) = ask(&server.kubeconfig(), "explain staging/nightly db:8080");
    let line = out.lines().find(|l| l.starts_with("kubectl")).unwrap();
    let patch = line.split_once(" -p '").unwrap().1.trim_end_matches('\'');
    let operations: Value = serde_json::from_str(patch).unwrap();
    let (path, value) = (operations[0]["path"].as_str().unwrap(), &operations[0]["value"]);
    let mut objects = shop();
    let policy = objects.iter_mut().find(|o| o["kind"] == "NetworkPolicy").unwrap();
    let list = policy.pointer_mut(path.trim_end_matches("/-")).unwrap().as_array_mut().unwrap();
    list.push(value.clone());
    let server = Server::of(objects);
    assert_eq!(ask(&server.kubeconfig(), "can staging/nightly db:8080").0, 0);
    assert_eq!(ask(&server.kubeconfig(), "can web db:9999").0, 1);
}

/// The suggestion to add a policy says so if the cluster does not serve its kind.
#[test]
fn a_policy_of_a_kind_that_is_not_served() {
    let says = "the cluster does not serve ClusterNetworkPolicy: install its CustomResourceDefinition first";
    let mut objects = shop();
    let server = Server::of(objects.clone());
    let (code, out, _) = ask(&server.kubeconfig(), "explain shop/db web:8080 --to-deny");
    assert_eq!(code, 0);
    assert!(out.contains("add ClusterNetworkPolicy") && out.contains(says), "{out}");
    let spec =
        json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {"matchLabels": {"no": "such"}}}});
    objects.push(other(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "c",
        json!({"spec": spec}),
    ));
    let server = Server::of(objects);
    let (_, out, _) = ask(&server.kubeconfig(), "explain shop/db web:8080 --to-deny");
    assert!(out.contains("add ClusterNetworkPolicy") && !out.contains(says), "{out}");
}

/// The text output.
#[test]
fn a_live_explanation() {
    let server = Server::of(shop());
    let (_, out, _) = ask(&server.kubeconfig(), "explain staging/nightly db:8080");
    recorded("live/explain.txt", &out);
}

/// If there are more objects than a page holds, each is read once.
#[test]
fn long_lists_come_in_pages() {
    let mut objects = shop();
    for n in 0..1203 {
        let ip = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        objects.push(crate::server::pod(&format!("shop/many-{n}"), "many", &ip, None));
        objects.push(policy(&format!("shop/p{n}"), json!({"podSelector": {"matchLabels": {"app": "none"}}})));
    }
    let server = Server::of(objects);
    let kubeconfig = server.kubeconfig();
    assert_eq!(ask(&kubeconfig, "can many-1202 web:8080").0, 0);
    let request = server.requests();
    let pages = request.iter().filter(|a| a.path == "/api/v1/pods").count();
    assert_eq!(pages, 3, "{}", lines(&request));
}

/// A port of a node that is a pod's, and the address of a load balancer, are resolved as they are in files.
#[test]
fn ports_and_addresses_of_nodes_and_load_balancers_stand_for_their_pods() {
    let mut objects = shop();
    let db = objects.iter_mut().find(|o| o["metadata"]["name"] == "db-x-a").expect("a pod of the shop");
    db["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(9000);
    let bound = json!([{"name": "http", "containerPort": 8080, "hostPort": 9001, "hostIP": "192.0.2.1"}]);
    db["spec"]["initContainers"] = json!([{"name": "side", "restartPolicy": "Always", "ports": bound}]);
    let service = objects.iter_mut().find(|o| o["kind"] == "Service").expect("a Service of the shop");
    service["spec"]["type"] = json!("LoadBalancer");
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}});
    let server = Server::of(objects);
    let kubeconfig = server.kubeconfig();
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("cluster");
    let (code, _, err) = ask(&kubeconfig, &format!("snapshot {}", to.display()));
    assert_eq!(code, 0, "{err}");
    for (words, expected, part) in [
        ("can shop/web node/n1:9000", 0, "is the hostPort of shop/pod/db-x-a"),
        ("can staging/nightly node/n1:9000", 1, "is the hostPort of shop/pod/db-x-a"),
        ("can staging/nightly node/n1:9001", 1, "is the hostPort of shop/pod/db-x-a"),
        ("can staging/nightly node/n1:9002", 0, "node/n1"),
        ("can staging/nightly 203.0.113.7:80", 1, "shop/db"),
    ] {
        let (code, out, err) = ask(&kubeconfig, words);
        assert_eq!(code, expected, "{words}: {out}{err}");
        assert!(out.contains(part), "{words}: {out}");
        let (code, out, err) = run(&mut palisade(&format!("{words} -f {}", to.display())));
        assert_eq!(code, expected, "{words} from the snapshot: {out}{err}");
        assert!(out.contains(part), "{words} from the snapshot: {out}");
    }
}
