//! Which field a finding names.

use palisade_lint::{LintOptions, RULES, SourceText, lint, locate};
use palisade_manifest::{Input, LoadOptions, load};

use super::PODS;

/// The fields that a rule names in a text.
#[track_caller]
fn fields(code: &str, text: &str) -> Vec<Option<String>> {
    let input = Input::Text { name: "p.yaml".into(), text: text.into() };
    let loaded = load(&[input], &LoadOptions::default());
    let texts = [SourceText::new("p.yaml", text)];
    let rules: Vec<_> = RULES.iter().copied().filter(|rule| rule.code == code).collect();
    let options = LintOptions { default_namespace: "default", plugin: None };
    let mut findings = lint(&loaded, &texts, &rules, &options).findings;
    assert!(!findings.is_empty(), "{code} finds nothing in:\n{text}");
    locate(&mut findings, &texts);
    findings.into_iter().map(|finding| finding.field).collect()
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n{spec}\n"
    )
}

#[test]
fn the_field_is_that_of_the_object() {
    let some = |field: &str| vec![Some(field.to_owned())];
    let alone = "  podSelector: {}\n  ingress:\n  - from: [{podSelector: {}}]\n  - ports: [{port: 5432}]";
    let unknown = "  podSelecter: {}\n  podSelector: {}\n  policyTypes: [Ingress]";
    let block = "  podSelector: {}\n  egress:\n  - to:\n    - ipBlock: {cidr: 10.0.0.0/33}";
    let open = "  podSelector: {}\n  policyTypes: [Ingress]\n  ingress:\n  - {}";
    let web = "  podSelector: {}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n    - podSelector: {matchLabels: {app: web}}";
    let near = "  podSelector: {}\n  ingress:\n  - from:\n    - podSelector:\n        matchLabels:\n          app: wbe";
    let doubled = policy("  podSelector: {}");
    for (code, text, expected) in [
        // A list item and its first key begin at the same byte: the item is meant.
        ("PAL017", format!("{PODS}{}", policy(alone)), some("spec.ingress[1]")),
        // So do the spec and its first key: the key is meant.
        ("PAL015", format!("{PODS}{}", policy(unknown)), some("spec.podSelecter")),
        // And a list and its first item: the item is meant.
        (
            "PAL020",
            format!("{PODS}{}---\n{}", policy(open), policy(web).replace("name: p", "name: q")),
            some("spec.ingress[0]"),
        ),
        (
            "PAL037",
            format!("{PODS}{}", policy(near)),
            some("spec.ingress[0].from[0].podSelector.matchLabels.app"),
        ),
        ("PAL008", policy(block), some("spec.egress[0].to[0].ipBlock.cidr")),
        // The object itself has no field.
        ("PAL004", format!("{doubled}---\n{doubled}"), vec![None]),
    ] {
        assert_eq!(fields(code, &text), expected, "{code} in:\n{text}");
    }
}

#[test]
fn paths_begin_at_the_object_in_lists_and_json() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "shop"},
         "spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}}]}"#;
    assert_eq!(fields("PAL008", json), [Some("spec.egress[0].to[0].ipBlock.cidr".to_owned())]);
}

/// Each value is visited once, so aliases of aliases cost no more than what is written.
#[test]
fn the_field_of_an_alias_is_where_it_is_written() {
    let rules = "  podSelector: {}\n  egress:\n  - to: &to [{ipBlock: {cidr: 10.0.0.0/33}}]\n  - to: *to";
    let found = fields("PAL008", &policy(rules));
    assert!(
        found.iter().all(|field| field.as_deref() == Some("spec.egress[0].to[0].ipBlock.cidr")),
        "{found:?}"
    );
}
