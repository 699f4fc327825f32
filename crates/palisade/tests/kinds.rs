//! What a document means: misspelled kinds, lists, kinds that are not evaluated, kinds that make pods elsewhere, and
//! policies that the API server would refuse.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::fs;

use support::{palisade, refused, run};
use tempfile::TempDir;

const CASES: &str = "crates/palisade/tests/cases/reading";

const BASE: &str = include_str!("cases/reading/misspelt-base.yaml");

/// Every verb that reads manifests, as it is asked about the pods of [`BASE`].
const VERBS: [&str; 4] =
    ["can data/x data/db:5432", "connections", "describe data/db", "explain data/x data/db:5432"];

/// Runs a verb on a text; returns the exit code, standard output and standard error.
fn read(text: &str, verb: &str) -> (i32, String, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), text).unwrap();
    run(palisade(&format!("{verb} -f m.yaml")).current_dir(dir.path()))
}

/// [`BASE`] with more documents.
fn with(documents: &str) -> String {
    format!("{BASE}---\n{documents}")
}

/// Asserts that every verb refuses [`BASE`] with more documents, with all `parts` in the message.
#[track_caller]
fn refuses(documents: &str, parts: &[&str]) {
    for verb in VERBS {
        let (code, out, err) = read(&with(documents), verb);
        assert_eq!((code, &*out), (2, ""), "{verb}: {documents}{err}");
        for part in parts {
            assert!(err.contains(part), "{verb}: no {part:?} in {err}");
        }
    }
}

/// A case of `misspelt/` together with the pods of `misspelt-base.yaml`.
#[track_caller]
fn misspelt(file: &str, version: &str, kind: &str) {
    let message = format!("no matches for kind \"{kind}\" in version \"{version}\"");
    for verb in VERBS {
        let words = format!("{verb} -f {CASES}/misspelt-base.yaml -f {CASES}/misspelt/{file}");
        refused(&words, &message);
        refused(&words, "did you mean networking.k8s.io/v1 NetworkPolicy?");
        refused(&words, &format!("misspelt/{file}:1"));
    }
}

#[test]
fn a_group_that_kubernetes_does_not_have() {
    misspelt("network-k8s-io-v1-NetworkPolicy.yaml", "network.k8s.io/v1", "NetworkPolicy");
}

#[test]
fn a_group_without_its_domain() {
    misspelt("networking-v1-NetworkPolicy.yaml", "networking/v1", "NetworkPolicy");
}

#[test]
fn a_kind_in_the_plural() {
    misspelt("networking-k8s-io-v1-NetworkPolicies.yaml", "networking.k8s.io/v1", "NetworkPolicies");
}

#[test]
fn a_kind_in_lower_case() {
    misspelt("networking-k8s-io-v1-networkpolicy.yaml", "networking.k8s.io/v1", "networkpolicy");
}

#[test]
fn a_policy_in_the_core_group() {
    misspelt("v1-NetworkPolicy.yaml", "v1", "NetworkPolicy");
}

