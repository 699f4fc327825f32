//! Other ways to make the mistake of a rule than its bad example, and what looks like it and is right.

use super::{DB, PODS, WEB, cluster_wide, egress, ingress, policy, service};
use palisade_lint::{Finding, Level, LintOptions, RULES, SourceText, fixed, lint};
use palisade_manifest::{Input, LoadOptions, load};

/// What a rule finds in documents beside the two pods, which may be refused.
fn findings(code: &str, documents: &str) -> Vec<Finding> {
    findings_in(code, &format!("{PODS}{documents}"))
}

pub(super) fn findings_in(code: &str, text: &str) -> Vec<Finding> {
    let loaded =
        load(&[Input::Text { name: "all.yaml".to_owned(), text: text.to_owned() }], &LoadOptions::default());
    let options = LintOptions { default_namespace: "default", plugin: None };
    let report = lint(&loaded, &[SourceText::new("all.yaml", text)], RULES, &options);
    report.findings.into_iter().filter(|finding| finding.rule.code == code).collect()
}

/// Asserts the levels of what rules find: `""` for nothing, else `e`, `w` and `n`.
#[track_caller]
fn table(rows: &[(&str, &str, String)]) {
    for (code, levels, documents) in rows {
        let found = findings(code, documents);
        let letter = |finding: &Finding| finding.level.as_str().chars().next();
        let messages: Vec<&str> = found.iter().map(|f| &*f.message).collect();
        assert_eq!(
            found.iter().filter_map(letter).collect::<String>(),
            *levels,
            "{code}: {messages:?}\n{documents}"
        );
        assert!(found.iter().all(|f| f.origin.is_some() && f.object.is_some()), "{found:?}");
    }
}

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n")
}

fn admin(rules: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {{name: a}}\n\
         spec: {{priority: 1, subject: {{namespaces: {{}}}}, {rules}}}\n---\n"
    )
}

/// A cluster-wide policy with one rule.
fn tier(direction: &str, action: &str, peer: &str, more: &str) -> String {
    let word = if direction == "ingress" { "from" } else { "to" };
    let rules = format!("{direction}: [{{action: {action}, {word}: [{peer}]{more}}}]");
    cluster_wide("c", "Admin", 1, "namespaces: {}", &rules)
}

pub(super) fn on(port: &str) -> String {
    format!(", protocols: [{{tcp: {{destinationPort: {port}}}}}]")
}

fn block(cidr: &str) -> String {
    format!("{{ipBlock: {{cidr: {cidr}}}}}")
}

#[test]
fn what_the_api_server_refuses_in_every_kind_of_policy() {
    let except = |cidr: &str, list: &str| {
        ingress(DB, &format!("{{from: [{}]}}", block(&format!("{cidr}, except: [{list}]"))))
    };
    table(&[
        ("PAL006", "e", tier("ingress", "Accept", "{}", "")),
        ("PAL006", "e", admin("egress: [{action: Allow, to: [{}]}]")),
        ("PAL007", "e", tier("egress", "Accept", "{networks: [192.0.2.0/24], namespaces: {}}", "")),
        ("PAL008", "e", ingress(DB, &format!("{{from: [{}]}}", block("10.0.0.0/33")))),
        ("PAL008", "w", ingress(DB, &format!("{{from: [{}]}}", block("10.0.0.7/8")))),
        ("PAL008", "e", tier("egress", "Accept", "{networks: [192.0.2.0]}", "")),
        ("PAL008", "e", except("10.0.0.0/8", "'fd00::/8'")),
        ("PAL009", "", except("10.0.0.0/8", "'fd00::/8'")),
        ("PAL009", "e", except("10.0.0.0/16", "10.0.0.0/8")),
        ("PAL009", "w", except("10.0.0.0/8", "10.1.2.0/24, 10.1.0.0/16")),
        ("PAL009", "w", except("10.0.0.0/8", "10.1.0.0/16, 10.1.0.0/16")),
        ("PAL009", "e", except("10.0.0.0/8", "10.0.0.0/9, 10.128.0.0/9")),
        ("PAL009", "", except("10.0.0.0/8", "10.1.0.0/16, 10.2.0.0/16")),
        ("PAL010", "e", tier("ingress", "Accept", "{namespaces: {}}", &on("{range: {start: 9, end: 3}}"))),
        (
            "PAL010",
            "e",
            admin(
                "ingress: [{action: Allow, from: [{namespaces: {}}], ports: [{portRange: {start: 9, end: 3}}]}]",
            ),
        ),
        ("PAL011", "e", tier("ingress", "Accept", "{namespaces: {}}", &on("{number: 70000}"))),
        ("PAL011", "e", egress(WEB, "{ports: [{port: 80, protocol: tcp}]}")),
        (
            "PAL012",
            "e",
            admin(
                "ingress: [{action: Allow, from: [{namespaces: {matchExpressions: [{key: a, operator: In}]}}]}]",
            ),
        ),
        (
            "PAL026",
            "e",
            tier(
                "egress",
                "Accept",
                "{networks: [192.0.2.0/24]}",
                ", protocols: [{destinationNamedPort: http}]",
            ),
        ),
        (
            "PAL026",
            "w",
            egress(
                WEB,
                "{to: [{podSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: sql, protocol: TCP}]}",
            ),
        ),
    ]);
    let unusable = findings(
        "PAL012",
        &admin(
            "ingress: [{action: Allow, from: [{namespaces: {matchExpressions: [{key: a, operator: In}]}}]}]",
        ),
    );
    assert!(!unusable[0].message.contains("API server rejects"), "it admits it: {}", unusable[0].message);
}

