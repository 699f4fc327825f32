//! Whether an answer is what its published schema describes: every field of it is described, and every one that the
//! schema demands is there.

use serde_json::Value;

/// Checks the keywords of JSON Schema that ours uses.
#[track_caller]
pub(crate) fn conforms(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}"));
        return conforms(root, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let kind = &value["kind"];
        let fitting: Vec<&Value> = choices
            .iter()
            .map(|c| root.pointer(c["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap())
            .filter(|c| c["properties"]["kind"]["const"] == *kind)
            .collect();
        assert_eq!(fitting.len(), 1, "{at}: kind {kind}");
        return conforms(root, fitting[0], value, at);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(all) => all.iter().map(|k| k.as_str().unwrap()).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.is_empty() || kinds.contains(&kind), "{at}: {kind} is none of {kinds:?}");
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{at}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value}");
    }
    match value {
        Value::Object(fields) if schema["additionalProperties"].is_object() => {
            for (name, field) in fields {
                conforms(root, &schema["additionalProperties"], field, &format!("{at}.{name}"));
            }
        }
        Value::Object(fields) => {
            let known =
                schema["properties"].as_object().unwrap_or_else(|| panic!("{at}: fields not described"));
            for (name, field) in fields {
                let described = known.get(name).unwrap_or_else(|| panic!("{at}.{name} is not described"));
                conforms(root, described, field, &format!("{at}.{name}"));
            }
            for name in schema["required"].as_array().unwrap() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
            }
        }
        Value::Array(items) => {
            for item in items {
                conforms(root, &schema["items"], item, &format!("{at}[]"));
            }
        }
        _ => {}
    }
}