#[test]
fn every_kind_that_decides_is_refused_if_it_is_misspelled() {
    for (version, kind, help) in [
        ("networking.k8s.io/v1", "Networkpolicy", "did you mean networking.k8s.io/v1 NetworkPolicy?"),
        ("networking.k8s.io/v1", "netpol", "did you mean networking.k8s.io/v1 NetworkPolicy?"),
        ("networking.k8s.io/v1beta1", "NetworkPolicy", "use apiVersion: networking.k8s.io/v1"),
        ("networking.k8s.io/v2", "NetworkPolicy", "use apiVersion: networking.k8s.io/v1"),
        ("extensions/v1beta1", "NetworkPolicy", "use apiVersion: networking.k8s.io/v1"),
        ("extensions/v1beta1", "networkpolicy", "did you mean networking.k8s.io/v1 NetworkPolicy?"),
        ("networking.k8s.io", "NetworkPolicy", "did you mean networking.k8s.io/v1 NetworkPolicy?"),
        (
            "networking.k8s.io/v1",
            "ClusterNetworkPolicy",
            "did you mean policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy?",
        ),
        (
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicies",
            "did you mean policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy?",
        ),
        ("apps/v1", "deployment", "did you mean apps/v1 Deployment?"),
        ("apps/v2", "Deployment", "use apiVersion: apps/v1"),
        ("apps", "Deployment", "did you mean apps/v1 Deployment?"),
        ("v1", "Deployment", "did you mean apps/v1 Deployment?"),
        ("apps/v1", "CronJob", "did you mean batch/v1 CronJob?"),
        ("batch/v1beta1", "CronJob", "use apiVersion: batch/v1"),
        ("v1", "namespace", "did you mean v1 Namespace?"),
        ("V1", "Namespace", "use apiVersion: v1"),
        ("v1", "Pods", "did you mean v1 Pod?"),
        ("v1", "service", "did you mean v1 Service?"),
        ("networking.k8s.io/v1", "ingress", "did you mean networking.k8s.io/v1 Ingress?"),
    ] {
        let message = format!("no matches for kind \"{kind}\" in version \"{version}\"");
        refuses(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"), &[&message, help]);
    }
}

/// The kind of another project's group is no mistake, whatever its name.
#[test]
fn kinds_of_other_projects_are_not_misspelled() {
    for (version, kind) in [
        ("example.com/v1", "Deployment"),
        ("batch.tutorial.kubebuilder.io/v1", "CronJob"),
        ("networking.istio.io/v1", "Gateway"),
        ("metrics.k8s.io/v1beta1", "PodMetrics"),
        ("v1", "ConfigMap"),
    ] {
        let text = with(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"));
        let (code, out, err) = read(&text, VERBS[0]);
        assert_eq!((code, &*err), (0, ""), "{version} {kind}: {out}");
    }
}

#[test]
fn a_list_with_a_misspelled_field_does_not_lose_its_policies() {
    for verb in ["can 1.2.3.4 shop/a:80", "connections", "describe shop/a"] {
        let words = format!("{verb} -f {CASES}/list/m.yaml");
        refused(&words, "unknown field \"Items\" of NetworkPolicyList");
        refused(&words, "did you mean `items`?");
        refused(&words, "list/m.yaml:8");
    }
}

#[test]
fn lists_of_wrong_shape_are_refused() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: data}, spec: {podSelector: {}}}";
    for (list, part) in [
        (format!("{{apiVersion: v1, kind: List, Items: [{policy}]}}"), "unknown field \"Items\" of List"),
        (format!("{{apiVersion: v1, kind: List, item: [{policy}]}}"), "did you mean `items`?"),
        (format!("{{apiVersion: v1, kind: List, items: [], Items: [{policy}]}}"), "unknown field \"Items\""),
        (format!("{{apiVersion: v1, kind: List, objects: [{policy}]}}"), "unknown field \"objects\" of List"),
        (format!("{{apiVersion: v1, kind: List, items: {policy}}}"), "cannot unmarshal object into a field of type array"),
        ("{apiVersion: v1, kind: List, items: [null]}".into(), "expected a Kubernetes object, found null"),
        ("{apiVersion: v1, kind: List, items: [a]}".into(), "expected a Kubernetes object, found a string"),
        ("{apiVersion: v1, kind: List}".into(), "items: Required value"),
        (format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicylist, Items: [{policy}]}}"), "did you mean networking.k8s.io/v1 NetworkPolicyList?"),
        (format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPoliciesList, Items: [{policy}]}}"), "no matches for kind \"NetworkPoliciesList\" in version \"networking.k8s.io/v1\""),
        (format!("{{apiVersion: v1, kind: list, Items: [{policy}]}}"), "did you mean v1 List?"),
        ("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{kind: networkpolicy, metadata: {name: a}}]}".into(), "no matches for kind \"networkpolicy\""),
    ] {
        refuses(&format!("{list}\n"), &[part]);
    }
}

#[test]
fn lists_are_read_however_they_are_called() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: data}, spec: {podSelector: {}}}";
    for list in [
        format!("{{apiVersion: v1, kind: List, items: [{policy}]}}"),
        format!("{{apiVersion: v1, kind: List, items: [{{apiVersion: v1, kind: List, items: [{policy}]}}]}}"),
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{metadata: {name: p, namespace: data}, spec: {podSelector: {}}}]}".into(),
        format!("{{apiVersion: config.kubernetes.io/v1, kind: ResourceList, items: [{policy}]}}"),
        format!("{{apiVersion: example.com/v1, kind: Bundle, items: [{policy}]}}"),
    ] {
        let (code, out, err) = read(&with(&list), VERBS[0]);
        assert_eq!((code, &*err), (1, ""), "{list}: {out}");
    }
}

