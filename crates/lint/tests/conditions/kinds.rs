//! What rules find in other kinds and other styles than those of their examples.

use palisade_lint::{Level, fixed};

use super::{
    DB, PODS, WEB, egress, found, in_text, policy, service,
    variants::{findings_in, on},
};

/// The levels that a rule finds in documents beside the two pods.
fn levels(code: &str, documents: &[&str]) -> Vec<Level> {
    let documents: Vec<String> = documents.iter().map(|one| (*one).to_owned()).collect();
    found(code, &documents).into_iter().map(|(level, _)| level).collect()
}

fn cron_job(labels: &str, of_jobs: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: report, namespace: shop{labels}}}\n\
         spec: {{schedule: '@daily', jobTemplate: {{{of_jobs}spec: {{template: {{metadata: {{labels: {{app: report}}}}, \
         spec: {{containers: [{{name: main, image: example}}]}}}}}}}}}}\n---\n"
    )
}

#[test]
fn labels_of_jobs_are_none_of_pods() {
    let tier = "matchLabels: {tier: batch}";
    let on_jobs = cron_job("", "metadata: {labels: {tier: batch}}, ");
    let on_object = cron_job(", labels: {tier: batch}", "");
    let subject = policy("p", &format!("{{podSelector: {{{tier}}}, policyTypes: [Ingress]}}"));
    let peer = egress(WEB, &format!("{{to: [{{podSelector: {{{tier}}}}}]}}"));
    for (documents, words) in [
        ([&on_jobs, &subject], "the jobTemplate of CronJob shop/report has the labels tier=batch"),
        ([&on_jobs, &peer], "the jobTemplate of CronJob shop/report has the labels tier=batch"),
        ([&on_object, &subject], "CronJob shop/report has the labels tier=batch"),
    ] {
        let found = found("PAL054", &documents.map(Clone::clone));
        assert_eq!(found.len(), 1, "{documents:?}");
        assert!(found[0].1.starts_with(words), "{found:?}");
    }
    let json = r#"{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report", "namespace": "shop"},
        "spec": {"schedule": "@daily", "jobTemplate": {"metadata": {"labels": {"tier": "batch"}},
        "spec": {"template": {"spec": {"containers": []}}}}}}"#;
    assert_eq!(levels("PAL054", &[&format!("{json}\n---\n"), &subject]), [Level::Warning]);
    let both = cron_job("", "metadata: {labels: {tier: batch}}, ").replace("app: report", "tier: batch");
    assert_eq!(levels("PAL054", &[&both, &subject]), []);
}

#[test]
fn port_names_of_egress_rules_without_peers() {
    let rule =
        |name: &str, more: &str| egress(WEB, &format!("{{{more}ports: [{{port: {name}, protocol: TCP}}]}}"));
    // A pod that is not in the input may have the name.
    assert_eq!(levels("PAL024", &[&rule("grpc", "")]), [Level::Note]);
    assert_eq!(levels("PAL024", &[&rule("sql", "")]), []);
    // A pod has it, with the other protocol.
    assert_eq!(levels("PAL024", &[&rule("sql", "").replace("TCP", "UDP")]), [Level::Warning]);
    // An address has no names of ports, so it changes nothing.
    let with_block = "to: [{podSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}], ";
    assert_eq!(levels("PAL024", &[&rule("grpc", with_block)]), [Level::Warning]);
    assert_eq!(levels("PAL024", &[&rule("sql", with_block)]), []);
    let two = PODS.replace("name: sql", "name: http");
    assert_eq!(in_text("PAL025", &format!("{two}{}", rule("http", ""))).len(), 1);
    assert_eq!(in_text("PAL024", &format!("{two}{}", rule("http", ""))), []);
}