#[test]
fn what_is_left_out_or_written_without_a_value() {
    let own = |metadata: &str, spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{metadata}}}\n{spec}\n---\n"
        )
    };
    table(&[
        ("PAL001", "w", policy("p", "{podSelector: {}, policyTypes: [], egress: []}")),
        ("PAL003", "n", own(", namespace: ''", "spec: {podSelector: {}, policyTypes: [Ingress]}")),
        ("PAL003", "", tier("ingress", "Deny", "{namespaces: {}}", "")),
        ("PAL013", "w", own(", namespace: shop", "spec: {}")),
        ("PAL013", "w", own(", namespace: shop", "")),
        ("PAL019", "w", ingress(DB, "{from: [{podSelector: {}}], ports: []}")),
        ("PAL019", "", policy("p", "{podSelector: {}, policyTypes: [Ingress], ingress: []}")),
        ("PAL005", "w", egress(WEB, "{ports: [{port: 51820}]}")),
    ]);
    // The value is written where the key is: a second key would be an error.
    for (code, fields, result) in [
        (
            "PAL013",
            "  podSelector:\n  policyTypes: [Ingress]\n",
            "  podSelector: {}\n  policyTypes: [Ingress]\n",
        ),
        (
            "PAL013",
            "  podSelector: ~\n  policyTypes: [Ingress]\n",
            "  podSelector: {}\n  policyTypes: [Ingress]\n",
        ),
        (
            "PAL001",
            "  podSelector: {}\n  policyTypes:\n  egress: []\n",
            "  podSelector: {}\n  policyTypes: [Ingress]\n  egress: []\n",
        ),
        (
            "PAL001",
            "  podSelector: {}\n  policyTypes: []\n  egress: [{}]\n",
            "  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  egress: [{}]\n",
        ),
    ] {
        let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n";
        let text = format!("{head}{fields}");
        let found = findings_in(code, &text);
        let (text, made) = fixed(&text, found.iter().filter_map(|f| f.fix.as_ref()));
        assert_eq!((text, made), (format!("{head}{result}"), 1));
    }
}

