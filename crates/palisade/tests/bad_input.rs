//! Invalid input is reported with its position and a cure, and never gives an answer.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::fs;

use support::{palisade, run};
use tempfile::TempDir;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a, labels: {app: a}}\n\
                   spec: {containers: [{name: c, image: i}]}\n---\n";

/// Runs a verb on a text; returns the exit code, standard output and standard error.
fn read(text: &str, verb: &str, options: &[(&str, &str)]) -> (i32, String, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("in.yaml"), text).unwrap();
    let mut command = palisade(&format!("{verb} -f in.yaml"));
    command.current_dir(dir.path()).env_remove("PALISADE_CHANNEL");
    for (name, value) in options {
        if name.starts_with("--") {
            command.args([name, value])
        } else {
            command.env(name, value)
        };
    }
    run(&mut command)
}

#[test]
fn helm_templates_are_known_for_what_they_are() {
    let policy = |metadata: &str| {
        format!(
            "{POD}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n{metadata}\nspec: {{podSelector: {{}}}}\n"
        )
    };
    for text in [
        policy("  name: {{ .Release.Name }}-p"),
        policy("  name: p\n  namespace: {{ .Release.Namespace }}"),
        policy("  name: \"{{ .Release.Name }}\""),
        policy("  name: p\n  labels: {app: '{{ .Values.app }}'}"),
        format!("{{{{- if .Values.policy }}}}\n{}{{{{- end }}}}\n", policy("  name: p")),
        format!(
            "{POD}apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  selector:\n    {{{{- include \"x\" . | nindent 4 }}}}\n"
        ),
    ] {
        for verb in ["connections", "can shop/a 1.2.3.4:80", "describe shop/a", "explain shop/a 1.2.3.4"] {
            let (code, out, err) = read(&text, verb, &[]);
            assert_eq!((code, &*out), (2, ""), "{verb}: {text}");
            assert!(err.contains("render it first, with `helm template`"), "{verb}: {text}{err}");
            assert!(err.contains("in.yaml:"), "{err}");
        }
    }
}

#[test]
fn policies_of_one_priority_are_named_with_the_order_that_is_taken() {
    let policy = |name: &str, action: &str| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{tier: Admin, priority: 5, subject: {{namespaces: {{}}}}, egress: [{{name: \"a\\e[31m\", action: {action}, to: [{{networks: [0.0.0.0/0]}}]}}]}}\n---\n"
        )
    };
    for text in [
        format!("{POD}{}{}", policy("one", "Deny"), policy("two", "Accept")),
        format!("{}{POD}{}", policy("two", "Accept"), policy("one", "Deny")),
    ] {
        let (code, out, err) = read(&text, "can shop/a 1.2.3.4:80", &[]);
        assert_eq!(code, 1, "{out}{err}");
        assert!(
            out.contains("denied by ClusterNetworkPolicy one, egress[0] \"a\\u{1b}[31m\" (in.yaml:"),
            "{out}"
        );
        let order = "They are evaluated in this order: ClusterNetworkPolicy one, ClusterNetworkPolicy two";
        assert!(err.contains("warning[equal-priority]") && err.contains(order), "{err}");
    }
}

#[test]
fn a_policy_of_no_namespace_is_told() {
    let text = format!(
        "{POD}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: shpo, name: deny}}\nspec: {{podSelector: {{}}}}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"
    );
    let (code, _, err) = read(&text, "can shop/a 1.2.3.4:80", &[]);
    assert_eq!(code, 0);
    assert!(err.contains("NetworkPolicy shpo/deny") && err.contains("there is no namespace `shpo`"), "{err}");
}

/// The same file in either release channel, set by flag and by environment; the flag takes precedence.
#[test]
fn the_channel_decides_which_fields_there_are() {
    let text = format!(
        "{POD}apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\nstatus: {{addresses: [{{type: InternalIP, address: 192.0.2.1}}]}}\n---\n\
         apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\n\
         spec: {{tier: Admin, priority: 5, subject: {{namespaces: {{}}}}, egress: [{{action: Deny, to: [{{nodes: {{}}}}]}}]}}\n"
    );
    let verb = "can shop/a node/n1:80";
    for options in [
        &[][..],
        &[("--channel", "experimental")],
        &[("PALISADE_CHANNEL", "experimental")],
        &[("PALISADE_CHANNEL", "standard"), ("--channel", "experimental")],
    ] {
        let (code, out, err) = read(&text, verb, options);
        assert_eq!((code, &*err), (1, ""), "{options:?}: {out}");
    }
    for options in [&[("--channel", "standard")][..], &[("PALISADE_CHANNEL", "standard")]] {
        let (code, out, err) = read(&text, verb, options);
        assert_eq!((code, &*out), (2, ""), "{options:?}: {err}");
        assert!(err.contains("`nodes` is only in the experimental channel"), "{err}");
        assert!(err.contains("--channel experimental"), "{err}");
    }
    let (code, _, err) = read(&text, verb, &[("PALISADE_CHANNEL", "beta")]);
    assert_eq!(code, 2);
    assert!(err.contains("standard, experimental"), "{err}");
}

/// Files beside the manifests are read to a limit, too, whatever size they report: a device has no end.
#[test]
fn no_file_is_read_without_end() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("in.yaml"), POD).unwrap();
    for words in ["test /dev/zero -f in.yaml", "lint -f in.yaml --baseline /dev/zero", "lint -f /dev/zero"] {
        let (code, out, err) = run(palisade(words).current_dir(dir.path()));
        assert_eq!(code, 2, "{words}: {out}{err}");
        assert!(format!("{out}{err}").contains("larger than the limit of"), "{words}: {out}{err}");
    }
    let mut command = palisade("diff - in.yaml");
    command.current_dir(dir.path()).stdin(fs::File::open("/dev/zero").unwrap());
    let (code, out, err) = run(&mut command);
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("standard input is larger than the limit of 64 MiB"), "{err}");
}