#[test]
fn addresses_of_load_balancers_and_node_ports() {
    let balancer = service("type: LoadBalancer, loadBalancerIP: 203.0.113.9");
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.11}]}\n---\n";
    let to = |cidr: &str, port: u16| {
        egress(
            WEB,
            &format!("{{to: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: {port}, protocol: TCP}}]}}"),
        )
    };
    for (cidr, expected) in [
        ("203.0.113.9/32", &[Level::Warning][..]),
        ("203.0.113.0/24", &[Level::Warning]),
        ("203.0.0.0/16", &[Level::Note]),
        ("203.0.113.16/28", &[]),
        // There the block has what it may be meant for, and a wide one is about more than one Service.
        ("200.0.0.0/8", &[]),
        ("0.0.0.0/0", &[]),
    ] {
        assert_eq!(levels("PAL062", &[&balancer, &to(cidr, 443)]), expected, "{cidr}");
    }
    let except = to("203.0.113.0/24, except: [203.0.113.8/31]", 443);
    assert_eq!(levels("PAL062", &[&balancer, &except]), []);

    let exposed = service("type: NodePort").replace("port: 80,", "port: 80, nodePort: 30080,");
    for (cidr, port, expected) in [
        ("192.0.2.11/32", 30_080, &[Level::Warning][..]),
        ("192.0.2.0/24", 30_080, &[Level::Warning]),
        ("192.0.2.0/24", 30_081, &[]),
        ("198.51.100.0/24", 30_080, &[]),
        ("0.0.0.0/0", 30_080, &[]),
    ] {
        assert_eq!(levels("PAL062", &[&exposed, node, &to(cidr, port)]), expected, "{cidr} {port}");
    }
    let nodes = super::cluster_wide(
        "c",
        "Admin",
        1,
        "namespaces: {}",
        &format!("egress: [{{action: Accept, to: [{{nodes: {{}}}}]{}}}]", on("{number: 30080}")),
    );
    assert_eq!(levels("PAL062", &[&exposed, node, &nodes]), [Level::Warning]);
}

#[test]
fn ports_without_a_protocol_in_v1alpha1_policies() {
    let of = |kind: &str, name: &str, priority: &str, ports: &str| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n\
             spec: {{{priority}subject: {{namespaces: {{}}}}, ingress: [{{action: Allow, from: [{{namespaces: {{}}}}], ports: [{ports}]}}]}}\n---\n"
        )
    };
    for (kind, name, priority) in
        [("AdminNetworkPolicy", "a", "priority: 1, "), ("BaselineAdminNetworkPolicy", "default", "")]
    {
        let levels = |ports: &str| levels("PAL005", &[&of(kind, name, priority, ports)]);
        assert_eq!(levels("{portNumber: {port: 53}}"), [Level::Warning]);
        assert_eq!(levels("{portNumber: {port: 53, protocol: null}}"), [Level::Warning]);
        assert_eq!(
            levels("{portNumber: {port: 53}}, {portNumber: {port: 53, protocol: UDP}}"),
            [Level::Note]
        );
        assert_eq!(levels("{portRange: {start: 53, end: 60}}"), [Level::Note]);
        assert_eq!(levels("{portNumber: {port: 53, protocol: UDP}}, {namedPort: dns}"), []);
    }
    let list = format!(
        "apiVersion: v1\nkind: List\nitems: [{{{}}}]\n",
        "apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: a}, spec: {priority: 1, \
         subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}], ports: [{portNumber: {port: 53}}]}]}"
    );
    let found = in_text("PAL005", &list);
    assert!(found[0].1.ends_with("so the rule doesn't match UDP port 53"), "{found:?}");
}

