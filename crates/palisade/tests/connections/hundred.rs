//! A cluster of a hundred workloads as teams have them: ten namespaces, default denies with rules for DNS, scraping,
//! databases and caches, and some workloads without any policy.

use std::fmt::Write as _;

const APPS: [(&str, [&str; 10]); 10] = [
    (
        "billing",
        ["api", "invoices", "payments", "ledger", "tax", "mailer", "exports", "rates", "db", "cache"],
    ),
    (
        "ci",
        [
            "runner",
            "cache",
            "registry",
            "scanner",
            "webhooks",
            "planner",
            "artifacts",
            "badges",
            "bot",
            "mirror",
        ],
    ),
    (
        "data",
        [
            "postgres",
            "kafka",
            "zookeeper",
            "clickhouse",
            "minio",
            "backup",
            "schema",
            "etl",
            "loader",
            "viewer",
        ],
    ),
    ("edge", ["nginx", "certs", "dns", "waf", "oauth-proxy", "static", "redirects", "limits", "geo", "logs"]),
    ("identity", ["login", "tokens", "users", "roles", "audit", "mfa", "sync", "admin", "db", "cache"]),
    ("legacy", ["crm", "reports", "ftp", "print", "batch", "intranet", "wiki", "forms", "scan", "fax"]),
    (
        "monitoring",
        ["prometheus", "grafana", "alerts", "loki", "tempo", "exporter", "push", "probe", "karma", "thanos"],
    ),
    (
        "orders",
        ["api", "intake", "routing", "stock", "returns", "notify", "planner", "events", "db", "cache"],
    ),
    ("shop", ["web", "cart", "checkout", "catalog", "search", "prices", "images", "reviews", "db", "cache"]),
    ("support", ["portal", "tickets", "chat", "search", "mail", "files", "survey", "archive", "db", "cache"]),
];

/// Returns the manifests.
pub(crate) fn manifests() -> String {
    let mut out = Manifests::default();
    out.namespace("kube-system");
    out.workload("kube-system", "coredns");
    for (namespace, apps) in APPS {
        out.namespace(namespace);
        apps.iter().for_each(|app| out.workload(namespace, app));
        out.common(namespace);
    }
    for (namespace, apps) in APPS.iter().filter(|(_, apps)| apps[9] == "cache") {
        out.allow((namespace, apps[0]), ("edge", "nginx"), 8080);
        for app in &apps[1..8] {
            out.allow((namespace, app), (namespace, apps[0]), 8080);
            out.allow((namespace, "cache"), (namespace, app), 6379);
        }
        for app in &apps[1..5] {
            out.allow((namespace, "db"), (namespace, app), 5432);
            out.allow(("data", "kafka"), (namespace, app), 9092);
        }
    }
    for app in ["etl", "loader", "schema", "backup"] {
        out.allow(("data", "postgres"), ("data", app), 5432);
        out.allow(("data", "clickhouse"), ("data", app), 9000);
    }
    for app in ["grafana", "alerts", "karma", "thanos"] {
        out.allow(("monitoring", "prometheus"), ("monitoring", app), 9090);
    }
    out.policy("edge", "from-internet", "{matchLabels: {app: nginx}}", "ingress: [{ports: [{port: 443}]}]");
    for (namespace, app) in
        [("billing", "payments"), ("edge", "certs"), ("identity", "mfa"), ("support", "mail")]
    {
        let selector = format!("{{matchLabels: {{app: {app}}}}}");
        let block = "{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16]}}";
        let rule = format!("egress: [{{to: [{block}], ports: [{{port: 443}}]}}]");
        out.policy(namespace, &format!("{app}-to-internet"), &selector, &rule);
    }
    out.0 += "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.0.0/16, 'fd00:10:244::/48']}}\n";
    out.0
}

#[derive(Default)]
struct Manifests(String);

impl Manifests {
    fn namespace(&mut self, name: &str) {
        _ = write!(self.0, "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n");
    }

    fn workload(&mut self, namespace: &str, app: &str) {
        let labels = format!("{{app: {app}}}");
        _ = write!(
            self.0,
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {app}, namespace: {namespace}}}\nspec:\n  \
             replicas: 2\n  selector: {{matchLabels: {labels}}}\n  template:\n    metadata: {{labels: {labels}}}\n    \
             spec: {{containers: [{{name: main, image: {app}}}]}}\n"
        );
    }

    fn policy(&mut self, namespace: &str, name: &str, selector: &str, rules: &str) {
        let types = match (rules.contains("ingress:"), rules.contains("egress:")) {
            (true, false) => "[Ingress]",
            (false, true) => "[Egress]",
            _ => "[Ingress, Egress]",
        };
        _ = write!(
            self.0,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: \
             {namespace}}}\nspec:\n  podSelector: {selector}\n  policyTypes: {types}\n  {rules}\n"
        );
    }

    /// The policies of most namespaces: default deny, DNS, scraping.
    fn common(&mut self, namespace: &str) {
        match namespace {
            "legacy" => return,
            "ci" => self.policy(namespace, "default-deny", "{}", "ingress: []"),
            _ => self.policy(namespace, "default-deny", "{}", ""),
        }
        if namespace != "ci" {
            let dns = "{namespaceSelector: {}, podSelector: {matchLabels: {app: coredns}}}";
            let rule =
                format!("egress: [{{to: [{dns}], ports: [{{port: 53, protocol: UDP}}, {{port: 53}}]}}]");
            self.policy(namespace, "dns", "{}", &rule);
        }
        let prometheus = "{namespaceSelector: {}, podSelector: {matchLabels: {app: prometheus}}}";
        let rule = format!("ingress: [{{from: [{prometheus}], ports: [{{port: 9100}}]}}]");
        self.policy(namespace, "scraping", "{}", &rule);
        if namespace == "monitoring" {
            let rule = "egress: [{to: [{namespaceSelector: {}}], ports: [{port: 9100}]}]";
            self.policy(namespace, "scrapes", "{matchLabels: {app: prometheus}}", rule);
        }
    }

    /// Two policies that allow a connection at both ends.
    fn allow(&mut self, to: (&str, &str), from: (&str, &str), port: u16) {
        let peer = |(namespace, app): (&str, &str)| {
            format!(
                "{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}, podSelector: \
                 {{matchLabels: {{app: {app}}}}}}}"
            )
        };
        let selector = |app: &str| format!("{{matchLabels: {{app: {app}}}}}");
        let name = format!("{}-{}-{}-{}", from.0, from.1, to.0, to.1);
        let ports = format!("ports: [{{port: {port}}}]");
        let rule = format!("ingress: [{{from: [{}], {ports}}}]", peer(from));
        self.policy(to.0, &format!("{name}-in"), &selector(to.1), &rule);
        let rule = format!("egress: [{{to: [{}], {ports}}}]", peer(to));
        self.policy(from.0, &format!("{name}-out"), &selector(from.1), &rule);
    }
}
