//! Checks all rules against 5,000 policies and 20,000 pods as they are read from YAML, with the resident memory at the end.
//!
//! The baseline is the reading of the same text in the same run: the rules should cost about as much as it, however the
//! policies lie.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on fails")]

use std::{
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use palisade_lint::{LintOptions, LintReport, RULES, SourceText, lint};
use palisade_manifest::{Input, LoadOptions, Loaded, load};

const OPTIONS: LintOptions<'_> = LintOptions { default_namespace: "default", plugin: None };
const PODS: usize = 20_000;
const POLICIES: usize = 5_000;
/// The number of measurements, of which the fastest counts.
const TIMES: usize = 3;

/// How policies and pods lie: the number of namespaces, the pods of a workload, and the policies one by one.
struct Case {
    name: &'static str,
    namespaces: usize,
    replicas: usize,
    policy: fn(usize, usize) -> String,
}

const CASES: [Case; 4] = [
    Case { name: "100 namespaces, 50 pods a workload", namespaces: 100, replicas: 50, policy: usual },
    Case { name: "1 namespace, 4 pods a workload", namespaces: 1, replicas: 4, policy: usual },
    Case { name: "1 namespace, every policy allows everything", namespaces: 1, replicas: 4, policy: open },
    Case { name: "1 namespace, every peer matches nothing", namespaces: 1, replicas: 4, policy: missing },
];

fn text(case: &Case) -> String {
    let mut out = String::new();
    for index in 0..PODS {
        let app = index / case.replicas;
        _ = write!(
            out,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p{index}\n  namespace: n{}\n  labels:\n    app: a{app}\n    tier: t{}\n\
             spec:\n  containers:\n  - name: main\n    image: example\n    ports:\n    - containerPort: {}\n      name: http\n",
            app % case.namespaces,
            app % 3,
            8000 + app % 4,
        );
    }
    let apps = PODS / case.replicas;
    for index in 0..POLICIES {
        let app = index % apps;
        let namespace = app % case.namespaces;
        _ = write!(
            out,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: q{index}\n  namespace: n{namespace}\nspec:\n{}",
            (case.policy)(app, case.namespaces),
        );
    }
    out
}

/// Ingress from two workloads, and egress to one and to DNS.
fn usual(app: usize, namespaces: usize) -> String {
    let other = app + namespaces;
    format!(
        "  podSelector: {{matchLabels: {{app: a{app}}}}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    \
         - podSelector: {{matchLabels: {{app: a{other}}}}}\n    - namespaceSelector: {{}}\n      podSelector: {{matchLabels: {{tier: t1}}}}\n    \
         ports:\n    - {{port: http, protocol: TCP}}\n  egress:\n  - to:\n    - podSelector: {{matchLabels: {{app: a{other}}}}}\n  \
         - to:\n    - namespaceSelector: {{}}\n    ports:\n    - {{port: 53, protocol: UDP}}\n    - {{port: 53, protocol: TCP}}\n"
    )
}

fn open(_: usize, _: usize) -> String {
    "  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - {}\n  egress:\n  - {}\n".to_owned()
}

fn missing(app: usize, _: usize) -> String {
    format!(
        "  podSelector: {{matchLabels: {{tier: t1}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n    \
         - podSelector: {{matchLabels: {{app: b{app}, tier: t2}}}}\n    - namespaceSelector: {{}}\n      podSelector: {{matchLabels: {{app: c{app}}}}}\n"
    )
}

fn fastest<T>(work: impl Fn() -> T) -> (Duration, T) {
    let mut best: Option<(Duration, T)> = None;
    for _ in 0..TIMES {
        let start = Instant::now();
        let done = black_box(work());
        let took = start.elapsed();
        if best.as_ref().is_none_or(|(before, _)| took < *before) {
            best = Some((took, done));
        }
    }
    best.expect("there is at least one measurement")
}

fn main() {
    eprintln!("{POLICIES} policies, {PODS} pods, {} rules; empty process: {} MiB", RULES.len(), resident());
    for case in &CASES {
        let source = SourceText::new("all.yaml", text(case));
        let input = Input::Text { name: "all.yaml".to_owned(), text: source.text().to_owned() };
        let read = || load(std::slice::from_ref(&input), &LoadOptions::default());
        let (reading, loaded): (Duration, Loaded) = fastest(read);
        assert_eq!((loaded.cluster.pods.len(), loaded.cluster.policies.len()), (PODS, POLICIES));
        // Once with a text that was not read before, and once as each attempt of `palisade ui` checks what it has read.
        let unread = || [SourceText::new(source.file().clone(), source.text())];
        let (checking, report): (Duration, LintReport) =
            fastest(|| lint(&loaded, &unread(), RULES, &OPTIONS));
        let sources = [source.clone(), SourceText::new("edited.yaml", "# nothing")];
        let (again, _) = fastest(|| lint(&loaded, &sources, RULES, &OPTIONS));
        eprintln!(
            "{}: {:.0?} to check, {:.0?} again, {:.0?} to read: {:.2} times; {} findings; {} MiB resident",
            case.name,
            checking,
            again,
            reading,
            checking.as_secs_f64() / reading.as_secs_f64(),
            report.findings.len(),
            resident(),
        );
        if std::env::var_os("LINT_RULES").is_some() {
            of_each_rule(&loaded, &sources);
        }
    }
}

/// What each rule costs alone, with the indexes that it needs.
fn of_each_rule(loaded: &Loaded, sources: &[SourceText]) {
    for rule in RULES {
        let (took, report) = fastest(|| lint(loaded, sources, &[rule], &OPTIONS));
        eprintln!("    {} {}: {took:.0?}, {} findings", rule.code, rule.name, report.findings.len());
    }
}

/// Resident memory of this process in MiB: the second field of `/proc/self/statm`, in pages of 4 KiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this figure is read from /proc of Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("statm has numbers");
    pages * 4096 / (1 << 20)
}