#[test]
fn kinds_that_are_not_evaluated_are_a_warning() {
    for (version, kind) in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("k8s.ovn.org/v1", "UserDefinedNetwork"),
        ("k8s.ovn.org/v1", "ClusterUserDefinedNetwork"),
        ("k8s.ovn.org/v1", "EgressFirewall"),
        ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"),
        ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("policy.linkerd.io/v1beta3", "Server"),
        ("networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy"),
        ("networking.gke.io/v1alpha1", "FQDNNetworkPolicy"),
        ("networking.acme.io/v1", "AcmeNetworkPolicy"),
    ] {
        let text =
            with(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: data}}\n"));
        let (code, _, err) = read(&text, VERBS[0]);
        assert_eq!(code, 0, "{version} {kind}: {err}");
        assert!(err.contains("warning[not-evaluated]") && err.contains(version), "{err}");
        assert!(err.contains("m.yaml:") && err.contains("evaluated"), "{err}");
    }
}

#[test]
fn kinds_that_make_pods_elsewhere_are_one_note() {
    let object = |version: &str, kind: &str, name: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n---\n")
    };
    let text = with(
        &[
            object("helm.toolkit.fluxcd.io/v2", "HelmRelease", "a"),
            object("helm.toolkit.fluxcd.io/v2", "HelmRelease", "b"),
            object("argoproj.io/v1alpha1", "Application", "c"),
            object("monitoring.coreos.com/v1", "Prometheus", "d"),
            object("monitoring.coreos.com/v1", "ServiceMonitor", "e"),
        ]
        .concat(),
    );
    for verb in VERBS {
        let (code, _, err) = read(&text, verb);
        assert_eq!(code, 0, "{verb}: {err}");
        let note = err.replace('\n', " ");
        assert_eq!(note.matches("note:").count(), 1, "{err}");
        for part in [
            "4 objects make pods that are not in these files",
            "1 Application (argoproj.io), 2 HelmRelease (helm.toolkit.fluxcd.io), 1 Prometheus (monitoring.coreos.com)",
            "helm template",
            "palisade snapshot",
        ] {
            assert!(note.contains(part), "{verb}: no {part:?} in {err}");
        }
    }
}

#[test]
fn a_refused_policy_isolates_what_it_selects_and_the_answer_is_incomplete() {
    let file = format!("{CASES}/refused/m.yaml");
    refused(&format!("can data/x data/db:5432 -f {file}"), "refused/m.yaml:22:");
    let note = "NetworkPolicy data/db (crates/palisade/tests/cases/reading/refused/m.yaml:15) was refused: it isolates \
                pods app=db of namespace data for ingress, and allows nothing";
    let ask = |words: &str| {
        let (code, out, err) = run(&mut palisade(&format!("{words} -f {file} --keep-going")));
        let err = err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(err.contains(&format!("incomplete: {note}")), "{words}: {err}");
        (code, out)
    };
    let (code, out) = ask("can data/x data/db:5432");
    assert!(code == 2 && out.starts_with("denied"), "{out}");
    assert!(out.contains("NetworkPolicy data/db"), "{out}");
    assert_eq!(ask("can data/x data/db:5432 --allow-incomplete").0, 1);
    for verb in ["explain data/x data/db:5432", "connections", "describe data/db", "overview"] {
        assert_eq!(ask(verb).0, 2, "{verb}");
    }
    assert_eq!(ask("connections --allow-incomplete").0, 0);
    let (code, out) = ask("can data/x data/db:5432 -o json");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["incomplete"][0]["kind"]), (2, &"NetworkPolicy".into()));
    assert!(note.ends_with(json["incomplete"][0]["means"].as_str().unwrap()), "{out}");
    let (code, _, err) = run(&mut palisade(&format!("diff {file} {file} --keep-going")));
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = run(&mut palisade(&format!("diff {file} {file} --keep-going --allow-incomplete")));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn a_misspelled_policy_isolates_too() {
    for file in fs::read_dir(support::root().join(CASES).join("misspelt")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let words = format!(
            "can data/x data/db:5432 -f {CASES}/misspelt-base.yaml -f {CASES}/misspelt/{file} --keep-going"
        );
        let (code, out, err) = run(&mut palisade(&words));
        assert!(code == 2 && out.starts_with("denied"), "{file}: {out}{err}");
    }
}

