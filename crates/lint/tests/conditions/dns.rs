//! What keeps pods from the DNS of the cluster.

use super::{PODS, WEB, cluster_wide, egress, found, ingress, policy};
use palisade_lint::Level;

/// A DNS server, and the Service in front of it.
const DNS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {containers: [{name: main, image: example, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: a, port: 53, protocol: UDP}, {name: b, port: 53}]}
---
";

const PORTS: &str = "ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]";

/// Asserts the levels of what `dns-blocked` finds beside two pods and a DNS server.
#[track_caller]
fn levels(expected: &[Level], documents: &[String]) {
    let found = found("PAL031", &[&[DNS.to_owned()], documents].concat());
    let levels: Vec<Level> = found.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, expected, "{found:?} in:\n{}", documents.concat());
}

#[test]
fn pods_with_name_servers_of_their_own() {
    let pod = |dns: &str| {
        let spec = format!("spec: {{{dns}, containers: [{{name: m, image: x}}]}}");
        let labels = "labels: {app: own}";
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: own, namespace: shop, {labels}}}\n{spec}\n---\n"
        )
    };
    let workload = |dns: &str| {
        let spec = format!("spec: {{{dns}, containers: [{{name: m, image: x}}]}}");
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: own, namespace: shop}}\n\
             spec: {{selector: {{matchLabels: {{app: own}}}}, template: {{metadata: {{labels: {{app: own}}}}, {spec}}}}}\n---\n"
        )
    };
    let rule = || egress("matchLabels: {app: own}", "{to: [{podSelector: {}}]}");
    let servers = |address: &str| format!("dnsPolicy: None, dnsConfig: {{nameservers: ['{address}']}}");
    for made in [&pod as &dyn Fn(&str) -> String, &workload] {
        levels(&[Level::Warning], &[made("dnsPolicy: ClusterFirst"), rule()]);
        levels(&[Level::Warning], &[made(&servers("10.96.0.10")), rule()]);
        levels(&[], &[made(&servers("192.0.2.53")), rule()]);
        levels(&[], &[made("dnsPolicy: Default"), rule()]);
    }
}

#[test]
fn what_keeps_pods_from_dns() {
    let own = |rule: &str| egress(WEB, rule);
    let any = format!("{{{PORTS}}}");
    let to = |cidr: &str| format!("{{to: [{{ipBlock: {{cidr: {cidr}}}}}], {PORTS}}}");
    // The cluster IP is translated before policies look.
    levels(&[Level::Warning], &[own(&to("10.96.0.10/32"))]);
    levels(&[], &[own(&to("10.0.0.0/8"))]);
    levels(&[], &[own(&any)]);
    let tier = |action: &str, rest: &str| {
        let rules = format!("egress: [{{action: {action}, to: [{{namespaces: {{}}}}]{rest}}}]");
        cluster_wide(
            "c",
            "Admin",
            1,
            "namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}",
            &rules,
        )
    };
    let on = |port: u16| {
        let port = format!("{{destinationPort: {{number: {port}}}}}");
        format!(", protocols: [{{udp: {port}}}, {{tcp: {port}}}]")
    };
    levels(&[Level::Warning], &[tier("Deny", "")]);
    levels(&[Level::Warning], &[tier("Deny", &on(53)), own(&any)]);
    levels(&[], &[tier("Deny", &on(80)), own(&any)]);
    // It accepts before NetworkPolicies decide.
    levels(&[], &[tier("Accept", &on(53)), policy("q", "{podSelector: {}, policyTypes: [Egress]}")]);
    let blamed = found("PAL031", &[DNS.to_owned(), tier("Deny", &on(53)), own(&any)]);
    assert_eq!(blamed.len(), 1, "{blamed:?}");
}

#[test]
fn what_the_dns_servers_refuse() {
    let server = |rule: &str| ingress("", rule).replace("namespace: shop", "namespace: kube-system");
    let from = |namespace: &str| {
        format!(
            "{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}], {PORTS}}}"
        )
    };
    levels(&[], &[server(&from("shop"))]);
    levels(&[Level::Warning], &[server(&from("other"))]);
    levels(&[Level::Warning], &[server("")]);
    levels(&[Level::Warning], &[server(&format!("{{{}}}", PORTS.replace("53", "5353")))]);
    let denied = cluster_wide(
        "c",
        "Admin",
        1,
        "namespaces: {matchLabels: {kubernetes.io/metadata.name: kube-system}}",
        "ingress: [{action: Deny, from: [{namespaces: {}}]}]",
    );
    levels(&[Level::Warning], &[denied]);
    let some = from("shop").replace("from: [{", "from: [{podSelector: {matchLabels: {app: web}}, ");
    let found = found("PAL031", &[DNS.to_owned(), server(&some)]);
    let [(_, message)] = &found[..] else { panic!("{found:?}") };
    assert!(message.contains("does not accept UDP 53 from 1 pod, such as shop/db"), "{message}");
    assert!(PODS.contains("name: db"));
}
