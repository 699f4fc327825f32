//! Where a kind is served, and the requests for it.

use http::Request;
use kube::core::{
    params::{ListParams, WatchParams},
    request,
};

use super::failure::Failure;
use crate::Kind;

/// How many objects one page of a list holds: kubectl's and client-go's number.
const PAGE: u32 = 500;

/// A kind in one of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// Such as `v1` or `policy.networking.k8s.io/v1beta1`.
    pub(super) api_version: String,
}

impl Resource {
    /// A kind in the version with this number, such as `v1beta1`.
    pub(super) fn new(kind: Kind, number: &str) -> Self {
        let group = kind.group();
        let api_version = if group.is_empty() { number.to_owned() } else { format!("{group}/{number}") };
        Self { kind, api_version }
    }

    fn requests(&self) -> request::Request {
        let root = if self.kind.group().is_empty() { "/api" } else { "/apis" };
        request::Request::new(format!("{root}/{}/{}", self.api_version, self.kind.plural()))
    }

    /// Of namespaces the labels are enough.
    fn metadata_only(&self) -> bool {
        self.kind == Kind::Namespace
    }

    /// A page of the list, as of now: an older state of it, from some server's cache, could bring back what was deleted.
    /// Since Kubernetes 1.31 this is answered from the cache all the same.
    pub(super) fn list(&self, next: Option<&str>, all_at_once: bool) -> Result<Request<Vec<u8>>, Failure> {
        let mut params = ListParams::default();
        if !all_at_once {
            params = params.limit(PAGE);
        }
        if let Some(next) = next {
            params = params.continue_token(next);
        }
        let requests = self.requests();
        let request =
            if self.metadata_only() { requests.list_metadata(&params) } else { requests.list(&params) };
        request.map_err(|e| Failure::Unreachable(e.to_string()))
    }

    /// A watch from a version on, which the server ends after `seconds`; without a version, one that begins with the whole
    /// list as of now.
    pub(super) fn watch(&self, from: Option<&str>, seconds: u32) -> Result<Request<Vec<u8>>, Failure> {
        let mut params = WatchParams::default().timeout(seconds);
        if from.is_none() {
            params = params.initial_events();
        }
        let (requests, from) = (self.requests(), from.unwrap_or_default());
        let request = match self.metadata_only() {
            true => requests.watch_metadata(&params, from),
            false => requests.watch(&params, from),
        };
        request.map_err(|e| Failure::Unreachable(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_what_the_server_has_to_know() {
        let pods = Resource::new(Kind::Pod, "v1");
        let list = pods.list(None, false).unwrap().uri().to_string();
        assert!(list.starts_with("/api/v1/pods?") && list.contains("limit=500"), "{list}");
        assert!(!list.contains("resourceVersion="), "as of now: {list}");
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
        let policies = Resource::new(Kind::ClusterNetworkPolicy, "v1beta1").list(Some("x"), false).unwrap();
        let expected = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies?";
        assert!(policies.uri().to_string().starts_with(expected), "{policies:?}");
        let namespaces = Resource::new(Kind::Namespace, "v1").watch(None, 1).unwrap();
        assert!(format!("{:?}", namespaces.headers()).contains("PartialObjectMetadata"));
    }
}
