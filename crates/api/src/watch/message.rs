//! What the server says: lines of a watch, pages of a list, errors.

use std::collections::HashMap;

use palisade_manifest::api_objects::{ApiObjectMeta, JsonString, StringMap};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::Failure;

/// The annotation of the bookmark that ends a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One line of a watch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    /// An object appeared or changed.
    Set(&'a str),
    /// An object is gone.
    Gone(&'a str),
    /// Everything up to here has been said.
    Bookmark(&'a str),
    /// The watch is over.
    Error(&'a str),
}

/// Reads a line.
///
/// # Errors
/// [`Failure::Rubbish`] where it is none that the API knows.
pub(super) fn message(line: &[u8]) -> Result<Message<'_>, Failure> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type", borrow)]
        kind: JsonString<'a>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Line { kind, object } = serde_json::from_slice(line).map_err(rubbish)?;
    let object = object.get();
    match &*kind {
        "ADDED" | "MODIFIED" => Ok(Message::Set(object)),
        "DELETED" => Ok(Message::Gone(object)),
        "BOOKMARK" => Ok(Message::Bookmark(object)),
        "ERROR" => Ok(Message::Error(object)),
        other => Err(Failure::Rubbish(format!("a watch event of unknown type {:?}", cut(other)))),
    }
}

/// A bookmark: up to which version everything has been said, and whether it ends a streamed list.
pub(super) fn bookmark(object: &str) -> Result<(String, bool), Failure> {
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
    let Bookmark { metadata } = serde_json::from_str(object).map_err(rubbish)?;
    let ends = |(k, v): &(JsonString<'_>, JsonString<'_>)| &**k == INITIAL_EVENTS_END && &**v == "true";
    let ends_list = metadata.annotations.iter().flat_map(|a| &a.0).any(ends);
    Ok((metadata.resource_version.to_string(), ends_list))
}

/// The error that a watch or a refused request carries; `code` is that of the answer.
pub(crate) fn status(object: &[u8], code: u16, retry_after: Option<std::time::Duration>) -> Failure {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        code: Option<u16>,
        message: Option<String>,
        details: Option<Details>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Details {
        retry_after_seconds: Option<u32>,
    }
    // A proxy answers in HTML, and some refusals of the API server are bare text.
    let Ok(status) = serde_json::from_slice::<Status>(object) else {
        return Failure::status(code, &cut(&String::from_utf8_lossy(object)), retry_after);
    };
    let asked = status.details.and_then(|d| d.retry_after_seconds).filter(|s| *s > 0);
    let retry_after = retry_after.or(asked.map(|s| std::time::Duration::from_secs(s.into())));
    let code = status.code.filter(|c| *c != 0).unwrap_or(code);
    Failure::status(code, &status.message.unwrap_or_default(), retry_after)
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    /// Where the list stands.
    #[serde(borrow, default)]
    pub(super) metadata: PageMeta<'a>,
    /// Its objects.
    #[serde(borrow)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// `ListMeta`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta<'a> {
    /// The version at which the list was made.
    #[serde(borrow)]
    pub(super) resource_version: JsonString<'a>,
    /// Names the next page; empty: this is the last.
    #[serde(borrow, rename = "continue")]
    pub(super) next: JsonString<'a>,
}

/// A policy or a namespace: its metadata, its spec unread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Plain<'a> {
    #[serde(borrow)]
    pub(super) metadata: ApiObjectMeta<'a>,
    #[serde(borrow)]
    pub(super) spec: Option<&'a RawValue>,
}

/// Who an object is, as far as can be told of one that can't be read otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) resource_version: String,
}

impl Identity {
    pub(super) fn of(meta: &ApiObjectMeta<'_>) -> Self {
        Self {
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            uid: meta.uid.to_string(),
            generation: meta.generation,
            resource_version: meta.resource_version.to_string(),
        }
    }

    /// Field by field, so that one that is malformed spoils no other. `None` without a name: nobody can say then what
    /// the object replaces.
    pub(super) fn salvage(object: &str) -> Option<Self> {
        let fields: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
        let metadata: HashMap<String, &RawValue> =
            serde_json::from_str(fields.get("metadata")?.get()).ok()?;
        let text = |key: &str| -> Option<String> { serde_json::from_str(metadata.get(key)?.get()).ok() };
        let generation = metadata.get("generation").and_then(|g| serde_json::from_str(g.get()).ok());
        Some(Self {
            namespace: text("namespace").unwrap_or_default(),
            name: text("name").filter(|n| !n.is_empty())?,
            uid: text("uid").unwrap_or_default(),
            generation: generation.unwrap_or_default(),
            resource_version: text("resourceVersion").unwrap_or_default(),
        })
    }
}

/// The `spec` of an object that can't be read otherwise.
pub(super) fn salvage_spec(object: &str) -> Option<&str> {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    fields.get("spec").map(|spec| spec.get())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn rubbish(error: serde_json::Error) -> Failure {
    Failure::Rubbish(error.to_string())
}

/// The beginning of a text that may be anything.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_rubbish_is_named() {
        let line = br#"{"type":"MODIFIED","object":{"kind":"Pod"}}"#;
        assert!(matches!(message(line), Ok(Message::Set(r#"{"kind":"Pod"}"#))));
        let turned = br#"{"object":{},"type":"DELETED"}"#;
        assert!(matches!(message(turned), Ok(Message::Gone("{}"))), "whatever the order");
        for bad in [
            &b"{"[..],
            b"[]",
            b"<html>",
            b"{\"type\":\"NEWS\",\"object\":{}}",
            b"{\"type\":\"ADDED\"}",
            b"\xff",
        ] {
            assert!(matches!(message(bad), Err(Failure::Rubbish(_))), "{bad:?}");
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
    fn errors_carry_their_code_and_the_pause_that_is_asked_for() {
        let expired =
            br#"{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}"#;
        assert_eq!(status(expired, 200, None), Failure::Expired);
        let busy = br#"{"kind":"Status","code":429,"message":"wait","details":{"retryAfterSeconds":3}}"#;
        assert_eq!(status(busy, 429, None).retry_after(), Some(std::time::Duration::from_secs(3)));
        let page = status(b"<html>\x1b[31mBad gateway</html>", 502, None);
        assert_eq!(page.to_string(), "502: <html>[31mBad gateway</html>", "no control characters in a log");
    }

    #[test]
    fn an_identity_is_salvaged_field_by_field() {
        let text = r#"{"metadata":{"name":"p","namespace":"n","generation":"soon","labels":5},"spec":[1]}"#;
        let identity = Identity::salvage(text).unwrap();
        assert_eq!((&*identity.namespace, &*identity.name, identity.generation), ("n", "p", 0));
        assert_eq!(salvage_spec(text), Some("[1]"));
        for nameless in ["5", "{}", r#"{"metadata":{"name":7}}"#, r#"{"metadata":{"name":""}}"#] {
            assert_eq!(Identity::salvage(nameless), None, "{nameless}");
        }
    }
}
