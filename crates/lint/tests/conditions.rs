//! Each condition of a rule: an input in which it alone decides whether the rule finds something.

#[path = "conditions/dns.rs"]
mod dns;
#[path = "conditions/fields.rs"]
mod fields;
#[path = "conditions/kinds.rs"]
mod kinds;
#[path = "conditions/variants.rs"]
mod variants;

use palisade_lint::{Level, LintOptions, Plugin, RULES, SourceText, lint};
use palisade_manifest::{AddressPlan, Input, LoadOptions, load};

/// Two pods, `web` and `db`, in namespace shop.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: main, image: example, ports: [{containerPort: 8080, name: http}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: main, image: example, ports: [{containerPort: 5432, name: sql}]}]}
---
";

/// A Service in front of the pod `db`, with a port other than the pod's.
fn service(rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n\
         spec: {{selector: {{app: db}}, ports: [{{port: 80, targetPort: 5432}}], clusterIP: 10.96.0.20, {rest}}}\n---\n"
    )
}

fn ingress(pods: &str, rule: &str) -> String {
    policy("p", &format!("{{podSelector: {{{pods}}}, policyTypes: [Ingress], ingress: [{rule}]}}"))
}

fn egress(pods: &str, rule: &str) -> String {
    policy("p", &format!("{{podSelector: {{{pods}}}, policyTypes: [Egress], egress: [{rule}]}}"))
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

/// A cluster-wide policy for all pods of the namespaces, or for these.
fn cluster_wide(name: &str, tier: &str, priority: u32, subject: &str, rules: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{tier: {tier}, priority: {priority}, subject: {{{subject}}}, {rules}}}\n---\n"
    )
}

const DB: &str = "matchLabels: {app: db}";
const WEB: &str = "matchLabels: {app: web}";

/// The levels and messages of what a rule finds in some documents beside the two pods.
#[track_caller]
fn found(code: &str, documents: &[String]) -> Vec<(Level, String)> {
    in_text(code, &format!("{PODS}{}", documents.concat()))
}

#[track_caller]
fn in_text(code: &str, text: &str) -> Vec<(Level, String)> {
    with(code, text, None, &LoadOptions::default())
}

#[track_caller]
fn with(code: &str, text: &str, plugin: Option<Plugin>, options: &LoadOptions) -> Vec<(Level, String)> {
    let input = Input::Text { name: "all.yaml".to_owned(), text: text.to_owned() };
    let loaded = load(&[input], options);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let options = LintOptions { default_namespace: "default", plugin };
    let report = lint(&loaded, &[SourceText::new("all.yaml", text)], RULES, &options);
    let of_rule = report.findings.into_iter().filter(|finding| finding.rule.code == code);
    of_rule.map(|finding| (finding.level, finding.message)).collect()
}

/// Asserts that a rule finds something in the first documents, and nothing in the others.
#[track_caller]
fn only(code: &str, some: &[String], none: &[String]) {
    assert!(!found(code, some).is_empty(), "{code} finds nothing in:\n{}", some.concat());
    let others = found(code, none);
    assert!(others.is_empty(), "{code} finds {others:?} in:\n{}", none.concat());
}

#[test]
fn everyone_to_pods_that_hold_data() {
    let from = "{from: [{namespaceSelector: {}}]}";
    only("PAL045", &[ingress(DB, from)], &[ingress(WEB, from)]);
    let some = "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}";
    only("PAL045", &[ingress(DB, from)], &[ingress(DB, some)]);
    only("PAL048", &[ingress(DB, some)], &[ingress(DB, from)]);
}

#[test]
fn the_tunnel_of_a_mesh() {
    let ambient =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n"
            .to_owned();
    let from_web = "from: [{podSelector: {matchLabels: {app: web}}}]";
    let port = |port: u16, from: &str| format!("{{{from}, ports: [{{port: {port}, protocol: TCP}}]}}");
    let restricted = ingress(DB, &port(5432, from_web));
    let by_tier = cluster_wide(
        "c",
        "Admin",
        1,
        "namespaces: {}",
        "ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 5432}}}]}]",
    );
    only("PAL066", &[ambient.clone(), restricted], &[ambient.clone(), by_tier]);
    // Another rule counts if it admits the tunnel from the same peers, or from everyone.
    let beside = |from: &str| {
        let rules = format!("{}, {}", port(5432, from_web), port(15008, from));
        [ambient.clone(), ingress(DB, &rules)]
    };
    only("PAL066", &beside("from: [{podSelector: {matchLabels: {app: db}}}]"), &beside(from_web));
}