/// The styles in which the spec of a policy is written, and what each becomes.
#[test]
fn fields_are_inserted_in_the_style_of_the_mapping() {
    let head =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n";
    let json = "{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {\"name\": \"p\", \"namespace\": \"shop\"}, ";
    for (code, before, after) in [
        ("PAL001", "spec: {podSelector: {}}\n", "spec: {policyTypes: [Ingress], podSelector: {}}\n"),
        (
            "PAL001",
            "spec: { podSelector: {}, egress: [{}] }\n",
            "spec: { policyTypes: [Ingress, Egress], podSelector: {}, egress: [{}] }\n",
        ),
        (
            "PAL001",
            "spec: {\n  podSelector: {},\n  ingress: [] }\n",
            "spec: {\n  policyTypes: [Ingress],\n  podSelector: {},\n  ingress: [] }\n",
        ),
        (
            "PAL001",
            "spec: { # every pod\n  podSelector: {} }\n",
            "spec: { # every pod\n  policyTypes: [Ingress],\n  podSelector: {} }\n",
        ),
        (
            "PAL001",
            "spec: &own {podSelector: {}}\n",
            "spec: &own {policyTypes: [Ingress], podSelector: {}}\n",
        ),
        (
            "PAL001",
            "spec: &own\n  podSelector: {}\n",
            "spec: &own\n  policyTypes: [Ingress]\n  podSelector: {}\n",
        ),
        ("PAL013", "spec: {}\n", "spec: {podSelector: {}}\n"),
        ("PAL013", "spec: {policyTypes: [Ingress]}\n", "spec: {podSelector: {}, policyTypes: [Ingress]}\n"),
    ] {
        assert_fixed(code, &format!("{head}{before}"), &format!("{head}{after}"));
        let other = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        assert_fixed(code, &format!("{head}{before}{other}"), &format!("{head}{after}{other}"));
    }
    for (code, before, after) in [
        (
            "PAL001",
            "\"spec\": {\"podSelector\": {}}}",
            "\"spec\": {\"policyTypes\": [\"Ingress\"], \"podSelector\": {}}}",
        ),
        (
            "PAL001",
            "\"spec\": {\n    \"podSelector\": {}\n  }\n}\n",
            "\"spec\": {\n    \"policyTypes\": [\"Ingress\"],\n    \"podSelector\": {}\n  }\n}\n",
        ),
        ("PAL013", "\"spec\": {}}", "\"spec\": {\"podSelector\": {}}}"),
        (
            "PAL013",
            "\"spec\": {\"policyTypes\": [\"Ingress\"]}}",
            "\"spec\": {\"podSelector\": {}, \"policyTypes\": [\"Ingress\"]}}",
        ),
    ] {
        assert_fixed(code, &format!("{json}{before}"), &format!("{json}{after}"));
    }
}

#[track_caller]
fn assert_fixed(code: &str, before: &str, after: &str) {
    let found = findings_in(code, before);
    assert_eq!(fixed(before, found.iter().filter_map(|f| f.fix.as_ref())), (after.to_owned(), 1), "{before}");
    assert!(findings_in(code, after).is_empty(), "{after}");
}

/// A field in what other policies merge would be one of theirs, too.
#[test]
fn what_is_merged_gets_no_field() {
    let item = |name: &str, spec: &str| {
        format!(
            "- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {{name: {name}, namespace: shop}}\n  spec: {spec}\n"
        )
    };
    let list = |items: &[String]| format!("apiVersion: v1\nkind: List\nitems:\n{}", items.concat());
    let merged = list(&[item("p", "&own {podSelector: {}}"), item("q", "{<<: *own, egress: [{}]}")]);
    let found = findings_in("PAL001", &merged);
    let expected = merged.replace("{<<: *own, egress", "{<<: *own, policyTypes: [Ingress, Egress], egress");
    assert_eq!(fixed(&merged, found.iter().filter_map(|f| f.fix.as_ref())), (expected, 1));
    // What is the same for both is written once.
    let shared = list(&[item("p", "&own {podSelector: {}}"), item("q", "*own")]);
    let found = findings_in("PAL001", &shared);
    let expected = shared.replace("&own {", "&own {policyTypes: [Ingress], ");
    assert_eq!(fixed(&shared, found.iter().filter_map(|f| f.fix.as_ref())), (expected, 1));
}

#[test]
fn the_port_of_the_tunnel_is_inserted_in_the_style_of_the_list() {
    let ambient = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n";
    let one = "{port: 5432, protocol: TCP}";
    let text = |ports: &str| {
        format!(
            "{PODS}{ambient}{}",
            policy(
                "p",
                &format!("{{podSelector: {{{DB}}}, policyTypes: [Ingress], ingress: [{{ports: {ports}}}]}}")
            )
        )
    };
    let before = text(&format!("[{one}]"));
    let after = text(&format!("[{{port: 15008, protocol: TCP}}, {one}]"));
    assert_fixed("PAL066", &before, &after);
    let json = |ports: &str| {
        format!(
            "{PODS}{ambient}{{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {{\"name\": \"p\", \"namespace\": \"shop\"}}, \
             \"spec\": {{\"podSelector\": {{}}, \"policyTypes\": [\"Ingress\"], \"ingress\": [{{\"ports\": [\n  {ports}\n]}}]}}}}\n"
        )
    };
    let one = "{\"port\": 5432, \"protocol\": \"TCP\"}";
    let after = json(&format!("{{\"port\": 15008, \"protocol\": \"TCP\"}},\n  {one}"));
    assert_fixed("PAL066", &json(one), &after);
}
