//! `palisade explain` names the mistake in its first line, and its first patch corrects it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use support::{apply, palisade, run};
use tempfile::TempDir;

/// Two namespaces with a label each, and three workloads behind a Service.
const BASE: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: store}}
---
apiVersion: v1
kind: Namespace
metadata: {name: monitoring, labels: {team: platform}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: carts, namespace: shop, labels: {part-of: shop}}
spec:
  selector: {matchLabels: {app: carts}}
  template:
    metadata:
      labels:
        app: carts
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop, labels: {tier: backend}}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
        - {name: c, image: x, ports: [{name: web, containerPort: 8080}, {name: dns, containerPort: 5353, protocol: UDP}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: prometheus, namespace: monitoring}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: prometheus}}
  template:
    metadata: {labels: {app.kubernetes.io/name: prometheus}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  clusterIP: 10.96.0.77
  selector: {app: api}
  ports: [{name: http, port: 80, targetPort: web}]
";

/// A NetworkPolicy for ingress to api, with these rules.
fn ingress(rules: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: api-in, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: api}}}}\n  policyTypes: [Ingress]\n  ingress:\n{rules}"
    )
}

/// A NetworkPolicy for egress of carts, with these rules.
fn egress(rules: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: carts-out, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: carts}}}}\n  policyTypes: [Egress]\n  egress:\n{rules}"
    )
}

const DENY: &str = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: default-deny, namespace: shop}\n\
                    spec: {podSelector: {}, policyTypes: [Ingress]}\n";

fn here(dir: &Path, words: &str) -> (i32, String) {
    let (code, out, _) = run(palisade(words).current_dir(dir));
    (code, out)
}

/// The addresses of the pods are in this range.
const NODE: &str = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.0.0/16}\nstatus: {addresses: [{address: 192.168.0.9}]}\n";