#[test]
fn what_is_corrected_in_json_stays_json() {
    let json = |api: &str, rest: &str| {
        format!(
            "{{\"apiVersion\": \"{api}\", \"kind\": \"NetworkPolicy\", \"metadata\": {{\"name\": \"p\", \"namespace\": \"shop\"}}, \"spec\": {{{rest}}}}}"
        )
    };
    let v1 = "networking.k8s.io/v1";
    let pods = "\"podSelector\": {\"matchLabels\": {\"k\": \"APP\"}}, \"policyTypes\": [\"Ingress\"]";
    let pod = "\n---\n{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"w\", \"namespace\": \"shop\", \"labels\": {\"k\": \"frontend\"}}, \"spec\": {\"containers\": []}}\n";
    for (code, before, after) in [
        ("PAL014", json("extensions/v1beta1", pods), json(v1, pods)),
        ("PAL056", json("networking/v1", pods), json(v1, pods)),
        (
            "PAL037",
            json(v1, &pods.replace("APP", "frontned")) + pod,
            json(v1, &pods.replace("APP", "frontend")) + pod,
        ),
        (
            "PAL001",
            json(v1, "\"podSelector\": {}, \"policyTypes\": null, \"egress\": [{}]"),
            json(v1, "\"podSelector\": {}, \"policyTypes\": [\"Ingress\", \"Egress\"], \"egress\": [{}]"),
        ),
    ] {
        let found = findings_in(code, &before);
        assert_eq!(fixed(&before, found.iter().filter_map(|f| f.fix.as_ref())), (after, 1), "{code}");
    }
}

#[test]
fn rules_that_deny_expose_nothing() {
    let everything = "{networks: [0.0.0.0/0, '::/0']}";
    let wide = on("{range: {start: 32768, end: 65535}}");
    let peer = "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}";
    for (code, direction, peer, more) in [
        ("PAL036", "egress", "{namespaces: {}}", &*wide),
        ("PAL042", "egress", everything, ""),
        ("PAL043", "egress", everything, ""),
        ("PAL045", "ingress", "{namespaces: {}}", ""),
        ("PAL047", "egress", "{namespaces: {}}", &*wide),
        ("PAL048", "ingress", peer, ""),
    ] {
        assert!(!findings(code, &tier(direction, "Accept", peer, more)).is_empty(), "{code}");
        assert_eq!(findings(code, &tier(direction, "Deny", peer, more)).len(), 0, "{code}");
    }
    // An address that a cluster-wide policy denies is not reached.
    let open = egress(WEB, "{}");
    let denied = tier("egress", "Deny", "{networks: [169.254.169.254/32, 'fd00:ec2::254/128']}", "");
    table(&[("PAL043", "n", open.clone()), ("PAL043", "", open + &denied)]);
}

