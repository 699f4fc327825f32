//! Renders an edit of a policy in the cluster as a `kubectl patch` command.
//!
//! The patch is verified: it is applied to the object that was read, and shown only if the result is exactly the edited
//! policy.

use std::borrow::Cow;

use palisade_analysis::{
    diff::changed_policies,
    edit::{Edit, EditAction, applied},
};
use palisade_api::ClusterSnapshot;
use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::{Cluster, Direction, Policy};
use serde_json::{Value, json};

use super::manifest;

/// Returns the command, if the policy comes from the cluster.
pub(crate) fn command(
    cluster: &Cluster,
    live: &ClusterSnapshot,
    context: Option<&str>,
    edit: &Edit,
) -> Option<String> {
    let policy = cluster.policies.get(&edit.policy)?;
    // A policy of a file replaces the one in the cluster.
    if policy.origin.as_ref()?.line().is_some() {
        return None;
    }
    let key = &edit.policy;
    let object = live.object(&key.kind, &key.namespace, &key.name)?;
    let before: Value = serde_json::from_str(&object.json).ok()?;
    let operations = operations(policy, edit)?;
    let mut after = before.clone();
    for operation in &operations {
        apply(&mut after, operation)?;
    }
    has_effect(&before, &after, edit).then(|| {
        let kind = key.kind.to_ascii_lowercase();
        let option = |name: &str, value: &str| format!(" {name} {}", quoted(value));
        let context = context.map(|c| option("--context", c)).unwrap_or_default();
        let namespace = Some(&*key.namespace).filter(|n| !n.is_empty());
        let namespace = namespace.map(|n| option("-n", n)).unwrap_or_default();
        let patch = Value::from(operations).to_string();
        format!(
            "kubectl{context}{namespace} patch {kind} {} --type=json -p {}\n",
            quoted(&key.name),
            quoted(&patch)
        )
    })
}

/// Returns the edit as JSON Patch operations (RFC 6902).
fn operations(policy: &Policy, edit: &Edit) -> Option<Vec<Value>> {
    let direction = edit.direction;
    let (list, peers) =
        if direction == Direction::Ingress { ("/spec/ingress", "from") } else { ("/spec/egress", "to") };
    let add = |path: String, value: Value| vec![json!({"op": "add", "path": path, "value": value})];
    let key = &edit.policy;
    Some(match &edit.action {
        EditAction::AddRule { at, rule } => {
            let rule = manifest::rule(rule, key, direction);
            match policy.rules(direction).map_or(0, <[_]>::len) {
                0 => add(list.to_owned(), json!([rule])),
                rules if *at < rules => add(format!("{list}/{at}"), rule),
                _ => add(format!("{list}/-"), rule),
            }
        }
        EditAction::AddPeer { rule, peer } => {
            add(format!("{list}/{rule}/{peers}/-"), manifest::peer(peer, key))
        }
        EditAction::AddPort { rule, port } => {
            let ports = if &*key.kind == "ClusterNetworkPolicy" { "protocols" } else { "ports" };
            add(format!("{list}/{rule}/{ports}/-"), manifest::port(port, key))
        }
        EditAction::RemoveRules(gone) => {
            let remove = |rule: &usize| json!({"op": "remove", "path": format!("{list}/{rule}")});
            gone.iter().rev().map(remove).collect()
        }
        EditAction::NewPolicy(_) => return None,
    })
}

/// Applies an operation. `None`: the path does not exist.
fn apply(object: &mut Value, operation: &Value) -> Option<()> {
    let (above, last) = operation["path"].as_str()?.rsplit_once('/')?;
    match (object.pointer_mut(above)?, operation.get("value")) {
        (Value::Array(list), Some(value)) => {
            let at = if last == "-" { list.len() } else { last.parse().ok()? };
            (at <= list.len()).then(|| list.insert(at, value.clone()))
        }
        (Value::Array(list), None) => {
            let at: usize = last.parse().ok()?;
            (at < list.len()).then(|| drop(list.remove(at)))
        }
        (Value::Object(fields), Some(value)) => {
            fields.insert(last.to_owned(), value.clone());
            Some(())
        }
        _ => None,
    }
}

/// Whether the patched object is exactly the edited policy.
fn has_effect(before: &Value, after: &Value, edit: &Edit) -> bool {
    let read = |object: &Value| {
        let loaded = load(
            &[Input::Cluster(object.to_string())],
            &LoadOptions { addresses: None, ..LoadOptions::default() },
        );
        (!loaded.has_errors()).then_some(Cluster { policies: loaded.cluster.policies, ..Cluster::default() })
    };
    match (read(before), read(after)) {
        (Some(before), Some(after)) => changed_policies(&applied(&before, edit), &after).is_empty(),
        _ => false,
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("web-1.a"), "web-1.a");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn operations_change_lists_and_fields() {
        let mut object = json!({"spec": {"ingress": [1, 2]}});
        let op = |op: &str, path: &str, value: Option<Value>| match value {
            Some(value) => json!({"op": op, "path": path, "value": value}),
            None => json!({"op": op, "path": path}),
        };
        apply(&mut object, &op("add", "/spec/ingress/-", Some(json!(3)))).unwrap();
        apply(&mut object, &op("add", "/spec/ingress/0", Some(json!(0)))).unwrap();
        apply(&mut object, &op("remove", "/spec/ingress/1", None)).unwrap();
        apply(&mut object, &op("add", "/spec/egress", Some(json!([])))).unwrap();
        assert_eq!(object, json!({"spec": {"ingress": [0, 2, 3], "egress": []}}));
        assert_eq!(apply(&mut object, &op("add", "/spec/ingress/9", Some(json!(0)))), None);
        assert_eq!(apply(&mut object, &op("remove", "/spec/ingress/9", None)), None);
    }
}