/// Explains a pair. The first line must be this cause. The first suggestion must have this text and, applied, allow the
/// connection. Returns the suggestion.
#[track_caller]
fn explained(more: &str, pair: &str, cause: &str, suggestion: &str) -> Value {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), format!("{BASE}{more}{NODE}")).unwrap();
    let (code, text) = here(dir.path(), &format!("explain {pair} -f m.yaml"));
    assert_eq!(code, 1, "{text}");
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("cause: ") && first.contains(cause), "{text}");
    let (_, out) = here(dir.path(), &format!("explain {pair} -f m.yaml -o json"));
    let json: Value = serde_json::from_str(&out).unwrap();
    let best = json["suggestions"][0].clone();
    assert!(best["text"].as_str().unwrap().contains(suggestion), "{suggestion}: {text}");
    assert_eq!(
        (&best["opens"], &best["by_hand"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{text}"
    );
    apply(dir.path(), best["patch"].as_str().unwrap());
    let (code, out) = here(dir.path(), &format!("can {pair} -f m.yaml"));
    assert_eq!(code, 0, "{text}\n{out}");
    best
}

#[test]
fn the_port_of_a_service() {
    for style in [
        "    - from:\n        - podSelector: {matchLabels: {app: carts}}\n      ports:\n        - port: 80\n          protocol: TCP\n",
        "    - {from: [{podSelector: {matchLabels: {app: carts}}}], ports: [{port: 443}, {port: 80}]}\n",
    ] {
        explained(
            &ingress(style),
            "shop/carts shop/svc/api:80",
            "80 is the port of Service shop/api; its pods listen on 8080 (\"web\") (m.yaml:",
            "replace TCP 80 by TCP 8080",
        );
    }
    let named = "    - from: [{podSelector: {matchLabels: {app: carts}}}]\n      ports: [{port: http}]\n";
    explained(
        &ingress(named),
        "shop/carts shop/api:8080",
        "\"http\" is the name of a port of Service shop/api; its pods listen on 8080 (\"web\")",
        "replace port \"http\"/TCP by TCP 8080",
    );
    let egress_rule = "    - to: [{podSelector: {matchLabels: {app: api}}}]\n      ports: [{port: 80}]\n";
    explained(
        &egress(egress_rule),
        "shop/carts shop/svc/api:80",
        "80 is the port of Service shop/api",
        "replace",
    );
}

/// The question has the port of the Service, and the rule that of the pods.
#[test]
fn the_port_of_a_service_in_the_question() {
    let dir = TempDir::new().unwrap();
    let rule = "    - from: [{podSelector: {matchLabels: {app: carts}}}]\n      ports: [{port: 8080}]\n";
    fs::write(dir.path().join("m.yaml"), format!("{BASE}{}", ingress(rule))).unwrap();
    let (code, text) = here(dir.path(), "explain shop/carts shop/api:80 -f m.yaml");
    assert_eq!(code, 1);
    assert!(text.starts_with("cause: 80 is the port of Service shop/api; the pods of shop/api listen on 8080 (\"web\"): ask for shop/svc/api:80\n"), "{text}");
}

#[test]
fn the_address_of_a_service() {
    let rule = "    - to: [{ipBlock: {cidr: 10.96.0.77/32}}]\n      ports: [{port: 8080}]\n";
    explained(
        &egress(rule),
        "shop/carts shop/svc/api:80",
        "10.96.0.77 is the cluster IP of Service shop/api; policies see the addresses of its pods (m.yaml:",
        "replace 10.96.0.77/32 by pods app=api in namespace shop",
    );
    let wide =
        "    - to:\n        - ipBlock:\n            cidr: 10.96.0.0/12\n      ports:\n        - port: 8080\n";
    explained(
        &egress(wide),
        "shop/carts shop/svc/api:80",
        "10.96.0.77 is the cluster IP",
        "add the peer pods app=api",
    );
}

/// The most frequent form: the address of the Service, and its port beside it. Either is translated.
#[test]
fn the_address_and_the_port_of_a_service_in_one_rule() {
    for port in ["80", "http"] {
        let rule = format!(
            "    - to:\n        - ipBlock: {{cidr: 203.0.113.7/32}}\n        - ipBlock: {{cidr: 10.96.0.77/32}}\n      ports:\n        - port: {port}\n"
        );
        explained(
            &egress(&rule),
            "shop/carts shop/svc/api:80",
            "10.96.0.77 is the cluster IP of Service shop/api; policies see the addresses of its pods (m.yaml:",
            "add an egress rule to NetworkPolicy shop/carts-out",
        );
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("m.yaml"), format!("{BASE}{}{NODE}", egress(&rule))).unwrap();
        let (_, text) = here(dir.path(), "explain shop/carts shop/svc/api:80 -f m.yaml");
        let second = text.lines().nth(1).unwrap();
        assert!(
            second.starts_with("cause: ") && second.contains("its pods listen on 8080 (\"web\")"),
            "{text}"
        );
    }
    // An address without the port of the Service, and a rule for others with its port, may mean something else.
    for rule in [
        "    - {to: [{ipBlock: {cidr: 10.96.0.77/32}}], ports: [{port: 443}]}\n",
        "    - {to: [{ipBlock: {cidr: 203.0.113.7/32}}], ports: [{port: 80}]}\n",
    ] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("m.yaml"), format!("{BASE}{}{NODE}", egress(rule))).unwrap();
        let (code, text) = here(dir.path(), "explain shop/carts shop/svc/api:80 -f m.yaml");
        assert!(code == 1 && !text.contains("Service shop/api"), "{text}");
    }
}

/// A range that has the port of a Service keeps its other ports.
#[test]
fn a_range_with_the_port_of_a_service() {
    let rule = "    - from: [{podSelector: {matchLabels: {app: carts}}}]\n      ports:\n        - port: 80\n          endPort: 90\n";
    explained(
        &ingress(rule),
        "shop/carts shop/svc/api:80",
        "80 is the port of Service shop/api; its pods listen on 8080 (\"web\") (m.yaml:",
        "add TCP 8080 to the ports of ingress[0]",
    );
}

#[test]
fn names_of_ports() {
    let block = "    - to: [{ipBlock: {cidr: 203.0.113.7/32}}]\n      ports: [{port: https}]\n";
    explained(
        &egress(block),
        "shop/carts 203.0.113.7:443",
        "\"https\" is the name of a container port, which no address outside the pod network has; give the number",
        "replace port \"https\"/TCP by TCP 443",
    );
    let unknown = "    - from: [{podSelector: {matchLabels: {app: carts}}}]\n      ports: [{port: wbe}]\n";
    explained(
        &ingress(unknown),
        "shop/carts shop/api:8080",
        "no pod of shop/api has a port named \"wbe\"; they declare 8080 (\"web\"), 5353 (\"dns\")",
        "replace port \"wbe\"/TCP by port \"web\"/TCP",
    );
    let protocol = "    - from: [{podSelector: {matchLabels: {app: carts}}}]\n      ports: [{port: dns}]\n";
    explained(
        &ingress(protocol),
        "shop/carts shop/api:5353/UDP",
        "port \"dns\" of shop/api is UDP; the rule allows TCP",
        "replace port \"dns\"/TCP by port \"dns\"/UDP",
    );
}

