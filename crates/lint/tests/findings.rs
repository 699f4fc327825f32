//! What single rules find, beyond their examples: levels, ends that are not known, and what must stay silent.

use palisade_lint::{Level, LintOptions, Plugin, RULES, SourceText, fixed, lint};
use palisade_manifest::{Input, LoadOptions, load};

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
spec: {containers: [{name: main, image: example, ports: [{containerPort: 8080, name: http}]}]}
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

/// The findings of a rule in `text`, as level and object.
fn found(code: &str, text: &str, plugin: Option<Plugin>) -> Vec<(Level, String)> {
    let source = SourceText::new("all.yaml", text);
    let input = Input::Text { name: "all.yaml".to_owned(), text: text.to_owned() };
    let loaded = load(&[input], &LoadOptions::default());
    let options = LintOptions { default_namespace: "default", plugin };
    let report = lint(&loaded, &[source], RULES, &options);
    let of_rule = report.findings.into_iter().filter(|finding| finding.rule.code == code);
    of_rule.map(|f| (f.level, f.object.unwrap_or_default())).collect()
}

fn objects(code: &str, policies: &[(&str, &str)]) -> Vec<String> {
    let text: String = policies.iter().map(|(name, spec)| policy(name, spec)).collect();
    let found = found(code, &format!("{PODS}{text}"), None).into_iter();
    found.map(|(_, object)| object.trim_start_matches("NetworkPolicy shop/").to_owned()).collect()
}

const DENY_ALL: &str = "{podSelector: {}, policyTypes: [Ingress]}";
const WEB_TO_DB: &str = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
const ANY_TO_DB: &str =
    "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}";

