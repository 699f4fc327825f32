//! The requests for a kind in one of its versions.

use http::{HeaderValue, Request, header};
use kube::core::{
    params::{ListParams, WatchParams},
    request,
};

use crate::{error::ApiError, resource::ResourceKind};

/// A kind in one of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionedKind {
    pub(crate) kind: ResourceKind,
    /// Such as `v1` or `policy.networking.k8s.io/v1beta1`.
    pub(crate) api_version: String,
}

/// What a list or a watch covers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListScope<'a> {
    /// A namespace; `None` for all of them.
    pub(crate) namespace: Option<&'a str>,
    /// The objects of one page; `None` for all of them.
    pub(crate) limit: Option<u32>,
    /// The token of the next page.
    pub(crate) continue_token: Option<&'a str>,
}

impl VersionedKind {
    /// A kind in a version such as `v1beta1`.
    pub(crate) fn new(kind: ResourceKind, version: &str) -> Self {
        Self { kind, api_version: kind.api_version(version) }
    }

    fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.kind.group().is_empty() { "/api" } else { "/apis" };
        let namespace = namespace.map(|name| format!("/namespaces/{}", encode(name))).unwrap_or_default();
        format!("{root}/{}{namespace}/{}", self.api_version, self.kind.plural())
    }

    /// The request for a page of the list in its latest state. An older state, from a server's cache, could bring back a deleted object.
    /// Since Kubernetes 1.31 the server answers this from its cache, at the latest state.
    ///
    /// # Errors
    /// If the continue token can't be part of a request.
    pub(crate) fn list(&self, scope: ListScope<'_>) -> Result<Request<Vec<u8>>, ApiError> {
        let mut params = ListParams::default();
        if let Some(limit) = scope.limit {
            params = params.limit(limit);
        }
        if let Some(token) = scope.continue_token {
            params = params.continue_token(token);
        }
        let requests = request::Request::new(self.path(scope.namespace));
        accepting_json(match self.kind.is_metadata_only() {
            true => requests.list_metadata(&params),
            false => requests.list(&params),
        })
    }

    /// The request for a watch that the server ends after `seconds`. It starts from a resource version, or with the list in its latest
    /// state.
    ///
    /// # Errors
    /// If the resource version can't be part of a request.
    pub(crate) fn watch(&self, from: Option<&str>, seconds: u32) -> Result<Request<Vec<u8>>, ApiError> {
        let mut params = WatchParams::default().timeout(seconds);
        if from.is_none() {
            params = params.initial_events();
        }
        let requests = request::Request::new(self.path(None));
        let from = from.unwrap_or_default();
        accepting_json(match self.kind.is_metadata_only() {
            true => requests.watch_metadata(&params, from),
            false => requests.watch(&params, from),
        })
    }

    /// The request for one object of a cluster-scoped kind.
    ///
    /// # Errors
    /// If the name can't be part of a request.
    pub(crate) fn object(&self, name: &str) -> Result<Request<Vec<u8>>, ApiError> {
        let path = format!("{}/{}", self.path(None), encode(name));
        Ok(Request::get(path).header(header::ACCEPT, "application/json").body(Vec::new())?)
    }
}

/// Requests JSON, unless the request already names a format.
fn accepting_json(request: Result<Request<Vec<u8>>, request::Error>) -> Result<Request<Vec<u8>>, ApiError> {
    let mut request = request.map_err(|error| ApiError::malformed(error.to_string()))?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().entry(header::ACCEPT).or_insert(json);
    Ok(request)
}

/// Percent-encodes a part of a path.
pub(crate) fn encode(text: &str) -> String {
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
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |kind, version, namespace| VersionedKind::new(kind, version).path(namespace);
        assert_eq!(path(ResourceKind::Pod, "v1", None), "/api/v1/pods");
        assert_eq!(path(ResourceKind::Pod, "v1", Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(
            path(ResourceKind::AdminNetworkPolicy, "v1alpha1", None),
            "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies"
        );
        assert_eq!(encode("a/b+c="), "a%2Fb%2Bc%3D");
    }

    #[test]
    fn requests_have_the_parameters_of_lists_and_watches() {
        let pods = VersionedKind::new(ResourceKind::Pod, "v1");
        let scope = ListScope { limit: Some(500), ..ListScope::default() };
        let list = pods.list(scope).unwrap().uri().to_string();
        assert!(list.starts_with("/api/v1/pods?") && list.contains("limit=500"), "{list}");
        assert!(!list.contains("resourceVersion="), "the latest state: {list}");
        let streamed = pods.watch(None, 300).unwrap().uri().to_string();
        for part in
            ["sendInitialEvents=true", "allowWatchBookmarks=true", "resourceVersionMatch=NotOlderThan"]
        {
            assert!(streamed.contains(part), "{streamed}");
        }
        let resumed = pods.watch(Some("77"), 300).unwrap().uri().to_string();
        assert!(
            resumed.contains("resourceVersion=77") && !resumed.contains("sendInitialEvents"),
            "{resumed}"
        );
        let scope = ListScope { continue_token: Some("a+b"), ..scope };
        let policies = VersionedKind::new(ResourceKind::ClusterNetworkPolicy, "v1beta1").list(scope).unwrap();
        let expected = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies?";
        let uri = policies.uri().to_string();
        assert!(uri.starts_with(expected) && uri.contains("continue=a%2Bb"), "{uri}");
        let namespaces = VersionedKind::new(ResourceKind::Namespace, "v1").watch(None, 1).unwrap();
        assert!(format!("{:?}", namespaces.headers()).contains("PartialObjectMetadata"));
    }
}