#[test]
fn protocols() {
    let rule =
        "    - from: [{podSelector: {matchLabels: {app: carts}}}]\n      ports:\n        - port: 5353\n";
    explained(
        &ingress(rule),
        "shop/carts shop/api:5353/UDP",
        "the rule allows 5353 for TCP, and the connection is UDP (m.yaml:",
        "add UDP 5353 to the ports of ingress[0]",
    );
}

#[test]
fn labels_that_are_nearly_right() {
    let port = "      ports: [{port: 8080}]\n";
    for (label, said, mended) in [
        ("app: cart", "no pod has the label app=cart: did you mean app=carts?", "by pods app=carts"),
        ("app: crats", "no pod has the label app=crats: did you mean app=carts?", "by pods app=carts"),
        ("app: Carts", "no pod has the label app=Carts: did you mean app=carts?", "by pods app=carts"),
        ("ap: carts", "no pod has the label ap=carts: did you mean app=carts?", "by pods app=carts"),
        ("app.kubernetes.io/name: carts", "did you mean app=carts?", "by pods app=carts"),
    ] {
        for style in [
            format!("    - from: [{{podSelector: {{matchLabels: {{{label}}}}}}}]\n{port}"),
            format!(
                "    - from:\n        - podSelector:\n            matchLabels:\n              {label}\n{port}"
            ),
        ] {
            explained(&ingress(&style), "shop/carts shop/api:8080", said, mended);
        }
    }
    let expression =
        "    - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [cart]}]}}]\n";
    explained(
        &ingress(&format!("{expression}{port}")),
        "shop/carts shop/api:8080",
        "did you mean app=carts?",
        "replace",
    );
}

#[test]
fn labels_of_the_workload_instead_of_its_pods() {
    let rule = "    - from: [{podSelector: {matchLabels: {part-of: shop}}}]\n      ports: [{port: 8080}]\n";
    explained(
        &ingress(rule),
        "shop/carts shop/api:8080",
        "Deployment shop/carts has part-of=shop, but its pod template has not: policies match the labels of pods (m.yaml:",
        "add part-of=shop to the pod template of Deployment shop/carts",
    );
    // The policy that should allow the connection selects labels that only the object has.
    let subject = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: allow, namespace: shop}\nspec:\n  \
                   podSelector: {matchLabels: {tier: backend}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: carts}}}]}]\n";
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), format!("{BASE}{DENY}{subject}")).unwrap();
    let (_, text) = here(dir.path(), "explain shop/carts shop/api:8080 -f m.yaml");
    assert!(
        text.starts_with("cause: Deployment shop/api has tier=backend, but its pod template has not"),
        "{text}"
    );
    assert!(text.contains("add tier=backend to the pod template of Deployment shop/api"), "{text}");
}

#[test]
fn labels_of_namespaces() {
    let pods = "podSelector: {matchLabels: {app.kubernetes.io/name: prometheus}}";
    let port = "      ports: [{port: 8080}]\n";
    for (label, said, mended) in [
        (
            "name: monitoring",
            "no namespace has the label name=monitoring; the name of a namespace is its label kubernetes.io/metadata.name",
            "namespaces kubernetes.io/metadata.name=monitoring",
        ),
        (
            "team: plattform",
            "no namespace has the label team=plattform: did you mean team=platform?",
            "team=platform",
        ),
        (
            "kubernetes.io/metadata.name: monitorng",
            "did you mean kubernetes.io/metadata.name=monitoring?",
            "kubernetes.io/metadata.name=monitoring",
        ),
    ] {
        let one = format!(
            "    - from:\n        - namespaceSelector:\n            matchLabels:\n              {label}\n          {pods}\n{port}"
        );
        explained(&ingress(&one), "monitoring/prometheus shop/api:8080", said, mended);
        let flow =
            format!("    - from: [{{namespaceSelector: {{matchLabels: {{{label}}}}}, {pods}}}]\n{port}");
        explained(&ingress(&flow), "monitoring/prometheus shop/api:8080", said, mended);
    }
}

#[test]
fn a_namespace_of_which_only_the_name_is_known() {
    let text = "
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: front}, spec: {containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}]}]}
";
    let cause = "cause: no namespace has the label team=web; namespace front has no labels, or its manifest is missing";
    let labelled = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: front, labels: {tier: front}}}\n";
    for (more, is_said) in [("", true), (labelled, false)] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("m.yaml"), format!("{text}{more}")).unwrap();
        let (_, text) = here(dir.path(), "explain front/web shop/db:5432 -f m.yaml");
        assert_eq!(text.contains(cause), is_said, "{text}");
    }
}

