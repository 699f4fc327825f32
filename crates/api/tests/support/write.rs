//! Single objects: get, create, replace, patch.

use http::Method;
use serde_json::{Value, json};

use super::server::{State, key, status};

/// Handles a request for a single object; `None` if the request is a list or a watch.
pub(super) fn one(
    state: &mut State,
    method: &Method,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Option<(u16, String)> {
    let object_path = path.strip_suffix("/status").unwrap_or(path);
    let (parent, name) = object_path.rsplit_once('/')?;
    let forbidden = |s: &State| s.forbidden.iter().any(|f| object_path.starts_with(f.as_str()));
    let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if method == Method::POST {
        if forbidden(state) {
            return Some((403, status(403, "forbidden")));
        }
        let exists = state.objects.get(path).is_some_and(|o| o.contains_key(&key(&sent)));
        if exists {
            return Some((409, status(409, "already exists")));
        }
        state.put(path, sent.clone());
        return Some((201, state.objects[path][&key(&sent)].to_string()));
    }
    let known = state.objects.get(parent).is_some_and(|o| o.values().any(|v| v["metadata"]["name"] == name));
    let is_item = known || parent.ends_with("/leases") || parent.ends_with("/events") || path != object_path;
    if !is_item && method == Method::GET {
        return None;
    }
    if forbidden(state) {
        return Some((403, status(403, "forbidden")));
    }
    let objects = state.objects.get(parent);
    let found = objects.and_then(|o| o.values().find(|v| v["metadata"]["name"] == name)).cloned();
    let Some(mut object) = found else { return Some((404, status(404, "not found"))) };
    match *method {
        Method::GET => return Some((200, object.to_string())),
        Method::PUT => {
            if sent["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return Some((409, status(409, "the object has been modified")));
            }
            object = sent;
        }
        _ => {
            let uid = &sent["metadata"]["uid"];
            if !uid.is_null() && *uid != object["metadata"]["uid"] {
                return Some((409, status(409, "uid mismatch")));
            }
            let version = &sent["metadata"]["resourceVersion"];
            if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                return Some((409, status(409, "the object has been modified")));
            }
            merge(&mut object, &sent, content_type.contains("apply-patch"));
        }
    }
    state.put(parent, object.clone());
    Some((200, state.objects[parent][&key(&object)].to_string()))
}

/// Applies a merge patch. An apply patch merges lists of conditions by type.
fn merge(into: &mut Value, patch: &Value, apply: bool) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(json!(null)), value, apply);
            }
        }
        (Value::Array(into), Value::Array(patch)) if apply => {
            for value in patch {
                match into.iter_mut().find(|i| i["type"] == value["type"]) {
                    Some(known) => *known = value.clone(),
                    None => into.push(value.clone()),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