/// The API server refuses a workload whose selector doesn't match its own pods, so its pods are a guess.
#[test]
fn a_selector_that_does_not_match_the_template_is_said() {
    let workload = |kind: &str, selector: &str| {
        format!(
            "{POD}{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: w, namespace: shop}}, spec: {{{selector}template: {{metadata: \
             {{labels: {{app: web, tier: front}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}\n"
        )
    };
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"] {
        let text = workload(kind, "selector: {matchLabels: {tier: front, app: api}}, ");
        let (code, _, err) = read(&text, "can shop/a shop/w:80", &[]);
        assert_eq!(code, 0, "{err}");
        let message =
            format!("the labels of the template don't have app=api, so the API server refuses this {kind}");
        assert!(err.contains("warning[ambiguous-value]") && err.contains(&message), "{err}");
        for selector in ["", "selector: {matchLabels: {app: web}}, ", "selector: {matchLabels: null}, "] {
            let (_, _, err) = read(&workload(kind, selector), "can shop/a shop/w:80", &[]);
            assert_eq!(err, "", "{selector}");
        }
    }
}

/// As a patch of a Kustomize overlay that is read by itself: its pods would count as pods without labels, silently.
#[test]
fn a_workload_without_a_template_is_said() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"] {
        let version = if kind.ends_with("Job") { "batch/v1" } else { "apps/v1" };
        let path = if kind == "CronJob" { "spec.jobTemplate.spec.template" } else { "spec.template" };
        for spec in
            ["", ", spec: {}", ", spec: {template: null}", ", spec: {selector: {matchLabels: {app: w}}}"]
        {
            let text = format!(
                "{POD}{{apiVersion: {version}, kind: {kind}, metadata: {{name: w, namespace: shop}}{spec}}}\n"
            );
            let (_, _, err) = read(&text, "can shop/a shop/w:80", &[]);
            let message = format!("{path} is missing, so the API server refuses this {kind}");
            assert_eq!(err.matches(&message).count(), 1, "{spec}: {err}");
            assert!(!err.contains("the labels of the template"), "{spec}: {err}");
        }
    }
}
