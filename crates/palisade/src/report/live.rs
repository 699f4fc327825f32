//! Objects of a running cluster as YAML, with the line of each field. They have no file; the API server sends them as JSON.

use std::{collections::HashMap, fmt::Write as _};

use palisade_api::ClusterSnapshot;
use serde_json::Value;

/// An object as YAML.
pub(crate) struct LiveText {
    pub(crate) text: String,
    /// The line of each field by its path, as positions have it: `spec.ingress[0]`. The path of the object is empty.
    lines: HashMap<String, u32>,
}

impl LiveText {
    /// Writes the object with kubectl's name, such as `networkpolicy/shop/web`. `None` if the cluster has none.
    pub(crate) fn of(live: &ClusterSnapshot, name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('/')?;
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        let object = live.objects.iter().find(|object| {
            object.name == name
                && object.namespace == namespace
                && object.kind.as_str().eq_ignore_ascii_case(kind)
        })?;
        Some(Self::new(&serde_json::from_str(&object.json).ok()?))
    }

    pub(crate) fn new(object: &Value) -> Self {
        let mut writer = Writer { text: String::new(), lines: HashMap::from([(String::new(), 1)]), line: 1 };
        writer.fields(object, 0, "");
        Self { text: writer.text, lines: writer.lines }
    }

    /// Returns the line of a field.
    pub(crate) fn line(&self, path: &str) -> Option<u32> {
        self.lines.get(path).copied()
    }
}

struct Writer {
    text: String,
    lines: HashMap<String, u32>,
    line: u32,
}

impl Writer {
    /// Writes the fields of an object or the items of an array, each on lines of its own. The first one continues the line
    /// that is begun.
    fn fields(&mut self, value: &Value, indent: usize, path: &str) {
        match value {
            Value::Object(fields) => {
                for (at, (key, inner)) in fields.iter().enumerate() {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.begin(at, indent, &path);
                    _ = write!(self.text, "{}:", scalar(&Value::from(key.as_str())));
                    // The items of an array stand below its key.
                    let deeper = if inner.is_array() { indent } else { indent + 2 };
                    if is_block(inner) {
                        self.end();
                        self.text += &" ".repeat(deeper);
                        self.fields(inner, deeper, &path);
                    } else {
                        _ = write!(self.text, " {}", scalar(inner));
                        self.end();
                    }
                }
            }
            Value::Array(items) => {
                for (at, inner) in items.iter().enumerate() {
                    let path = format!("{path}[{at}]");
                    self.begin(at, indent, &path);
                    self.text += "- ";
                    if is_block(inner) {
                        self.fields(inner, indent + 2, &path);
                    } else {
                        self.text += &scalar(inner);
                        self.end();
                    }
                }
            }
            other => {
                self.text += &scalar(other);
                self.end();
            }
        }
    }

    fn begin(&mut self, at: usize, indent: usize, path: &str) {
        if at > 0 {
            self.text += &" ".repeat(indent);
        }
        self.lines.insert(path.to_owned(), self.line);
    }

    fn end(&mut self) {
        self.text.push('\n');
        self.line += 1;
    }
}

/// Whether a value has lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Writes a value on one line. A text that could be read as anything else is quoted: JSON is YAML.
fn scalar(value: &Value) -> String {
    let is_plain = |text: &str| {
        let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"./_-".contains(&b));
        let is_reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word));
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && is_word && !is_reserved
    };
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_yaml_is_the_object_and_fields_have_lines() {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"a/b": "true", "n": "1"}},
            "spec": {
                "podSelector": {},
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "x: y\n# z"}}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
                    {},
                    {"ports": [{"port": 80}, {"port": "http"}]},
                ],
                "nested": [[1, [2]], []],
            },
        });
        let yaml = LiveText::new(&object);
        let read: Value = serde_saphyr::from_str(&yaml.text).unwrap();
        assert_eq!(read, object, "{}", yaml.text);
        let lines: Vec<&str> = yaml.text.lines().collect();
        for (path, line) in [
            ("", "apiVersion: networking.k8s.io/v1"),
            ("metadata.name", "  name: web"),
            ("spec.ingress", "  ingress:"),
            ("spec.ingress[0]", "  - from:"),
            ("spec.ingress[0].from[1].ipBlock.except[0]", "        - \"10.1.0.0/16\""),
            ("spec.ingress[1]", "  - {}"),
            ("spec.ingress[2].ports[1]", "    - port: http"),
        ] {
            let at = yaml.line(path).unwrap_or_else(|| panic!("{path}:\n{}", yaml.text));
            assert_eq!(lines[at as usize - 1], line, "{path}:\n{}", yaml.text);
        }
        assert_eq!(yaml.line("spec.egress"), None);
    }
}
