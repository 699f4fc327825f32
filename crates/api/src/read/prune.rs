//! Reduces an object to the fields that are kept.

use serde_json::{Map, Value};

use super::snapshot::Object;
use crate::{request::VersionedKind, resource::ResourceKind};

/// Returns `item` with the fields that are kept, or `None` if it has no name, or no namespace where it needs one.
pub(super) fn prune(resource: &VersionedKind, item: &Value) -> Option<Object> {
    let kind = resource.kind;
    let text = |field: &str| item.get("metadata")?.get(field)?.as_str().filter(|s| !s.is_empty());
    let name = text("name")?.to_owned();
    let namespace = if kind.is_namespaced() { text("namespace")?.to_owned() } else { String::new() };
    let mut kept = pick(item, kind.fields());
    let fields = kept.as_object_mut()?;
    let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    metadata.insert("name".to_owned(), name.clone().into());
    if kind.is_namespaced() {
        metadata.insert("namespace".to_owned(), namespace.clone().into());
    }
    if kind == ResourceKind::Pod {
        for list in ["/spec/containers", "/spec/initContainers"] {
            if let Some(Value::Array(containers)) = kept.pointer_mut(list) {
                containers.retain(|container| !is_empty(container));
            }
        }
    }
    let fields = kept.as_object_mut()?;
    if kind == ResourceKind::Pod {
        mark_pending(fields);
    }
    // The items of a list have no apiVersion and kind.
    fields.insert("apiVersion".to_owned(), resource.api_version.clone().into());
    fields.insert("kind".to_owned(), kind.as_str().into());
    Some(Object { kind, namespace, name, json: kept.to_string().into() })
}

/// Sets the phase of a pod without an address to Pending. Otherwise the loader would assign it an address.
fn mark_pending(pod: &mut Map<String, Value>) {
    let status = pod.entry("status").or_insert_with(|| Value::Object(Map::new()));
    let has = |field: &str| status.get(field).is_some_and(|v| !is_empty(v) && v != "");
    let ended = status.get("phase").is_some_and(|p| p == "Succeeded" || p == "Failed");
    if !has("podIP") && !has("podIPs") && !ended && status.is_object() {
        status["phase"] = "Pending".into();
    }
}

/// Returns the parts of a value that `paths` name.
fn pick(value: &Value, paths: &[&str]) -> Value {
    match value {
        Value::Array(items) => {
            // Empty elements stay, since reasons name rules by their index.
            items.iter().map(|item| pick(item, paths)).collect()
        }
        Value::Object(fields) => {
            let picked = fields.iter().filter_map(|(key, inner)| {
                let rests: Vec<&str> =
                    paths.iter().filter_map(|path| path.strip_prefix(key.as_str())).collect();
                if rests.contains(&"") {
                    return Some((key.clone(), inner.clone()));
                }
                let rests: Vec<&str> = rests.iter().filter_map(|rest| rest.strip_prefix('.')).collect();
                (!rests.is_empty()).then(|| (key.clone(), pick(inner, &rests))).filter(|(_, v)| !is_empty(v))
            });
            Value::Object(picked.collect())
        }
        // A value of an unexpected type is kept; the decoder reports it.
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prune_v1(kind: ResourceKind, item: &Value) -> Option<Object> {
        prune(&VersionedKind::new(kind, "v1"), item)
    }

    #[test]
    fn a_pod_keeps_what_decisions_and_names_need() {
        let pod = json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u", "labels": {"app": "web"},
                "annotations": {"token": "hunter2"},
                "managedFields": [{}],
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": "x", "controller": true}],
            },
            "spec": {
                "nodeName": "n1",
                "volumes": [{"secret": {}}],
                "containers": [
                    {"name": "a", "env": [{"name": "P", "value": "hunter2"}],
                     "ports": [{"name": "http", "containerPort": 80, "hostPort": 8, "unknown": 1}]},
                    {"name": "b", "args": ["--password=hunter2"]},
                ],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "h"},
        });
        let kept = prune_v1(ResourceKind::Pod, &pod).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&kept.json).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web-1", "namespace": "shop", "labels": {"app": "web"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}],
                },
                "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "http", "containerPort": 80, "hostPort": 8}]}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
            })
        );
        assert_eq!((&*kept.namespace, &*kept.name), ("shop", "web-1"));
    }

    #[test]
    fn keys_of_routes_are_removed_and_empty_selectors_stay() {
        let route = json!({"metadata": {"name": "r", "namespace": "n"},
            "spec": {"host": "h", "tls": {"termination": "edge", "key": "hunter2", "certificate": "c"}}});
        let kept = prune_v1(ResourceKind::Route, &route).unwrap();
        assert!(!kept.json.contains("hunter2") && kept.json.contains("edge"), "{}", kept.json);
        let route = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"rules": [{}, {"filters": [
            {"requestHeaderModifier": {"set": [{"name": "authorization", "value": "hunter2"}]}},
            {"requestMirror": {"backendRef": {"name": "copy"}}}]}]}});
        let kept = prune_v1(ResourceKind::HTTPRoute, &route).unwrap();
        let kept: Value = serde_json::from_str(&kept.json).unwrap();
        let mirror = json!({"requestMirror": {"backendRef": {"name": "copy"}}});
        assert_eq!(kept["spec"], json!({"rules": [{}, {"filters": [{}, mirror]}]}), "positions stay");
        let policy = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"podSelector": {}, "ingress": [{}]}});
        let kept = prune_v1(ResourceKind::NetworkPolicy, &policy).unwrap();
        assert!(kept.json.contains(r#""spec":{"ingress":[{}],"podSelector":{}}"#), "{}", kept.json);
        assert_eq!(prune_v1(ResourceKind::Pod, &json!({"metadata": {"name": "p"}})), None);
    }
}
