//! Tells Kubernetes objects from the documents of other programs, which lie in the same folders.
//!
//! A document with neither `apiVersion` nor `kind` is of another program. It is an object, which is reported as an
//! error, if anything else suggests that it was meant to be one: a policy must not vanish because of a missing line.

use crate::{
    decode::distance,
    scalar::Scalar,
    tree::{At, Value},
};

/// Fields that only Kubernetes objects that decide have, in `spec` or by mistake at the root.
const TELLTALES: &[&str] = &["podSelector", "policyTypes", "namespaceSelector", "containers", "subject"];

/// How deeply objects are looked for in documents that are none.
const DEPTH: usize = 6;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An object, or something that was meant to be one.
    Object,
    /// Objects in an array or in a mapping, which kubectl does not read.
    Objects,
    /// Neither.
    Other,
}

/// Returns what a document is. `O(keys)`, except for documents without the fields of an object.
pub(crate) fn kind(root: &At<'_>) -> Kind {
    match root.value() {
        Value::Mapping(_) if is_object(root) => Kind::Object,
        Value::Mapping(_) if all_are_objects(root, DEPTH) => Kind::Objects,
        Value::Sequence(_) if root.items().any(|item| holds_object(&item)) => Kind::Objects,
        _ => Kind::Other,
    }
}

fn is_object(root: &At<'_>) -> bool {
    let (mut version, mut kind, mut metadata, mut spec, mut items) = (false, false, false, false, false);
    let (mut policy, mut telltale) = (false, false);
    for (key, _, value) in root.entries() {
        let text = match value.value() {
            Value::Scalar(Scalar::Str(text)) => Some(&**text),
            _ => None,
        };
        let mapping = matches!(value.value(), Value::Mapping(_));
        if key.eq_ignore_ascii_case("kind") {
            kind |= text.is_some();
            policy |= text.is_some_and(is_policy);
        } else if is_nearly_api_version(key) {
            version |= text.is_some();
        } else if key.eq_ignore_ascii_case("metadata") {
            metadata |= mapping;
        } else if key.eq_ignore_ascii_case("spec") {
            spec |= mapping;
            telltale |= TELLTALES.iter().any(|field| value.get(field).is_some());
        } else if key.eq_ignore_ascii_case("items") {
            items |= value.items().any(|item| item.get("metadata").is_some());
        } else {
            telltale |= key == "podSelector" || key == "policyTypes";
        }
    }
    let named = version || kind;
    policy || telltale || (version && kind) || (named && (metadata || spec)) || (metadata && spec) || items
}

/// Whether a key is `apiVersion` or a slip of it.
fn is_nearly_api_version(key: &str) -> bool {
    key == "apiVersion"
        || distance(&key.replace(['_', '-'], ""), "apiVersion").is_some_and(|edits| edits <= 2)
}

fn is_policy(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    kind.ends_with("networkpolicy") || kind.ends_with("networkpolicies")
}

fn holds_object(at: &At<'_>) -> bool {
    let text =
        |field: &str| at.get(field).is_some_and(|at| matches!(at.value(), Value::Scalar(Scalar::Str(_))));
    text("apiVersion") && text("kind")
}

/// Whether everything in a mapping or array is an object, as in the output of Jsonnet.
fn all_are_objects(at: &At<'_>, depth: usize) -> bool {
    if holds_object(at) {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    match at.value() {
        Value::Scalar(_) => false,
        Value::Sequence(n) => n > 0 && at.items().all(|item| all_are_objects(&item, depth)),
        Value::Mapping(n) => n > 0 && at.entries().all(|(_, _, value)| all_are_objects(&value, depth)),
    }
}

/// Whether a text that can't be parsed could be a manifest: it has the word `apiVersion`, or the key `kind`.
pub(crate) fn could_be_manifest(text: &[u8]) -> bool {
    let found = |word: &[u8], fits: &dyn Fn(usize) -> bool| {
        text.windows(word.len()).enumerate().any(|(at, found)| found.eq_ignore_ascii_case(word) && fits(at))
    };
    let is_key = |at: usize| {
        let before = at.checked_sub(1).map(|i| text[i]);
        let after = text[at + 4..].iter().copied().filter(|b| !matches!(b, b'"' | b'\'' | b' '));
        !before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            && after.take(1).eq([b':'])
    };
    found(b"apiVersion", &|_| true) || found(b"kind", &is_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Documents, Limits};

    fn of(text: &str) -> Kind {
        let tree = Documents::new(text, Limits::default()).next().and_then(Result::ok);
        tree.map_or(Kind::Other, |tree| kind(&tree.root()))
    }

    #[test]
    fn files_of_other_programs_are_none() {
        for text in [
            "replicas: 2\nimage: {tag: '1'}",
            "apiVersion: v2\nname: chart\nversion: 1.0.0",
            "apiVersion: 1\ndatasources: [{name: x}]",
            "kind: DaemonSet\nimage: {}",
            "resources: [m.yaml]",
            "version: '3'\nservices: {web: {image: x}}",
            "on: push\njobs: {a: {steps: [{run: x}]}}",
            "openapi: 3.0.0\npaths: {}\ncomponents: {}",
            "{\"name\": \"x\", \"version\": \"1\", \"dependencies\": {}}",
            "{\"kind\": \"discovery#restDescription\", \"methods\": {}}",
            "extraObjects: [{apiVersion: v1, kind: Pod}]\nreplicas: 1",
            "- op: replace\n  path: /spec",
            "text",
            "{}",
            "[]",
        ] {
            assert_eq!(of(text), Kind::Other, "{text}");
        }
    }

    #[test]
    fn what_was_meant_to_be_an_object_is_one() {
        for text in [
            "kind: NetworkPolicy\nmetadata: {name: x}",
            "kind: networkpolicies",
            "apiVersion: networking.k8s.io/v1\nmetadata: {name: x}\nspec: {podSelector: {}}",
            "Kind: NetworkPolicy\napiversion: networking.k8s.io/v1",
            "apiVerison: networking.k8s.io/v1\nkind: Pod",
            "metadata: {name: x}\nspec: {podSelector: {}}",
            "spec: {podSelector: {}, policyTypes: [Ingress]}",
            "podSelector: {}\ningress: []",
            "items: [{metadata: {name: x}}]",
            "Metadata: {name: x}\nSpec: {}",
        ] {
            assert_eq!(of(text), Kind::Object, "{text}");
        }
        for text in [
            "[{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}]",
            "{\"a.yaml\": {\"apiVersion\": \"v1\", \"kind\": \"Pod\"}, \"b\": {\"c\": {\"apiVersion\": \"v1\", \"kind\": \"Pod\"}}}",
        ] {
            assert_eq!(of(text), Kind::Objects, "{text}");
        }
    }

    #[test]
    fn only_texts_with_the_words_could_be_manifests() {
        for text in
            ["apiVersion: v1", "apiversion:", "kind: Pod", "\"kind\" : \"Pod\"", "{kind: Pod", "x\n- kind: a"]
        {
            assert!(could_be_manifest(text.as_bytes()), "{text}");
        }
        for text in ["", "kin", "kind", "mankind: x", "{ // all kinds of things\n}", "a kind of: x"] {
            assert!(!could_be_manifest(text.as_bytes()), "{text}");
        }
    }
}
