//! Adds the plugin to a CNI configuration, as text. Pure.

use serde_json::{Map, Value, json};

use super::configuration::VERSIONS;
use crate::config::{Config, PodStart};

/// The plugin's type, which is the name of its file.
pub const PLUGIN_NAME: &str = "palisade-cni";

/// Why a configuration can't have the plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It isn't JSON.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// It isn't a configuration.
    #[error("is not a CNI configuration: {0}")]
    Shape(&'static str),
    /// Its version has no chains.
    #[error("has cniVersion {0:?}; plugins are chained since 0.3.0, and palisade-cni supports up to 1.1.0")]
    Version(String),
}

/// The plugin's own configuration, in a list of plugins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry(Value);

impl Entry {
    pub(crate) fn new(config: &Config) -> Self {
        Self(json!({
            "type": PLUGIN_NAME,
            "socket": config.socket,
            "podStart": match config.pod_start { PodStart::Closed => "closed", PodStart::Open => "open" },
            "timeoutMilliseconds": config.pod_start_timeout,
        }))
    }
}

/// Adds the plugin to the end of a list of plugins, or renews it where it is. Returns `None` if the text has it already.
pub(super) fn with_entry(text: &str, entry: &Entry) -> Result<Option<String>, ChainError> {
    let mut list = object(text)?;
    check_version(&list)?;
    let plugins = plugins(&mut list)?;
    match plugins.iter_mut().find(|plugin| is_ours(plugin)) {
        Some(plugin) if *plugin == entry.0 => return Ok(None),
        Some(plugin) => *plugin = entry.0.clone(),
        None => plugins.push(entry.0.clone()),
    }
    Ok(Some(pretty(list)))
}

/// Removes the plugin. Returns `None` if the text doesn't have it.
pub(super) fn without_entry(text: &str) -> Result<Option<String>, ChainError> {
    let mut list = object(text)?;
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    let has_changed = plugins.len() != before;
    Ok(has_changed.then(|| pretty(list)))
}

/// Whether a list has the plugin.
pub(super) fn has_entry(text: &str) -> bool {
    object(text).is_ok_and(|mut list| plugins(&mut list).is_ok_and(|plugins| plugins.iter().any(is_ours)))
}

/// Makes a list of the configuration of a single plugin, as runtimes do, and adds the plugin.
pub(super) fn list_of(text: &str, entry: &Entry) -> Result<String, ChainError> {
    let plugin = object(text)?;
    check_version(&plugin)?;
    if plugin.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(ChainError::Shape("it has no type"));
    }
    let mut list = Map::new();
    for key in ["cniVersion", "name"] {
        list.extend(plugin.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    list.insert("plugins".to_owned(), Value::Array(vec![Value::Object(plugin), entry.0.clone()]));
    Ok(pretty(list))
}

fn object(text: &str) -> Result<Map<String, Value>, ChainError> {
    match serde_json::from_str(text).map_err(|error| ChainError::NotJson(error.to_string()))? {
        Value::Object(object) => Ok(object),
        _ => Err(ChainError::Shape("it is not an object")),
    }
}

fn plugins(list: &mut Map<String, Value>) -> Result<&mut Vec<Value>, ChainError> {
    match list.get_mut("plugins").and_then(Value::as_array_mut) {
        Some(plugins) if !plugins.is_empty() => Ok(plugins),
        _ => Err(ChainError::Shape("it has no plugins")),
    }
}

fn check_version(object: &Map<String, Value>) -> Result<(), ChainError> {
    let version = object.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    if VERSIONS.contains(&version) { Ok(()) } else { Err(ChainError::Version(version.to_owned())) }
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN_NAME)
}

fn pretty(object: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry::new(&Config::default())
    }

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"pods","disableCheck":true,"plugins":[{"type":"bridge","ipam":{}},{"type":"portmap"}]}"#;

    #[test]
    fn a_list_gets_the_plugin_once_and_loses_it_again() {
        let chained = with_entry(LIST, &entry()).unwrap().unwrap();
        assert_eq!(with_entry(&chained, &entry()).unwrap(), None);
        let value: Value = serde_json::from_str(&chained).unwrap();
        assert_eq!(value["plugins"][2]["type"], PLUGIN_NAME);
        assert_eq!(value["plugins"][2]["podStart"], "closed");
        let open = Entry::new(&Config { pod_start: PodStart::Open, ..Config::default() });
        let renewed: Value = serde_json::from_str(&with_entry(&chained, &open).unwrap().unwrap()).unwrap();
        assert_eq!(
            (renewed["plugins"].as_array().unwrap().len(), &renewed["plugins"][2]["podStart"]),
            (3, &json!("open"))
        );
        let removed: Value = serde_json::from_str(&without_entry(&chained).unwrap().unwrap()).unwrap();
        assert_eq!(removed, serde_json::from_str::<Value>(LIST).unwrap());
        assert_eq!(without_entry(LIST).unwrap(), None);
    }

    #[test]
    fn a_single_plugin_becomes_a_list() {
        let single = r#"{"cniVersion":"0.4.0","name":"pods","type":"bridge","ipam":{"type":"host-local"}}"#;
        let list: Value = serde_json::from_str(&list_of(single, &entry()).unwrap()).unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("pods"), &json!("0.4.0")));
        assert_eq!(list["plugins"][0], serde_json::from_str::<Value>(single).unwrap());
        assert!(has_entry(&list.to_string()) && !has_entry(single));
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_the_reason() {
        let of = |text: &str| with_entry(text, &entry()).unwrap_err().to_string();
        assert!(of("{").starts_with("is not JSON: EOF"), "{}", of("{"));
        assert!(of("[]").contains("not an object"));
        assert!(of(r#"{"cniVersion":"1.0.0","plugins":[]}"#).contains("no plugins"));
        assert!(of(r#"{"cniVersion":"0.2.0","plugins":[{"type":"x"}]}"#).contains("0.2.0"));
        assert!(of(r#"{"plugins":[{"type":"x"}]}"#).contains("cniVersion"));
        assert!(
            list_of(r#"{"cniVersion":"1.0.0","name":"x"}"#, &entry())
                .unwrap_err()
                .to_string()
                .contains("no type")
        );
    }
}