#[test]
fn what_is_wide_open() {
    let from = |peers: &str, more: &str| ingress(DB, &format!("{{from: [{peers}]{more}}}"));
    let to = |peers: &str, more: &str| egress(WEB, &format!("{{to: [{peers}]{more}}}"));
    let halves = format!("{}, {}", block("0.0.0.0/1"), block("128.0.0.0/1"));
    let all = block("0.0.0.0/0");
    let ports = |ports: &str| format!(", ports: [{{{ports}, protocol: TCP}}]");
    let both = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\nspec: {podCIDRs: [10.244.1.0/24, 'fd00:10:244:1::/64']}\n---\n";
    let without_private = block("0.0.0.0/0, except: [10.0.0.0/8]");
    let everywhere =
        "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}}";
    let metrics = PODS.replace("name: sql}", "name: sql}, {containerPort: 9187, name: metrics}");
    let two = format!("{}{}", to(&all, &ports("port: 443")), to(&block("'::/0'"), &ports("port: 443")))
        .replacen("name: p,", "name: q,", 1);
    table(&[
        ("PAL041", "n", from(&halves, "")),
        ("PAL041", "n", from(&without_private, "")),
        ("PAL041", "", from(&block("0.0.0.0/1"), "")),
        ("PAL042", "w", to(&halves, "")),
        ("PAL042", "w", to(&all, ", ports: [{protocol: TCP}]")),
        ("PAL042", "w", to(&all, &ports("port: 1, endPort: 65535"))),
        ("PAL042", "w", to(&block("0.0.0.0/0, except: [169.254.169.254/32]"), "")),
        ("PAL042", "", to(&without_private, "")),
        ("PAL043", "n", egress(WEB, "{ports: [{port: 80, protocol: TCP}]}")),
        ("PAL043", "", egress(WEB, "{ports: [{port: 443, protocol: TCP}]}")),
        ("PAL044", "w", both.to_owned() + &to(&all, "")),
        ("PAL044", "w", format!("{both}{}", to(&format!("{without_private}, {}", block("'::/0'")), ""))),
        (
            "PAL044",
            "",
            format!("{both}{}", egress(WEB, &format!("{{to: [{all}]}}, {{to: [{}]}}", block("'::/0'")))),
        ),
        ("PAL045", "w", from(everywhere, "")),
        ("PAL046", "w", ingress(DB, "{}")),
        ("PAL046", "w", ingress(DB, "{ports: [{port: sql, protocol: TCP}]}")),
        ("PAL046", "w", from(&all, &ports("port: 20, endPort: 25"))),
        ("PAL046", "w", from(&block("10.0.0.0/8"), &ports("port: 22"))),
        ("PAL046", "", from(&block("192.0.2.0/24"), &ports("port: 22"))),
        ("PAL046", "", ingress(WEB, "{}")),
        (
            "PAL048",
            "w",
            from(
                "{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [bad]}]}, podSelector: {matchLabels: {app: web}}}",
                "",
            ),
        ),
        (
            "PAL048",
            "",
            from(
                "{namespaceSelector: {matchLabels: {team: shop}}, podSelector: {matchLabels: {app: web}}}",
                "",
            ),
        ),
    ]);
    assert!(findings("PAL044", &format!("{both}{two}")).is_empty(), "another policy has the other family");
    let own =
        findings_in("PAL045", &format!("{metrics}{}", from("{namespaceSelector: {}}", &ports("port: 9187"))));
    assert!(own.is_empty(), "only metrics are open: {own:?}");
    let strict: Vec<Level> = findings("PAL039", "")
        .into_iter()
        .map(|mut f| {
            f.make_strict();
            f.level
        })
        .collect();
    assert_eq!(strict, [Level::Error; 2]);
    assert!(
        findings("PAL039", "").iter().all(|f| f.affected.pods == 1),
        "the pods that are open are counted"
    );
}

