//! Renders an edit of an object in the cluster as a `kubectl` command.
//!
//! A patch of a policy is verified: it is applied to the object that was read, and shown only if the result is exactly the
//! edited policy.

use std::borrow::Cow;

use palisade_analysis::{
    diff::changed_policies,
    edit::{Edit, RuleEdit, applied},
};
use palisade_api::ClusterSnapshot;
use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::{Cluster, Direction, Policy, PolicyKey};
use serde_json::{Map, Value, json};

use super::manifest;

/// Returns the command, if the edited object comes from the cluster. `cluster` is what earlier edits of the plan left.
pub(crate) fn command(
    cluster: &Cluster,
    live: &ClusterSnapshot,
    context: Option<&str>,
    edit: &Edit,
) -> Option<String> {
    let option = |name: &str, value: &str| format!(" {name} {}", quoted(value));
    let context = context.map(|c| option("--context", c)).unwrap_or_default();
    let namespaced = |namespace: &str| {
        Some(namespace).filter(|n| !n.is_empty()).map(|n| option("-n", n)).unwrap_or_default()
    };
    match edit {
        Edit::NewPolicy(_) => {
            let yaml = manifest::text(edit);
            Some(format!("kubectl{context} apply -f - <<'EOF'\n{yaml}EOF\n"))
        }
        Edit::Labels { namespace, workload, labels } => {
            let labels: Map<String, Value> =
                labels.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect();
            let template = json!({"template": {"metadata": {"labels": labels}}});
            let spec = match &*workload.kind {
                "CronJob" => json!({"jobTemplate": {"spec": template}}),
                _ => template,
            };
            let kind = workload.kind.to_ascii_lowercase();
            live.object(&workload.kind, namespace, &workload.name)?;
            Some(format!(
                "kubectl{context}{} patch {kind} {} --type=merge -p {}\n",
                namespaced(namespace),
                quoted(&workload.name),
                quoted(&json!({"spec": spec}).to_string())
            ))
        }
        Edit::Rules { .. } | Edit::Subject { .. } | Edit::Direction { .. } => {
            let key = edit.policy()?;
            let operations = verified(cluster, live, key, edit)?;
            Some(format!(
                "kubectl{context}{} patch {} {} --type=json -p {}\n",
                namespaced(&key.namespace),
                key.kind.to_ascii_lowercase(),
                quoted(&key.name),
                quoted(&Value::from(operations).to_string())
            ))
        }
    }
}

/// Returns an edit of a policy as JSON Patch operations that have exactly its effect.
fn verified(cluster: &Cluster, live: &ClusterSnapshot, key: &PolicyKey, edit: &Edit) -> Option<Vec<Value>> {
    let policy = cluster.policies.get(key)?;
    // A policy of a file replaces the one in the cluster.
    if policy.origin.as_ref()?.line().is_some() {
        return None;
    }
    let object = live.object(&key.kind, &key.namespace, &key.name)?;
    let before: Value = serde_json::from_str(&object.json).ok()?;
    let operations = operations(policy, edit)?;
    let mut after = before.clone();
    for operation in &operations {
        apply(&mut after, operation)?;
    }
    has_effect(&before, &after, edit).then_some(operations)
}

/// Returns the edit as JSON Patch operations (RFC 6902).
fn operations(policy: &Policy, edit: &Edit) -> Option<Vec<Value>> {
    let operation = |op: &str, path: String, value: Value| json!({"op": op, "path": path, "value": value});
    let remove = |path: String| json!({"op": "remove", "path": path});
    let key = &policy.key;
    let (direction, action) = match edit {
        Edit::Rules { direction, action, .. } => (*direction, action),
        Edit::Subject { selector, .. } => {
            let selector = manifest::selector(selector);
            return Some(vec![operation("replace", "/spec/podSelector".to_owned(), selector)]);
        }
        Edit::Direction { direction, .. } => {
            let word = if *direction == Direction::Ingress { "Ingress" } else { "Egress" };
            return Some(vec![operation("add", "/spec/policyTypes/-".to_owned(), word.into())]);
        }
        Edit::NewPolicy(_) | Edit::Labels { .. } => return None,
    };
    let (list, peers) =
        if direction == Direction::Ingress { ("/spec/ingress", "from") } else { ("/spec/egress", "to") };
    let ports = if &*key.kind == "ClusterNetworkPolicy" { "protocols" } else { "ports" };
    Some(match action {
        RuleEdit::AddRule { at, rule } => {
            let rule = manifest::rule(rule, key, direction);
            vec![match policy.rules(direction).map_or(0, <[_]>::len) {
                0 => operation("add", list.to_owned(), json!([rule])),
                rules if *at < rules => operation("add", format!("{list}/{at}"), rule),
                _ => operation("add", format!("{list}/-"), rule),
            }]
        }
        RuleEdit::AddPeers { rule, peers: new } => {
            let new = manifest::peers_of(new, key).into_iter();
            new.map(|peer| operation("add", format!("{list}/{rule}/{peers}/-"), peer)).collect()
        }
        RuleEdit::AddPorts { rule, ports: new } => {
            let new = new.iter().map(|p| manifest::port(p, key));
            new.map(|port| operation("add", format!("{list}/{rule}/{ports}/-"), port)).collect()
        }
        RuleEdit::ReplacePeer { rule, index, peer } => {
            let peer = manifest::peer(peer, key);
            vec![operation("replace", format!("{list}/{rule}/{peers}/{index}"), peer)]
        }
        RuleEdit::ReplacePort { rule, index, ports: new } => {
            let place = format!("{list}/{rule}/{ports}/{index}");
            let new = new.iter().rev().map(|port| operation("add", place.clone(), manifest::port(port, key)));
            [remove(place.clone())].into_iter().chain(new).collect()
        }
        RuleEdit::RemovePeers { rule, gone } => {
            gone.iter().rev().map(|n| remove(format!("{list}/{rule}/{peers}/{n}"))).collect()
        }
        RuleEdit::RemovePorts { rule, gone } => {
            gone.iter().rev().map(|n| remove(format!("{list}/{rule}/{ports}/{n}"))).collect()
        }
        RuleEdit::RemoveRules(gone) => gone.iter().rev().map(|n| remove(format!("{list}/{n}"))).collect(),
    })
}

/// Applies an operation. `None`: the path does not exist.
fn apply(object: &mut Value, operation: &Value) -> Option<()> {
    let (above, last) = operation["path"].as_str()?.rsplit_once('/')?;
    if operation["op"] == "replace" {
        let place = object.pointer_mut(operation["path"].as_str()?)?;
        *place = operation.get("value")?.clone();
        return Some(());
    }
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