#[test]
fn a_pod_selector_alone() {
    let rule = "    - from:\n        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: prometheus\n      ports: [{port: 8080}]\n";
    explained(
        &ingress(rule),
        "monitoring/prometheus shop/api:8080",
        "podSelector without namespaceSelector selects pods of namespace shop only; monitoring/prometheus is in namespace monitoring",
        "by pods app.kubernetes.io/name=prometheus of namespaces kubernetes.io/metadata.name=monitoring",
    );
}

#[test]
fn policy_types_without_a_direction() {
    for types in ["policyTypes: [Ingress]", "policyTypes:\n    - Ingress"] {
        let policies = format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: deny-out, namespace: shop}}\nspec: \
             {{podSelector: {{}}, policyTypes: [Egress]}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: carts, namespace: shop}}\nspec:\n  podSelector: {{matchLabels: {{app: carts}}}}\n  {types}\n  \
             egress:\n    - to: [{{podSelector: {{matchLabels: {{app: api}}}}}}]\n      ports: [{{port: 8080}}]\n"
        );
        explained(
            &policies,
            "shop/carts shop/api:8080",
            "NetworkPolicy shop/carts has egress rules, but policyTypes without Egress: they have no effect (m.yaml:",
            "add Egress to policyTypes of NetworkPolicy shop/carts",
        );
    }
}

#[test]
fn policies_that_select_nothing() {
    let rule = "  ingress: [{from: [{podSelector: {matchLabels: {app: carts}}}], ports: [{port: 8080}]}]\n";
    let policy = |namespace: &str, label: &str| {
        format!(
            "{DENY}---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: allow, namespace: {namespace}}}\n\
             spec:\n  podSelector: {{matchLabels: {{{label}}}}}\n{rule}"
        )
    };
    explained(
        &policy("shop", "app: apis"),
        "shop/carts shop/api:8080",
        "NetworkPolicy shop/allow selects no pod: no pod has the label app=apis: did you mean app=api?",
        "let NetworkPolicy shop/allow (m.yaml:",
    );
    explained(
        &policy("monitoring", "app: api"),
        "shop/carts shop/api:8080",
        "NetworkPolicy monitoring/allow selects no pod: a policy selects pods of its own namespace only, and shop/api is in namespace shop",
        "add NetworkPolicy shop/allow-carts-to-api",
    );
}

#[test]
fn host_network_and_halves() {
    let host = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 192.168.0.21}]}\n---\n\
                apiVersion: v1\nkind: Pod\nmetadata: {name: agent, namespace: monitoring, labels: {app: agent}}\nspec: {hostNetwork: \
                true, nodeName: n1, containers: [{name: c, image: x}]}\n";
    let rule = "    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: agent}}}]\n      ports: [{port: 8080}]\n";
    explained(
        &format!("{host}{}", ingress(rule)),
        "monitoring/agent shop/api:8080",
        "selectors never match host-network pods: monitoring/agent has the addresses of node n1",
        "",
    );
    let half = "    - from: [{namespaceSelector: {matchLabels: {team: platform}}, podSelector: {matchLabels: {role: scraper}}}]\n      \
                ports: [{port: 8080}]\n";
    explained(
        &ingress(half),
        "monitoring/prometheus shop/api:8080",
        "the namespace of monitoring/prometheus matches, its labels don't: the rule requires role=scraper, and no pod has them all",
        "",
    );
    let other = "    - from: [{namespaceSelector: {matchLabels: {team: store}}, podSelector: {matchLabels: {app.kubernetes.io/name: \
                 prometheus}}}]\n      ports: [{port: 8080}]\n";
    explained(
        &ingress(other),
        "monitoring/prometheus shop/api:8080",
        "the labels of monitoring/prometheus match, its namespace doesn't: the rule requires namespaces with team=store",
        "",
    );
}

/// Pods without labels can't be selected, so they get one first.
#[test]
fn pods_without_labels_get_one() {
    let job = "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: backup, namespace: shop}\nspec:\n  schedule: \"@daily\"\n  \
               jobTemplate:\n    spec:\n      template:\n        metadata: {annotations: {a: b}}\n        spec: {restartPolicy: Never, \
               containers: [{name: c, image: x}]}\n";
    let best = explained(
        &format!("{job}{DENY}"),
        "shop/backup shop/api:8080",
        "NetworkPolicy shop/default-deny isolates shop/api for ingress, and no policy has a rule that allows anything",
        "add app=backup to the pod template of CronJob shop/backup",
    );
    assert_eq!(best["edits"][1]["object"]["name"], "allow-backup-to-api");
}