#[test]
fn two_items_that_were_meant_as_one() {
    let monitoring = |app: &str| {
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: mon, labels: {team: mon}}\n---\n";
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: mon, labels: {app: APP}}\nspec: {containers: [{name: m, image: x}]}\n---\n";
        format!("{namespace}{}", pod.replace("APP", app))
    };
    let two = |app: &str| {
        let peers = "{from: [{namespaceSelector: {matchLabels: {team: mon}}}, {podSelector: {matchLabels: {app: APP}}}]}";
        ingress(DB, &peers.replace("APP", app))
    };
    // The pods are there and not here; they are nowhere; they are here, too.
    only("PAL016", &[monitoring("prom"), two("prom")], &[monitoring("other"), two("prom")]);
    only("PAL016", &[monitoring("prom"), two("prom")], &[monitoring("web"), two("web")]);
}

#[test]
fn only_namespaced_policies_need_the_other_end() {
    let nothing = policy("q", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}");
    let from_web = ingress(DB, "{from: [{podSelector: {matchLabels: {app: web}}}]}");
    let same = "ingress: [{action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]";
    let by_tier = cluster_wide("c", "Admin", 1, "namespaces: {}", same);
    only("PAL033", &[nothing.clone(), from_web], &[nothing, by_tier]);
}

#[test]
fn addresses_count_in_one_direction() {
    let exposed = service("type: LoadBalancer");
    let client = "[{ipBlock: {cidr: 198.51.100.0/24}}]";
    let [from, to] = ["from", "to"].map(|word| format!("{{{word}: {client}}}"));
    only("PAL061", &[exposed.clone(), ingress(DB, &from)], &[exposed, egress(DB, &to)]);
    let own = |word: &str| format!("{{{word}: [{{ipBlock: {{cidr: 10.96.0.20/32}}}}]}}");
    let plain = service("type: ClusterIP");
    only("PAL028", &[plain.clone(), egress(WEB, &own("to"))], &[plain, ingress(WEB, &own("from"))]);
    let balanced = service("type: LoadBalancer, externalIPs: [203.0.113.9]");
    let own = |word: &str| format!("{{{word}: [{{ipBlock: {{cidr: 203.0.113.9/32}}}}]}}");
    only("PAL062", &[balanced.clone(), egress(WEB, &own("to"))], &[balanced, ingress(WEB, &own("from"))]);
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.11}]}\n---\n".to_owned();
    let own = |word: &str| format!("{{{word}: [{{ipBlock: {{cidr: 192.0.2.11/32}}}}]}}");
    only("PAL038", &[node.clone(), ingress(DB, &own("from"))], &[node, egress(DB, &own("to"))]);
}

#[test]
fn an_exception_is_voided_on_the_same_ports() {
    let rules = |port: u16| {
        ingress(
            DB,
            &format!(
                "{{from: [{{ipBlock: {{cidr: 192.0.2.0/24, except: [192.0.2.0/28]}}}}], ports: [{{port: 5432, protocol: TCP}}]}}, \
                 {{from: [{{ipBlock: {{cidr: 192.0.2.0/28}}}}], ports: [{{port: {port}, protocol: TCP}}]}}"
            ),
        )
    };
    only("PAL059", &[rules(5432)], &[rules(80)]);
}

#[test]
fn egress_to_everywhere() {
    let all = "{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}";
    let but = |except: &str| format!("{{to: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{except}]}}}}]}}");
    let on = |port: u16| all.replace("]}", &format!("], ports: [{{port: {port}, protocol: TCP}}]}}"));
    only("PAL042", &[egress(WEB, all)], &[egress(WEB, &but("10.0.0.0/8"))]);
    only("PAL042", &[egress(WEB, all)], &[egress(WEB, &on(443))]);
    // The metadata service answers on port 80.
    only("PAL043", &[egress(WEB, &on(80))], &[egress(WEB, &on(443))]);
    only("PAL043", &[egress(WEB, all)], &[egress(WEB, "{to: [{ipBlock: {cidr: 169.254.169.254/32}}]}")]);
}

#[test]
fn what_an_open_rule_voids_is_named_in_order() {
    let open = policy("open", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}");
    let some = |name: &str, pods: &str| {
        let rule = "ingress: [{from: [{podSelector: {matchLabels: {app: x}}}]}]";
        policy(name, &format!("{{podSelector: {{{pods}}}, policyTypes: [Ingress], {rule}}}"))
    };
    for pods in [[WEB, DB], [DB, WEB]] {
        let voided = found("PAL020", &[open.clone(), some("a", pods[0]), some("b", pods[1])]);
        assert!(voided.len() == 1 && voided[0].1.contains("shop/a changes nothing"), "{voided:?}");
    }
}

