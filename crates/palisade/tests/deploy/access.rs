//! The permissions of the agents, and of users who query a cluster, at the API server.

use std::collections::{BTreeMap, BTreeSet};

use palisade_api::ResourceKind;
use serde_json::Value;

use crate::{kind, name, objects, rendered, words};

/// Verbs by resource (`group/resource`), of all rules of a role.
type Rights = BTreeMap<String, BTreeSet<String>>;

fn rights(role: &Value) -> Rights {
    let mut rights = Rights::new();
    for rule in role["rules"].as_array().unwrap() {
        assert_eq!(rule["nonResourceURLs"], Value::Null);
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let verbs = words(&rule["verbs"]).into_iter().map(str::to_owned);
                let one = words(&rule["resourceNames"]).join(",");
                let named = if one.is_empty() { String::new() } else { format!(" {one}") };
                rights.entry(format!("{group}/{resource}{named}")).or_default().extend(verbs);
            }
        }
    }
    rights
}

fn role(objects: &[Value], wanted: &str, called: &str) -> Option<Rights> {
    objects.iter().find(|o| kind(o) == wanted && name(o) == called).map(rights)
}

/// As a table: one line for each resource.
fn table(rights: &Rights) -> String {
    let line = |(resource, verbs): (&String, &BTreeSet<String>)| {
        format!("{resource}: {}\n", verbs.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
    };
    rights.iter().map(line).collect()
}

const READ: &str = "\
/namespaces: list watch
/nodes: list watch
/pods: list watch
networking.k8s.io/networkpolicies: list watch
policy.networking.k8s.io/adminnetworkpolicies: list watch
policy.networking.k8s.io/baselineadminnetworkpolicies: list watch
policy.networking.k8s.io/clusternetworkpolicies: list watch
";

#[test]
fn an_agent_reads_what_decisions_need_and_writes_reports() {
    let objects = objects("deploy/manifests/palisade.yaml");
    let cluster = role(&objects, "ClusterRole", "palisade-agent").unwrap();
    let reports = "\
events.k8s.io/events: create patch
policy.networking.k8s.io/adminnetworkpolicies/status: get patch update
policy.networking.k8s.io/baselineadminnetworkpolicies/status: get patch update
policy.networking.k8s.io/clusternetworkpolicies/status: get patch update
";
    let mut expected: Vec<&str> = READ.lines().chain(reports.lines()).collect();
    expected.sort_unstable();
    let mut got: Vec<String> = table(&cluster).lines().map(str::to_owned).collect();
    got.sort_unstable();
    assert_eq!(got, expected);
    let own = role(&objects, "Role", "palisade-agent").unwrap();
    let leases = "\
coordination.k8s.io/leases: create
coordination.k8s.io/leases palisade-status-writer: get patch update
";
    assert_eq!(table(&own), leases);
}

#[test]
fn an_agent_may_change_nodes_only_to_remove_the_startup_taint() {
    for (path, objects) in rendered() {
        let Some(rights) = role(&objects, "ClusterRole", "palisade-agent") else { continue };
        let settings = crate::only(&objects, "ConfigMap")["data"]["agent.yaml"].as_str().unwrap().to_owned();
        let verbs: Vec<&str> = rights["/nodes"].iter().map(String::as_str).collect();
        if settings.contains("startup-taint: remove") {
            assert_eq!(verbs, ["get", "list", "patch", "watch"], "{path}");
        } else {
            assert_eq!(verbs, ["list", "watch"], "{path}");
        }
        assert_eq!(settings.contains("startup-taint: remove"), path.ends_with("from-boot.yaml"), "{path}");
    }
}

#[test]
fn without_reports_an_agent_writes_nothing() {
    let (_, objects) = rendered()
        .into_iter()
        .find(|(path, _)| path.contains("confined"))
        .expect("the case has reportStatus: false");
    assert_eq!(table(&role(&objects, "ClusterRole", "palisade-agent").unwrap()), READ);
    assert!(objects.iter().all(|o| !["Role", "RoleBinding"].contains(&kind(o))));
}

/// The permissions are exactly those for what `palisade can` and similar verbs read.
#[test]
fn people_who_ask_can_list_what_answers_need() {
    let needed = ResourceKind::all()
        .map(|k| (format!("{}/{}", k.group(), k.plural()), BTreeSet::from(["list".to_owned()])));
    let needed: Rights = needed.collect();
    let alone = objects("deploy/manifests/explainer.yaml");
    assert_eq!(alone.len(), 1);
    assert_eq!(role(&alone, "ClusterRole", "palisade-explainer").unwrap(), needed);
    let (_, with_chart) = rendered()
        .into_iter()
        .find(|(path, _)| path.contains("monitored"))
        .expect("the case has explainer.clusterRole");
    assert_eq!(role(&with_chart, "ClusterRole", "palisade-explainer").unwrap(), needed);
}

#[test]
fn readers_of_flows_may_list_agents_and_run_commands_in_them_and_nothing_else() {
    let needed = "/pods: list\n/pods/exec: create get\napps/daemonsets: list\n";
    let alone = objects("deploy/manifests/flow-reader.yaml");
    assert_eq!(alone.len(), 1);
    assert_eq!(table(&role(&alone, "Role", "palisade-flow-reader").unwrap()), needed);
    assert_eq!(alone[0]["metadata"]["namespace"], "palisade-system");
    // It has no effect unless it is bound, and the chart creates it on request only.
    for (path, objects) in rendered() {
        let has = role(&objects, "Role", "palisade-flow-reader").is_some();
        assert_eq!(has, path.contains("monitored"), "{path}");
    }
}

/// Every kind that an agent watches. Services are needed with some settings only.
#[test]
fn an_agent_may_watch_every_kind_that_it_watches() {
    let rights = role(&objects("deploy/manifests/palisade.yaml"), "ClusterRole", "palisade-agent").unwrap();
    for kind in ResourceKind::watched() {
        let verbs = rights.get(&format!("{}/{}", kind.group(), kind.plural()));
        assert!(verbs.is_some_and(|v| v.contains("list") && v.contains("watch")), "{kind}: {verbs:?}");
    }
}

#[test]
fn an_agent_may_watch_services_if_its_settings_need_them() {
    let mut seen = [false; 2];
    for (path, objects) in rendered() {
        let Some(rights) = role(&objects, "ClusterRole", "palisade-agent") else { continue };
        let settings = crate::only(&objects, "ConfigMap")["data"]["agent.yaml"].as_str().unwrap().to_owned();
        let needed = settings.contains("domain-names: \"on\"") || !settings.contains("flows: drops");
        let verbs = rights.get("/services").map(|verbs| verbs.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(verbs, needed.then(|| vec!["list", "watch"]), "{path}");
        seen[usize::from(needed)] = true;
    }
    assert_eq!(seen, [true, true], "a case of each");
}

#[test]
fn no_role_reads_secrets_or_says_everything() {
    for (path, objects) in rendered() {
        for role in objects.iter().filter(|o| kind(o).ends_with("Role")) {
            let is_flow_reader = name(role) == "palisade-flow-reader";
            for (resource, verbs) in rights(role) {
                // The one role for commands in the agents' pods. Nothing that is shipped binds it.
                if is_flow_reader && resource == "/pods/exec" {
                    continue;
                }
                assert!(!resource.contains('*') && !verbs.contains("*"), "{path}: {resource}");
                for forbidden in ["secrets", "exec", "configmaps", "serviceaccounts", "roles", "rolebindings"]
                {
                    assert!(!resource.contains(forbidden), "{path}: {resource}");
                }
                for forbidden in ["delete", "deletecollection", "escalate", "bind", "impersonate"] {
                    assert!(!verbs.contains(forbidden), "{path}: {resource} {forbidden}");
                }
            }
        }
    }
}

#[test]
fn nobody_may_run_commands_in_the_agents_pods_unless_you_say_so() {
    for (path, objects) in rendered() {
        let mut bindings = objects.iter().filter(|o| kind(o).ends_with("RoleBinding"));
        assert!(bindings.all(|binding| binding["roleRef"]["name"] != "palisade-flow-reader"), "{path}");
    }
}

#[test]
fn each_binding_joins_what_is_there() {
    for (path, objects) in rendered() {
        for binding in objects.iter().filter(|o| kind(o).ends_with("RoleBinding")) {
            let role = &binding["roleRef"];
            let there = |wanted: &str, called: &Value| {
                objects.iter().any(|o| kind(o) == wanted && o["metadata"]["name"] == *called)
            };
            assert!(there(role["kind"].as_str().unwrap(), &role["name"]), "{path}: {}", name(binding));
            let subjects = binding["subjects"].as_array().unwrap();
            assert_eq!(subjects.len(), 1);
            assert!(there("ServiceAccount", &subjects[0]["name"]), "{path}");
            assert_eq!(subjects[0]["namespace"], "palisade-system", "{path}");
        }
    }
}