#[test]
fn other_refused_objects_make_the_answer_incomplete() {
    for document in [
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: data, labels: [a]}}",
        "{apiVersion: v1, kind: Pod, metadata: 7}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: data, labels: {a: 7}}}",
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: 7}",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: many}}",
        "{apiVersion: apps/v1, kind: deployment, metadata: {name: d}}",
        "{apiVersion: v1, kind: List, Items: []}",
        "{apiVersion: v1, kind: [",
    ] {
        for verb in VERBS {
            let (code, out, err) = read(&with(document), &format!("{verb} --keep-going"));
            assert!(code == 2 && !out.is_empty(), "{verb}: {document}: {out}{err}");
            assert!(
                err.contains("incomplete:") && err.contains("answers are without them"),
                "{document}: {err}"
            );
            let (code, ..) = read(&with(document), &format!("{verb} --keep-going --allow-incomplete"));
            assert_eq!(code, 0, "{verb}: {document}");
        }
    }
}

#[test]
fn tabs_are_read_as_kubectl_reads_them() {
    let (code, out, err) = run(&mut palisade(&format!("describe shop/web -f {CASES}/tabs/flow.yaml")));
    assert!(code == 0 && !err.contains("error") && !err.contains("warning"), "{out}{err}");
    assert!(out.contains("shop/pod/web"), "{out}");
    let (code, _, err) = run(&mut palisade(&format!("connections -f {CASES}/tabs/flow.yaml")));
    assert!(code == 0 && !err.contains("error"), "{err}");
    for illegal in
        ["metadata:\n\tname: a\n", "metadata: {name: a}\n\t\nspec: {}\n", "metadata:\n  \t{name: a}\n"]
    {
        refuses(&format!("apiVersion: v1\nkind: Pod\n{illegal}"), &["tab", "indented with spaces, not tabs"]);
    }
}

#[test]
fn the_last_of_two_equal_keys_counts_and_a_warning_says_so() {
    let policy =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: data}\n";
    let first = "podSelector: {matchLabels: {app: db}}";
    let last = "podSelector: {matchLabels: {app: other}}";
    for (spec, code) in [
        (format!("spec: {{policyTypes: [Ingress], {first}, {last}}}\n"), 0),
        (format!("spec: {{policyTypes: [Ingress], {last}, {first}}}\n"), 1),
    ] {
        let (got, out, err) = read(&with(&format!("{policy}{spec}")), VERBS[0]);
        assert_eq!(got, code, "{out}{err}");
        assert!(err.contains("warning[duplicate-key]: NetworkPolicy p: key \"podSelector\""), "{err}");
    }
}

#[test]
fn workloads_of_other_projects_are_isolated_and_found_by_name() {
    let rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: web, namespace: data}\n\
        spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}}}\n---\n";
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: data}\n\
        spec: {podSelector: {matchLabels: {app: web}}}\n";
    for end in ["data/rollout/web", "data/web"] {
        let verb = format!("can data/x {end}:80");
        assert_eq!(read(&with(rollout), &verb).0, 0);
        let (code, out, err) = read(&with(&format!("{rollout}{policy}")), &verb);
        assert_eq!((code, &*err), (1, ""), "{out}");
        assert!(out.contains("NetworkPolicy data/p"), "{out}");
    }
}

#[test]
fn a_policy_inside_another_object_is_never_passed_over_without_a_word() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: d}, spec: {podSelector: {}}}";
    refuses(
        &format!(
            "apiVersion: template.openshift.io/v1\nkind: Template\nmetadata: {{name: t}}\nobjects: [{policy}]\n"
        ),
        &["a NetworkPolicy inside a Template is not read", "oc process"],
    );
    let graph = format!(
        "apiVersion: kro.run/v1alpha1\nkind: ResourceGraphDefinition\nmetadata: {{name: g}}\n\
         spec: {{resources: [{{id: d, template: {policy}}}]}}\n"
    );
    let (_, _, err) = read(&with(&graph), VERBS[0]);
    assert!(err.contains("a NetworkPolicy inside an object of this kind is not read"), "{err}");
}
