//! Decodes the lines of a watch, and as much as possible of objects that are malformed.

use std::collections::HashMap;

use palisade_manifest::api_objects::{ApiObjectMeta, JsonString, StringMap};
use palisade_policy::MODE_KEY;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ApiError, first_line};

/// The annotation of the bookmark that ends a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One line of a watch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    /// An object was added or changed.
    Set(&'a str),
    /// An object was deleted.
    Deleted(&'a str),
    /// All events up to a resource version have been sent.
    Bookmark(&'a str),
    /// The watch ended with an error.
    Error(&'a str),
}

/// Decodes a line.
///
/// # Errors
/// If the line is not a watch event.
pub(super) fn message(line: &[u8]) -> Result<Message<'_>, ApiError> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type", borrow)]
        kind: JsonString<'a>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Line { kind, object } = serde_json::from_slice(line)?;
    let object = object.get();
    match &*kind {
        "ADDED" | "MODIFIED" => Ok(Message::Set(object)),
        "DELETED" => Ok(Message::Deleted(object)),
        "BOOKMARK" => Ok(Message::Bookmark(object)),
        "ERROR" => Ok(Message::Error(object)),
        other => Err(ApiError::malformed(format!("a watch event of unknown type {:?}", first_line(other)))),
    }
}

/// Decodes a bookmark. Returns the resource version up to which all events have been sent, and whether it ends a streamed list.
///
/// # Errors
/// If the object is not a bookmark.
pub(super) fn bookmark(object: &str) -> Result<(String, bool), ApiError> {
    #[derive(Deserialize)]
    struct Bookmark<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        #[serde(borrow)]
        resource_version: JsonString<'a>,
        #[serde(borrow, default)]
        annotations: Option<StringMap<'a>>,
    }
    let Bookmark { metadata } = serde_json::from_str(object)?;
    let ends = |(k, v): &(JsonString<'_>, JsonString<'_>)| &**k == INITIAL_EVENTS_END && &**v == "true";
    let ends_list = metadata.annotations.iter().flat_map(|a| &a.0).any(ends);
    Ok((metadata.resource_version.to_string(), ends_list))
}

/// A policy, a Service or a namespace: its metadata, and its spec and status as text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct UndecodedObject<'a> {
    #[serde(borrow)]
    pub(super) metadata: ApiObjectMeta<'a>,
    #[serde(borrow)]
    pub(super) spec: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) status: Option<&'a RawValue>,
}

/// What identifies an object and its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) resource_version: String,
    /// The annotation that sets the mode of a policy.
    pub(super) mode: Option<String>,
}

impl Identity {
    pub(super) fn of(meta: &ApiObjectMeta<'_>) -> Self {
        Self {
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            uid: meta.uid.to_string(),
            generation: meta.generation,
            resource_version: meta.resource_version.to_string(),
            mode: meta.annotations.as_ref().and_then(|a| Some(a.mode.as_ref()?.to_string())),
        }
    }

    /// Decodes each field on its own, so that a malformed one does not affect the others. Returns `None` without a name, since it is
    /// unknown then which object this is.
    pub(super) fn recover(object: &str) -> Option<Self> {
        let fields: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
        let metadata: HashMap<String, &RawValue> =
            serde_json::from_str(fields.get("metadata")?.get()).ok()?;
        let text = |key: &str| -> Option<String> { serde_json::from_str(metadata.get(key)?.get()).ok() };
        let annotations: Option<HashMap<String, &RawValue>> =
            metadata.get("annotations").and_then(|all| serde_json::from_str(all.get()).ok());
        let mode = annotations.and_then(|all| serde_json::from_str(all.get(MODE_KEY)?.get()).ok());
        let generation = metadata.get("generation").and_then(|g| serde_json::from_str(g.get()).ok());
        Some(Self {
            namespace: text("namespace").unwrap_or_default(),
            name: text("name").filter(|n| !n.is_empty())?,
            uid: text("uid").unwrap_or_default(),
            generation: generation.unwrap_or_default(),
            resource_version: text("resourceVersion").unwrap_or_default(),
            mode,
        })
    }
}

/// Returns the `spec` of a malformed object.
pub(super) fn recover_spec(object: &str) -> Option<&str> {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    fields.get("spec").map(|spec| spec.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiErrorKind;

    #[test]
    fn lines_are_decoded_and_malformed_ones_are_errors() {
        let line = br#"{"type":"MODIFIED","object":{"kind":"Pod"}}"#;
        assert!(matches!(message(line), Ok(Message::Set(r#"{"kind":"Pod"}"#))));
        let reordered = br#"{"object":{},"type":"DELETED"}"#;
        assert!(matches!(message(reordered), Ok(Message::Deleted("{}"))), "in any order");
        for bad in [
            &b"{"[..],
            b"[]",
            b"<html>",
            b"{\"type\":\"NEWS\",\"object\":{}}",
            b"{\"type\":\"ADDED\"}",
            b"\xff",
        ] {
            assert!(matches!(message(bad).unwrap_err().kind(), ApiErrorKind::Malformed(_)), "{bad:?}");
        }
    }

    #[test]
    fn bookmarks() {
        let plain =
            r#"{"kind":"Pod","metadata":{"resourceVersion":"12","creationTimestamp":null},"spec":{}}"#;
        assert_eq!(bookmark(plain), Ok(("12".to_owned(), false)));
        let end =
            r#"{"metadata":{"resourceVersion":"12","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
        assert_eq!(bookmark(end), Ok(("12".to_owned(), true)));
    }

    #[test]
    fn an_identity_is_recovered_field_by_field() {
        let text = r#"{"metadata":{"name":"p","namespace":"n","generation":"soon","labels":5},"spec":[1]}"#;
        let identity = Identity::recover(text).unwrap();
        assert_eq!((&*identity.namespace, &*identity.name, identity.generation), ("n", "p", 0));
        assert_eq!(recover_spec(text), Some("[1]"));
        for nameless in ["5", "{}", r#"{"metadata":{"name":7}}"#, r#"{"metadata":{"name":""}}"#] {
            assert_eq!(Identity::recover(nameless), None, "{nameless}");
        }
    }
}