#[test]
fn blocks_and_the_pods_in_them() {
    let pod = |phase: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: job, namespace: shop}}\nspec: {{containers: [{{name: m, image: x}}]}}\n\
             status: {{phase: {phase}, podIP: 10.1.2.3}}\n---\n"
        )
    };
    let block = ingress(DB, "{from: [{ipBlock: {cidr: 10.1.2.0/24}}]}");
    only("PAL029", &[pod("Running"), block.clone()], &[pod("Succeeded"), block]);
    // Whatever stands for an address that is not known yet is in no block.
    let halves = ingress(DB, "{from: [{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}]}");
    let placed = LoadOptions { addresses: Some(AddressPlan::default()), ..LoadOptions::default() };
    assert_eq!(with("PAL029", &format!("{PODS}{halves}"), None, &placed), []);
}

#[test]
fn one_family_of_two() {
    let node = |addresses: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: one}}\nstatus: {{addresses: [{addresses}]}}\n---\n"
        )
    };
    let v4 = "{type: InternalIP, address: 192.0.2.11}";
    let both = format!("{v4}, {{type: InternalIP, address: '2001:db8::11'}}");
    let all = ingress(DB, "{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}");
    only("PAL044", &[node(&both), all.clone()], &[node(v4), all]);
}

#[test]
fn port_names() {
    let named = ingress(DB, "{ports: [{port: grpc, protocol: TCP}]}");
    let levels =
        |text: &str| in_text("PAL024", &format!("{text}{named}")).into_iter().map(|(level, _)| level);
    assert_eq!(levels(PODS).collect::<Vec<_>>(), [Level::Warning]);
    // Without declared ports, containers may still listen.
    let undeclared = PODS.replace(", ports: [{containerPort: 5432, name: sql}]", "");
    assert_ne!(undeclared, PODS);
    assert_eq!(levels(&undeclared).collect::<Vec<_>>(), [Level::Note]);
    let block = |word: &str, port: &str| {
        format!("{{{word}: [{{ipBlock: {{cidr: 192.0.2.0/24}}}}], ports: [{{port: {port}, protocol: TCP}}]}}")
    };
    only("PAL026", &[egress(DB, &block("to", "sql"))], &[ingress(DB, &block("from", "sql"))]);
}

#[test]
fn ports_that_nothing_listens_on() {
    let ports = |ports: &str| ingress(DB, &format!("{{ports: [{{{ports}, protocol: TCP}}]}}"));
    only("PAL030", &[ports("port: 9000")], &[ports("port: 5430, endPort: 5440")]);
    let undeclared = PODS.replace(", ports: [{containerPort: 5432, name: sql}]", "");
    assert_eq!(in_text("PAL030", &format!("{undeclared}{}", ports("port: 9000"))), []);
    only("PAL046", &[ports("port: 5432, endPort: 5440")], &[ports("port: 5433, endPort: 5440")]);
    only("PAL046", &[ports("port: 5432")], &[egress(DB, "{ports: [{port: 5432, protocol: TCP}]}")]);
    only("PAL036", &[ports("port: 32768, endPort: 60999")], &[ports("port: 32768, endPort: 60998")]);
    only("PAL047", &[ports("port: 2000, endPort: 3000")], &[ports("port: 2000, endPort: 2999")]);
    only("PAL047", &[ports("port: 2000, endPort: 3000")], &[ingress(DB, "{ports: [{protocol: TCP}]}")]);
}

#[test]
fn a_port_without_protocol_beside_the_other_protocol() {
    let level = |ports: &str| {
        let found = found("PAL005", &[egress(WEB, &format!("{{ports: [{ports}]}}"))]);
        found.into_iter().map(|(level, _)| level).collect::<Vec<_>>()
    };
    assert_eq!(level("{port: 53}"), [Level::Warning]);
    assert_eq!(level("{port: 53}, {port: 53, protocol: UDP}"), [Level::Note]);
    assert_eq!(level("{port: 80}"), [Level::Note]);
}

#[test]
fn a_rule_for_dns_after_one_for_peers() {
    let rules = |port: u16| {
        egress(
            WEB,
            &format!(
                "{{to: [{{podSelector: {{matchLabels: {{app: db}}}}}}]}}, {{ports: [{{port: {port}, protocol: UDP}}]}}"
            ),
        )
    };
    only("PAL017", &[rules(5432)], &[rules(53)]);
}

#[test]
fn the_port_of_a_service_in_front_of_host_network_pods() {
    let host = |network: bool| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: db-2, namespace: shop, labels: {{app: db, kind: two}}}}\n\
             spec: {{hostNetwork: {network}, containers: [{{name: m, image: x, ports: [{{containerPort: 5432}}]}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: two, namespace: shop}}\n\
             spec: {{selector: {{kind: two}}, ports: [{{port: 80, targetPort: 5432}}]}}\n---\n"
        )
    };
    let to =
        egress(WEB, "{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80, protocol: TCP}]}");
    only("PAL027", &[host(false), to.clone()], &[host(true), to]);
}