#[test]
fn what_selectors_and_addresses_mean() {
    let mon = namespace("mon", "team: mon")
        + "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: mon, labels: {app: prom}}\nspec: {containers: [{name: m, image: x}]}\n---\n";
    let ns = "{namespaceSelector: {matchLabels: {team: mon}}}";
    let prom = "{podSelector: {matchLabels: {app: prom}}}";
    let workload = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: b, namespace: shop, labels: {job: backup}}\n\
                    spec: {schedule: '0 0 * * *', jobTemplate: {spec: {template: {metadata: {labels: {app: b}}, spec: {containers: [{name: m, image: x}]}}}}}\n---\n";
    let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: shop, labels: {app: web}}\nspec: {hostNetwork: true, containers: []}\n---\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\nspec: {podCIDRs: [10.244.1.0/24]}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.11}]}\n---\n";
    let from = |peers: &str| ingress(DB, &format!("{{from: [{peers}]}}"));
    let to = |peers: &str| egress(WEB, &format!("{{to: [{peers}]}}"));
    let svc = service("type: ClusterIP");
    let named = svc.replace("{port: 80", "{name: tcp-sql, port: 80");
    let deny = |pods: &str| policy("deny", &format!("{{podSelector: {{{pods}}}, policyTypes: [Ingress]}}"));
    table(&[
        ("PAL016", "w", format!("{mon}{}", from(&format!("{prom}, {ns}")))),
        ("PAL016", "w", format!("{mon}{}", from(&format!("{ns}, {}, {prom}", block("192.0.2.0/24"))))),
        ("PAL016", "w", format!("{mon}{}", from(&format!("{{namespaceSelector: {{}}}}, {prom}")))),
        (
            "PAL016",
            "",
            format!("{mon}{}", from(&format!("{{podSelector: {{matchLabels: {{app: web}}}}}}, {ns}"))),
        ),
        ("PAL020", "w", deny(DB) + &ingress("", "{}")),
        ("PAL020", "", deny("") + &ingress(DB, "{}")),
        ("PAL021", "n", to("{namespaceSelector: {matchLabels: {name: kube-system}}}")),
        ("PAL027", "w", named.clone() + &ingress(DB, "{ports: [{port: tcp-sql, protocol: TCP}]}")),
        ("PAL027", "", named + &ingress(DB, "{ports: [{port: sql, protocol: TCP}]}")),
        ("PAL028", "w", svc.clone() + &to(&block("10.96.0.0/16"))),
        ("PAL028", "", svc.clone() + &to(&block("10.0.0.0/8"))),
        (
            "PAL028",
            "",
            format!("{node}{svc}{}", to(&block("10.96.0.0/12"))).replace("10.244.1.0", "10.100.1.0"),
        ),
        ("PAL029", "w", node.to_owned() + &from(&block("10.244.1.128/25"))),
        ("PAL029", "", node.to_owned() + &from(&block("10.244.2.0/24"))),
        ("PAL014", "w", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: i, namespace: shop}\nspec: {rules: []}\n---\n".to_owned()),
        ("PAL030", "n", ingress(DB, "{ports: [{port: 9000, endPort: 9010, protocol: TCP}]}")),
        ("PAL030", "", ingress(DB, "{ports: [{port: 15008, protocol: TCP}]}")),
        ("PAL030", "", svc + &ingress(DB, "{ports: [{port: 80, protocol: TCP}]}")),
        ("PAL031", "n", to("{podSelector: {matchLabels: {app: db}}}")),
        ("PAL031", "", to("{namespaceSelector: {}}")),
        ("PAL034", "n", host.to_owned() + &ingress(WEB, "{}")),
        ("PAL034", "", host.to_owned() + &ingress("", "{}")),
        (
            "PAL035",
            "",
            from("{podSelector: {matchExpressions: [{key: pod-template-hash, operator: Exists}]}}"),
        ),
        ("PAL038", "w", from(&block("127.0.0.1/32"))),
        (
            "PAL054",
            "w",
            namespace("shop", "a: b")
                + workload
                + &from("{namespaceSelector: {}, podSelector: {matchLabels: {job: backup}}}"),
        ),
        (
            "PAL054",
            "",
            namespace("shop", "a: b")
                + workload
                + &from("{namespaceSelector: {}, podSelector: {matchLabels: {app: b}}}"),
        ),
    ]);
}

#[test]
fn what_is_left_out_is_let_in_again() {
    let from = |peers: &str| format!("{{from: [{peers}]}}");
    let but = from("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}");
    let not_web = from("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}");
    let web = from("{podSelector: {matchLabels: {app: web}}}");
    let without = from("{namespaceSelector: {matchExpressions: [{key: q, operator: DoesNotExist}]}}");
    let with = from("{namespaceSelector: {matchExpressions: [{key: q, operator: Exists}]}}");
    let two = |one: &str, other: &str| ingress(DB, &format!("{one}, {other}"));
    let other = |pods: &str, rule: &str| ingress(pods, rule).replacen("name: p,", "name: q,", 1);
    let again = from("{ipBlock: {cidr: 10.1.0.0/16}}");
    let some = from("{ipBlock: {cidr: 10.1.2.0/24}}");
    table(&[
        ("PAL059", "w", two(&not_web, &web)),
        ("PAL059", "w", two(&without, &with)),
        ("PAL059", "w", two(&but, "{}")),
        ("PAL059", "w", ingress(DB, &but) + &other(DB, &again)),
        ("PAL059", "", ingress(DB, &but) + &other(WEB, &again)),
        ("PAL059", "", two(&but, &some)),
        ("PAL059", "", two(&not_web, &from("{podSelector: {matchLabels: {app: db}}}"))),
        (
            "PAL061",
            "w",
            service("externalIPs: [203.0.113.9]") + &ingress(DB, &from("{ipBlock: {cidr: 198.51.100.0/24}}")),
        ),
    ]);
}