#[test]
fn a_policy_is_redundant_only_if_others_isolate_and_allow_as_much() {
    let none: &[&str] = &[];
    assert_eq!(objects("PAL051", &[("deny", DENY_ALL), ("web", WEB_TO_DB)]), none);
    // Of two that are the same, the first stays.
    assert_eq!(objects("PAL051", &[("a", WEB_TO_DB), ("b", WEB_TO_DB)]), ["b"]);
    assert_eq!(objects("PAL051", &[("a", WEB_TO_DB), ("b", ANY_TO_DB)]), ["a"]);
    assert_eq!(objects("PAL051", &[("a", ANY_TO_DB), ("b", WEB_TO_DB)]), ["b"]);
    // It allows no more, and isolates for egress too.
    let both = WEB_TO_DB.replace("[Ingress]", "[Ingress, Egress]");
    assert_eq!(objects("PAL051", &[("a", ANY_TO_DB), ("b", &both)]), ["b"], "its rule");
    assert_eq!(
        objects(
            "PAL051",
            &[("a", DENY_ALL), ("b", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")]
        ),
        ["b"]
    );
    // Pods that don't exist yet count: `in (a, b)` is wider than `a`, and not the reverse.
    let one = WEB_TO_DB
        .replace("matchLabels: {app: db}", "matchExpressions: [{key: app, operator: In, values: [db, dbx]}]");
    assert_eq!(objects("PAL051", &[("a", &one), ("b", WEB_TO_DB)]), ["b"]);
    assert_eq!(objects("PAL051", &[("a", WEB_TO_DB), ("b", &one)]), ["a"]);
    // A port name may stand for another number in another pod.
    let port =
        |port| ANY_TO_DB.replace("[{from:", &format!("[{{ports: [{{port: {port}, protocol: TCP}}], from:"));
    assert_eq!(objects("PAL051", &[("a", &port("8080")), ("b", &port("http"))]), none);
    assert_eq!(objects("PAL051", &[("a", &port("1, endPort: 65535")), ("b", &port("8080"))]), ["b"]);
}

#[test]
fn what_the_other_end_denies_has_to_be_certain() {
    let none: &[&str] = &[];
    let egress = |to: &str| {
        format!("{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{to}]}}")
    };
    assert_eq!(objects("PAL033", &[("db", WEB_TO_DB), ("web", &egress(""))]), ["db"]);
    assert_eq!(objects("PAL033", &[("db", WEB_TO_DB), ("web", &egress("{}"))]), none);
    // The address of the pod is not known, so it may be in the block.
    assert_eq!(
        objects("PAL033", &[("db", WEB_TO_DB), ("web", &egress("{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}"))]),
        none
    );
    let other_port = "{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 9, protocol: TCP}]}";
    assert_eq!(
        objects("PAL033", &[("db", WEB_TO_DB), ("web", &egress(other_port))]),
        none,
        "some port is allowed"
    );
    let http = WEB_TO_DB.replace("[{from:", "[{ports: [{port: http, protocol: TCP}], from:");
    assert_eq!(objects("PAL033", &[("db", &http), ("web", &egress(other_port))]), ["db", "web"]);
    // Nobody is there yet.
    assert_eq!(
        objects("PAL033", &[("db", &WEB_TO_DB.replace("app: web", "app: new")), ("web", &egress(""))]),
        none
    );
}

#[test]
fn dns_is_a_warning_only_where_it_is_known_and_wanted() {
    let dns = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}\n\
               spec: {containers: [{name: main, image: example}]}\n";
    let web = |rules: &str| {
        policy(
            "web",
            &format!(
                "{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: {rules}}}"
            ),
        )
    };
    let to_db = "{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 8080, protocol: TCP}]}";
    let udp = "{ports: [{port: 53, protocol: UDP}]}";
    let levels =
        |text: String| found("PAL031", &text, None).into_iter().map(|(level, _)| level).collect::<Vec<_>>();
    assert_eq!(levels(format!("{PODS}{dns}{}", web(&format!("[{to_db}]")))), [Level::Warning]);
    assert_eq!(levels(format!("{PODS}{dns}{}", web("[]"))), [Level::Note], "nothing is wanted");
    assert_eq!(levels(format!("{PODS}{dns}{}", web(&format!("[{to_db}, {udp}]")))), [Level::Note], "no TCP");
    assert_eq!(
        levels(format!("{PODS}{}", web(&format!("[{to_db}]")))),
        [Level::Note],
        "no servers are known"
    );
    assert_eq!(levels(format!("{PODS}{}", web(&format!("[{to_db}, {udp}]")))), []);
    assert_eq!(levels(format!("{PODS}{dns}{}", web("[{}]"))), []);
}

#[test]
fn a_list_with_another_field_than_items_is_corrected() {
    let text =
        "apiVersion: v1\nkind: List\nItems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: shop}\n";
    let source = SourceText::new("all.yaml", text);
    let input = Input::Text { name: "all.yaml".to_owned(), text: text.to_owned() };
    let loaded = load(&[input], &LoadOptions::default());
    let report = lint(&loaded, &[source], RULES, &LintOptions { default_namespace: "default", plugin: None });
    let fixes: Vec<_> =
        report.findings.iter().filter(|f| f.rule.code == "PAL056").filter_map(|f| f.fix.as_ref()).collect();
    let (after, made) = fixed(text, fixes);
    assert_eq!((after, made), (text.replace("Items:", "items:"), 1), "{:?}", report.findings);
}

#[test]
fn webhooks_and_monitors_say_nothing_where_their_client_may_be_allowed() {
    let hook = "---\napiVersion: v1\nkind: Service\nmetadata: {name: hook, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 443, targetPort: 8080}]}\n\
                ---\napiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.shop}\nspec: {service: {namespace: shop, name: hook}}\n\
                ---\napiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: m, namespace: shop}\nspec: {selector: {}, endpoints: [{targetPort: 8080}]}\n";
    let web = |from: &str| {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], ingress: [{{from: [{from}]}}]}}"
        );
        format!("{PODS}{hook}{}", policy("web", &spec))
    };
    let levels =
        |code, from| found(code, &web(from), None).into_iter().map(|(level, _)| level).collect::<Vec<_>>();
    assert_eq!(levels("PAL063", "{podSelector: {}}"), [Level::Warning]);
    assert_eq!(levels("PAL063", "{ipBlock: {cidr: 10.0.0.0/8}}"), []);
    assert_eq!(
        levels("PAL063", "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}"),
        []
    );
    assert_eq!(
        levels("PAL063", "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: edge}}}"),
        [Level::Warning]
    );
    assert_eq!(
        levels("PAL064", "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: edge}}}"),
        []
    );
}

#[test]
fn a_plugin_ignores_what_is_said_of_it_and_no_plugin_nothing() {
    let ports = ANY_TO_DB.replace(
        "[{from:",
        "[{ports: [{port: http, protocol: TCP}, {port: 80, endPort: 90, protocol: TCP}], from:",
    );
    let text = format!("{PODS}{}", policy("db", &ports));
    let count = |plugin| found("PAL053", &text, plugin).len();
    let all =
        [None, Some(Plugin::Flannel), Some(Plugin::Weave), Some(Plugin::Cilium), Some(Plugin::AwsVpcCni)];
    assert_eq!(all.map(count), [0, 1, 2, 0, 0]);
    let blocks = "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/8'}}, {ipBlock: {cidr: 0.0.0.0/0}}]}]}";
    let text = format!("{PODS}{}", policy("db", blocks));
    let count = |plugin| found("PAL053", &text, plugin).len();
    assert_eq!(all.map(count), [0, 1, 0, 2, 1]);
}