#[test]
fn what_leads_to_pods_from_outside() {
    let all = ingress(DB, "{}");
    only("PAL041", &[service("type: ClusterIP"), all.clone()], &[service("externalIPs: [203.0.113.9]"), all]);
    let all = ingress(WEB, "{}");
    let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-2, namespace: shop, labels: {app: web}}\n\
                spec: {containers: [{name: m, image: x, ports: [{containerPort: 8080, hostPort: 80}]}]}\n---\n";
    only("PAL041", std::slice::from_ref(&all), &[host.to_owned(), all.clone()]);
}

#[test]
fn who_is_isolated() {
    let deny = |subject: &str, rest: &str| {
        let rules = format!(
            "ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]{rest}}}], egress: [{{action: Deny, to: [{{namespaces: {{}}}}]{rest}}}]"
        );
        cluster_wide("c", "Baseline", 1, subject, &rules)
    };
    let all = "namespaces: {}";
    let some = "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}";
    only("PAL040", &[deny(some, "")], &[deny(all, "")]);
    let on_port = ", protocols: [{tcp: {destinationPort: {number: 80}}}]";
    only("PAL040", &[deny(all, on_port)], &[deny(all, "")]);
    // A policy before the NetworkPolicies isolates nothing.
    let accept = |tier: &str| {
        let rules = "ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]";
        cluster_wide("c", tier, 1, all, rules)
    };
    only("PAL039", &[accept("Admin")], &[accept("Baseline")]);
}

#[test]
fn a_later_rule_for_more_pods_is_reached() {
    let rule = "ingress: [{name: x, action: Deny, from: [{namespaces: {}}]}]";
    let all = "namespaces: {}";
    let some = "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}";
    let two = |first: &str, second: &str| {
        [cluster_wide("a", "Admin", 1, first, rule), cluster_wide("b", "Admin", 2, second, rule)]
    };
    only("PAL052", &two(all, some), &two(some, all));
}

#[test]
fn of_two_policies_that_deny_the_same_one_is_redundant() {
    let deny = |name: &str| policy(name, &format!("{{podSelector: {{{DB}}}, policyTypes: [Ingress]}}"));
    assert_eq!(found("PAL051", &[deny("a"), deny("b")]).len(), 1);
}

#[test]
fn labels_of_dns_servers_count_for_egress() {
    let server = "apiVersion: v1\nkind: Pod\nmetadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}\n\
                  spec: {containers: [{name: m, image: x, ports: [{containerPort: 53, name: dns, protocol: UDP}]}]}\n---\n";
    let rule = |word: &str| {
        format!(
            "{{{word}: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: kube-system}}}}, \
             podSelector: {{matchLabels: {{k8s-app: kubedns}}}}}}], ports: [{{port: 53, protocol: UDP}}]}}"
        )
    };
    let server = server.to_owned();
    only("PAL032", &[server.clone(), egress(WEB, &rule("to"))], &[server, ingress(WEB, &rule("from"))]);
}

#[test]
fn hosts_of_every_customer_of_a_provider() {
    let names = |name: &str| {
        let rules = format!("egress: [{{action: Accept, to: [{{domainNames: ['{name}']}}]}}]");
        cluster_wide("c", "Admin", 1, "namespaces: {}", &rules)
    };
    // A region, or a bucket that looks a little like one.
    only("PAL069", &[names("*.s3.eu-west-1.amazonaws.com")], &[names("*.s3.shop-1.amazonaws.com")]);
    // The end of a name is not the end of a label.
    only("PAL069", &[names("*.windows.net")], &[names("*.dows.net")]);
}

#[test]
fn a_policy_that_a_plugin_ignores_is_found_once() {
    let rules = "ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 90}}}}]}]";
    let text = format!("{PODS}{}", cluster_wide("c", "Admin", 1, "namespaces: {}", rules));
    let found = with("PAL053", &text, Some(Plugin::Weave), &LoadOptions::default());
    assert!(found.len() == 1 && found[0].1.contains("ignores cluster-wide policies"), "{found:?}");
}

#[test]
fn a_successor_is_named_unless_both_are_there() {
    let old = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: old}\n\
               spec: {priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\n---\n"
        .to_owned();
    let new = cluster_wide(
        "c",
        "Admin",
        2,
        "namespaces: {}",
        "ingress: [{action: Deny, from: [{namespaces: {}}]}]",
    );
    let successors = |documents: &[String]| {
        found("PAL014", documents).iter().filter(|(_, message)| message.contains("has a successor")).count()
    };
    assert_eq!((successors(std::slice::from_ref(&old)), successors(&[old, new])), (1, 0));
}