#[test]
fn a_service_hides_clients_on_its_own_ports() {
    let from = |port: &str| {
        ingress(
            DB,
            &format!("{{from: [{}], ports: [{{port: {port}, protocol: TCP}}]}}", block("198.51.100.0/24")),
        )
    };
    let exposed = service("type: LoadBalancer");
    let by_name = exposed.replace("targetPort: 5432", "targetPort: sql");
    // A second Service in front of the same pods leads to another port.
    let metrics = exposed.replace("name: db,", "name: a,").replace("targetPort: 5432", "targetPort: 9187");
    table(&[
        ("PAL061", "w", exposed.clone() + &from("5432")),
        ("PAL061", "w", exposed.clone() + &from("sql")),
        ("PAL061", "w", by_name.clone() + &from("5432")),
        ("PAL061", "", exposed.clone() + &from("9187")),
        ("PAL061", "", by_name + &from("9187")),
        // The Service's own port is not the pod's.
        ("PAL061", "", exposed.clone() + &from("80")),
        ("PAL061", "", exposed.replace("port: 80, ", "protocol: UDP, port: 80, ") + &from("5432")),
        ("PAL061", "w", metrics + &exposed + &from("5432")),
    ]);
}

#[test]
fn equal_priorities_matter_where_pods_are_selected_twice() {
    let deny = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
    let accept = deny.replace("Deny", "Accept");
    let two = |first: &str, second: &str| {
        cluster_wide("one", "Admin", 5, first, deny) + &cluster_wide("two", "Admin", 5, second, &accept)
    };
    let team = |team: &str| format!("namespaces: {{matchLabels: {{team: {team}}}}}");
    let pods = |test: &str| {
        format!("pods: {{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{{{test}}}]}}}}")
    };
    let app = |test: &str, values: &str| pods(&format!("key: app, operator: {test}, values: [{values}]"));
    let none = pods("key: app, operator: DoesNotExist");
    let egress = deny.replace("ingress", "egress").replace("from", "to");
    let third = cluster_wide("three", "Admin", 5, &team("green"), deny);
    table(&[
        ("PAL052", "w", two(&team("blue"), "namespaces: {}")),
        ("PAL052", "w", two(&team("blue"), "namespaces: {matchLabels: {zone: a}}")),
        ("PAL052", "w", two(&app("In", "db"), &app("In", "web, db"))),
        ("PAL052", "", two(&team("blue"), &team("green"))),
        ("PAL052", "", two(&app("In", "web"), &app("NotIn", "web, db"))),
        ("PAL052", "", two(&app("In", "web"), &none)),
        (
            "PAL052",
            "",
            cluster_wide("one", "Admin", 5, "namespaces: {}", deny)
                + &cluster_wide("two", "Admin", 5, "namespaces: {}", &egress),
        ),
        // The third one matches nothing that the second leaves over, too.
        ("PAL052", "wn", two(&team("blue"), &team("green")) + &third),
    ]);
    let message = &findings("PAL052", &(two(&team("blue"), &team("green")) + &third))[0].message;
    assert!(message.starts_with("spec.priority: 2 policies") && !message.contains("Policy one"), "{message}");
}

#[test]
fn a_controller_has_policies_of_its_own() {
    let route = "apiVersion: v1\nkind: Pod\nmetadata: {name: controller, namespace: edge, labels: {app.kubernetes.io/name: ingress-nginx, app.kubernetes.io/component: controller}}\n\
                 spec: {containers: [{name: main, image: example}]}\n---\n\
                 apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: db, namespace: shop}\n\
                 spec: {ingressClassName: nginx, defaultBackend: {service: {name: db, port: {number: 80}}}}\n---\n";
    let own = |rule: &str| egress("", rule).replace("namespace: shop", "namespace: edge");
    let to = |port: u16| {
        format!("{{to: [{{namespaceSelector: {{}}}}], ports: [{{port: {port}, protocol: TCP}}]}}")
    };
    let all = service("type: ClusterIP") + route;
    table(&[
        ("PAL050", "", all.clone()),
        ("PAL050", "w", all.clone() + &own("{to: [{podSelector: {}}]}")),
        // The Service's port is not the pod's.
        ("PAL050", "w", all.clone() + &own(&to(80))),
        ("PAL050", "", all + &own(&to(5432))),
    ]);
}
