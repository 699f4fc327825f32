//! Objects of an API server together with objects of files.

use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::{Family, ObjectKey};

fn from_cluster(items: &str) -> Input {
    Input::Cluster(format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#))
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"w","namespace":"shop"},"status":{"phase":"Running"}}"#;

#[test]
fn no_address_is_made_up_for_an_object_of_the_cluster() {
    let service =
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s","namespace":"shop"},"spec":{}}"#;
    let loaded = load(&[from_cluster(&format!("{POD},{service}"))], &LoadOptions::default());
    assert!(loaded.diagnostics.is_empty());
    let key = |name: &str| ObjectKey::new("shop", name);
    assert!(loaded.cluster.pods[&key("w")].addresses.is_empty());
    assert!(loaded.cluster.services[&key("s")].addresses.is_empty());
    // The same object in a file gets one.
    let file = Input::Text { name: "f".into(), text: POD.into() };
    assert!(load(&[file], &LoadOptions::default()).cluster.pods[&key("w")].address(Family::V4).is_some());
}

#[test]
fn origins_in_the_cluster_are_object_and_field() {
    let policy = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"p","namespace":"shop"},
        "spec":{"podSelector":{},"ingress":[{"from":[{"podSelector":{}}]}]}}"#;
    let loaded = load(&[from_cluster(policy)], &LoadOptions::default());
    let policy = loaded.cluster.policies.values().next().expect("it is there");
    assert_eq!(policy.origin.as_ref().map(ToString::to_string).as_deref(), Some("networkpolicy/shop/p"));
    let rule = &policy.ingress.as_ref().expect("it has rules")[0];
    let peer = rule.peers.as_ref().expect("it has peers")[0].origin.clone().expect("it has an origin");
    assert_eq!(peer.to_string(), "networkpolicy/shop/p spec.ingress[0].from[0]");
    assert_eq!((peer.line(), &*peer.within()), (None, "spec.ingress[0].from[0]"));
}

/// A broken object is an error, which names the object.
#[test]
fn a_broken_object_of_the_cluster_is_an_error_without_a_file() {
    let bad = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b","namespace":"shop"},"spec":{"nodeName":7}}"#;
    let loaded = load(&[from_cluster(&format!("{bad},{POD}"))], &LoadOptions::default());
    assert_eq!(loaded.cluster.pods.len(), 1);
    let found: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("error: Pod shop/b: spec.nodeName: "), "{found:?}");
}

/// The API server's JSON holds what anybody writes in an annotation, and YAML allows less.
#[test]
fn an_annotation_may_hold_any_character() {
    let pod = POD.replacen(r#""name""#, "\"annotations\":{\"a\":\"\u{7f}\u{82}\u{ffff}\"},\"name\"", 1);
    let loaded = load(&[from_cluster(&pod)], &LoadOptions::default());
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    assert_eq!(loaded.cluster.pods.len(), 1);
}

#[test]
fn a_file_may_replace_an_object_of_the_cluster_but_not_the_reverse() {
    let file = || Input::Text { name: "f".into(), text: POD.into() };
    let codes = |inputs: &[Input]| load(inputs, &LoadOptions::default()).diagnostics.len();
    assert_eq!(codes(&[from_cluster(POD), file()]), 0);
    assert_eq!(codes(&[file(), file()]), 1);
}
