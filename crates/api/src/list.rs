//! Reads a list page by page.

use std::time::Duration;

use kube::Client;
use palisade_manifest::api_objects::JsonString;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    request::{ListScope, VersionedKind},
    transport::{read_body, send},
};

/// The objects of one page: the number that kubectl and client-go use.
pub(crate) const PAGE_SIZE: u32 = 500;

/// A page holds at most [`PAGE_SIZE`] objects, most of them of a few KiB. A list without pages may be long.
const MAX_PAGE_BYTES: usize = 1 << 30;

/// The pages of one list. [`ListReader::fetch`] and [`ListReader::decode`] take turns until the list is complete.
pub(crate) struct ListReader<'a> {
    resource: &'a VersionedKind,
    namespace: Option<&'a str>,
    page_size: Option<u32>,
    continue_token: Option<String>,
    resource_version: Option<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, default)]
    kind: JsonString<'a>,
    #[serde(borrow, default)]
    metadata: PageMetadata<'a>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// `ListMeta`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata<'a> {
    #[serde(borrow)]
    resource_version: JsonString<'a>,
    #[serde(borrow, rename = "continue")]
    continue_token: JsonString<'a>,
}

impl<'a> ListReader<'a> {
    /// Starts a list of a kind, in one namespace or in all. Without a page size the server returns all objects at once.
    pub(crate) fn new(
        resource: &'a VersionedKind,
        namespace: Option<&'a str>,
        page_size: Option<u32>,
    ) -> Self {
        Self { resource, namespace, page_size, continue_token: None, resource_version: None }
    }

    /// Whether the first page has been decoded and more follow. If one of these has expired (410), the list has to be read again.
    pub(crate) fn is_continued(&self) -> bool {
        self.continue_token.is_some()
    }

    /// Returns the resource version of the complete list, or `None` while there are more pages. An aggregated API server may leave it
    /// empty.
    pub(crate) fn resource_version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }

    /// Requests the next page and returns its text. May be repeated after an error.
    ///
    /// # Errors
    /// If the request fails, or nothing is received for `timeout`.
    pub(crate) async fn fetch(&self, client: &Client, timeout: Duration) -> Result<Vec<u8>, ApiError> {
        let scope = ListScope {
            namespace: self.namespace,
            limit: self.page_size,
            continue_token: self.continue_token.as_deref(),
        };
        let body = send(client, self.resource.list(scope)?, timeout).await?;
        read_body(body, MAX_PAGE_BYTES, timeout).await
    }

    /// Returns the objects of a page that [`ListReader::fetch`] returned.
    ///
    /// # Errors
    /// If the text is not a page of a list, or the list doesn't end.
    pub(crate) fn decode<'t>(&mut self, text: &'t [u8]) -> Result<Vec<&'t RawValue>, ApiError> {
        let page: Page<'t> = serde_json::from_slice(text)?;
        if !page.kind.ends_with("List") {
            return Err(ApiError::malformed(format!("expected a list, received a `{}`", &*page.kind)));
        }
        let PageMetadata { resource_version, continue_token } = page.metadata;
        match &*continue_token {
            "" => self.resource_version = Some(resource_version.to_string()),
            // Without a limit there is only one page. A token that repeats itself would be followed forever.
            token if self.page_size.is_some() && self.continue_token.as_deref() != Some(token) => {
                self.continue_token = Some(token.to_owned());
            }
            _ => return Err(ApiError::malformed("the list does not end")),
        }
        Ok(page.items.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ResourceKind;

    #[test]
    fn pages_are_decoded_until_the_list_is_complete() {
        let pods = VersionedKind::new(ResourceKind::Pod, "v1");
        let mut list = ListReader::new(&pods, None, Some(2));
        let first =
            br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"t"},"items":[{},{}]}"#;
        assert_eq!(list.decode(first).unwrap().len(), 2);
        assert!(list.is_continued() && list.resource_version().is_none());
        assert!(list.decode(first).unwrap_err().to_string().contains("does not end"));
        let last = br#"{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":null}"#;
        assert_eq!(list.decode(last).unwrap().len(), 0);
        assert_eq!(list.resource_version(), Some("7"));
        for bad in [
            &b"<html>"[..],
            br#"{"kind":"Pod","metadata":{"resourceVersion":"7"}}"#,
            br#"{"kind":"PodList","items":{}}"#,
        ] {
            assert!(list.decode(bad).is_err(), "{bad:?}");
        }
    }
}
