//! One request, and the pages of a list.

use std::{cell::Cell, time::Duration};

use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use super::{Object, Resource, prune::prune, resource::Bearing};
use crate::trouble::Trouble;

/// How often a page is asked for whose connection broke.
const ATTEMPTS: usize = 2;

/// What a server sends of a kind that only gives names: its metadata.
const METADATA_ONLY: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Asks one server.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) client: &'a Client,
    /// How long one request may take, its answer included.
    pub(super) timeout: Duration,
    /// How many objects a page has.
    pub(super) page: u32,
    /// How many objects have come.
    pub(super) came: &'a Cell<usize>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

impl Asking<'_> {
    /// The answer to a GET, as JSON.
    pub(super) async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<T, Trouble> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.get_once(path, accept).await {
                Err(Trouble::Broken(_)) if tried < ATTEMPTS => {}
                other => return other,
            }
        }
    }

    async fn get_once<T: for<'de> Deserialize<'de>>(&self, path: &str, accept: &str) -> Result<T, Trouble> {
        let request = Request::get(path).header(http::header::ACCEPT, accept).body(Vec::new());
        let request = request.map_err(|error| Trouble::Garbage(error.to_string()))?;
        let answered = tokio::time::timeout(self.timeout, self.client.request_text(request)).await;
        let text =
            answered.map_err(|_| Trouble::TimedOut(self.timeout))?.map_err(|error| Trouble::of(&error))?;
        serde_json::from_str(&text).map_err(|error| Trouble::Garbage(error.to_string()))
    }

    /// All objects of a kind, in one namespace or everywhere, pruned and sorted. Where the server forgets the list
    /// between two pages it is read anew, and then in one piece.
    pub(super) async fn list(
        &self,
        resource: &'static Resource,
        version: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<Object>, Trouble> {
        let before = self.came.get();
        let listed = match self.pages(resource, version, namespace, Some(self.page)).await {
            Err(Trouble::Expired) => {
                self.came.set(before);
                match self.pages(resource, version, namespace, Some(self.page)).await {
                    Err(Trouble::Expired) => {
                        self.came.set(before);
                        self.pages(resource, version, namespace, None).await
                    }
                    other => other,
                }
            }
            other => other,
        };
        let mut objects = listed?;
        objects.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(objects)
    }

    /// One object of a cluster-scoped kind.
    pub(super) async fn one(
        &self,
        resource: &'static Resource,
        version: &str,
        name: &str,
    ) -> Result<Object, Trouble> {
        let path = format!("{}/{}", base(resource, version, None), encoded(name));
        let value: Value = self.get(&path, "application/json").await?;
        prune(resource, version, &value)
            .ok_or_else(|| Trouble::Garbage(format!("a {} without name", resource.kind)))
    }

    async fn pages(
        &self,
        resource: &'static Resource,
        version: &str,
        namespace: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Vec<Object>, Trouble> {
        let base = base(resource, version, namespace);
        let accept = if resource.bearing == Bearing::Names { METADATA_ONLY } else { "application/json" };
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut path = base.clone();
            if let Some(limit) = limit {
                path += &format!("?limit={limit}");
            }
            if let Some(token) = &next {
                path += &format!("&continue={}", encoded(token));
            }
            let page: Page = self.get(&path, accept).await?;
            if !page.kind.ends_with("List") {
                return Err(Trouble::Garbage(format!("a list was asked for, and a `{}` came", page.kind)));
            }
            let items = page.items.unwrap_or_default();
            self.came.set(self.came.get() + items.len());
            for item in items {
                let Some(object) = prune(resource, version, &item) else {
                    return Err(Trouble::Garbage(format!("a {} without name or namespace", resource.kind)));
                };
                objects.push(object);
            }
            match page.metadata.next.filter(|token| !token.is_empty()) {
                // A server that gives no next page when there was no limit would be asked for ever.
                Some(token) if limit.is_some() && next.as_ref() != Some(&token) => next = Some(token),
                Some(_) => return Err(Trouble::Garbage("the list has no end".to_owned())),
                None => return Ok(objects),
            }
        }
    }
}

/// The path of a list.
fn base(resource: &Resource, version: &str, namespace: Option<&str>) -> String {
    let group =
        if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let inside = namespace.map(|n| format!("/namespaces/{}", encoded(n))).unwrap_or_default();
    format!("{group}/{version}{inside}/{}", resource.plural)
}

/// A text as part of a path or query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::RESOURCES, *};

    #[test]
    fn paths_are_those_of_the_api() {
        let of = |kind: &str| RESOURCES.iter().find(|r| r.kind == kind).unwrap();
        assert_eq!(base(of("Pod"), "v1", None), "/api/v1/pods");
        assert_eq!(base(of("Pod"), "v1", Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(
            base(of("AdminNetworkPolicy"), "v1alpha1", None),
            "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies"
        );
        assert_eq!(encoded("a/b+c="), "a%2Fb%2Bc%3D");
    }
}
