//! Reads single kinds: in pages, in the first version that is served, with a retry after a lost connection.

use std::{cell::Cell, time::Duration};

use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use super::{prune::prune, snapshot::Object};
use crate::{
    error::{ApiError, ApiErrorKind},
    list::{ListReader, PAGE_SIZE},
    request::VersionedKind,
    resource::ResourceKind,
    transport::{get_json, read_body, send},
};

/// How often a request is sent whose connection is lost.
const ATTEMPTS: usize = 2;
/// An object is smaller: etcd accepts 1.5 MiB by default, the API server 3 MiB in a request.
const MAX_OBJECT_BYTES: usize = 4 << 20;

/// Reads from one server.
#[derive(Clone, Copy)]
pub(super) struct ObjectReader<'a> {
    pub(super) client: &'a Client,
    /// How long a request and its response may take.
    pub(super) timeout: Duration,
    /// How many objects have been received.
    pub(super) received: &'a Cell<usize>,
}

/// A kind, and the versions in which to request it, the preferred one first. There is more than one if discovery doesn't tell which of
/// them is served.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) kind: ResourceKind,
    pub(super) versions: Vec<&'static str>,
}

impl ObjectReader<'_> {
    /// Returns the JSON document at a path.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.retrying(|| get_json(self.client, path, self.timeout)).await
    }

    /// Returns all objects of a kind in the first version that is served, in one namespace or in all, pruned and sorted. A kind that is
    /// optional and not served has none.
    pub(super) async fn list(
        &self,
        candidate: &Candidate,
        namespace: Option<&str>,
    ) -> Result<Vec<Object>, ApiError> {
        for version in &candidate.versions {
            let resource = VersionedKind::new(candidate.kind, version);
            match self.list_version(&resource, namespace).await {
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
        }
        match candidate.kind.is_optional() {
            true => Ok(Vec::new()),
            false => Err(ApiError::status(404, "", None)),
        }
    }

    /// Returns one object of a cluster-scoped kind in version v1.
    pub(super) async fn object(&self, kind: ResourceKind, name: &str) -> Result<Object, ApiError> {
        let resource = VersionedKind::new(kind, "v1");
        let text = self
            .retrying(async || {
                let body = send(self.client, resource.object(name)?, self.timeout).await?;
                read_body(body, MAX_OBJECT_BYTES, self.timeout).await
            })
            .await?;
        decode(&resource, serde_json::from_slice::<&RawValue>(&text)?)
    }

    /// Reads a list in pages. If pages expire between two requests the list is read again, the last time without pages.
    async fn list_version(
        &self,
        resource: &VersionedKind,
        namespace: Option<&str>,
    ) -> Result<Vec<Object>, ApiError> {
        let before = self.received.get();
        let mut listed = Ok(Vec::new());
        for page_size in [Some(PAGE_SIZE), Some(PAGE_SIZE), None] {
            self.received.set(before);
            listed = self.pages(ListReader::new(resource, namespace, page_size), resource).await;
            if !listed.as_ref().is_err_and(ApiError::is_expired) {
                break;
            }
        }
        let mut objects = listed?;
        objects.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(objects)
    }

    async fn pages(
        &self,
        mut list: ListReader<'_>,
        resource: &VersionedKind,
    ) -> Result<Vec<Object>, ApiError> {
        let mut objects = Vec::new();
        while list.resource_version().is_none() {
            let text = self.retrying(|| list.fetch(self.client, self.timeout)).await?;
            let items = list.decode(&text)?;
            self.received.set(self.received.get() + items.len());
            for item in items {
                objects.push(decode(resource, item)?);
            }
        }
        Ok(objects)
    }

    /// Sends a request, again if its connection is lost. Limits the time of each attempt.
    async fn retrying<T>(&self, request: impl AsyncFn() -> Result<T, ApiError>) -> Result<T, ApiError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let response = tokio::time::timeout(self.timeout, request()).await;
            match response.unwrap_or_else(|_| Err(ApiErrorKind::TimedOut(self.timeout).into())) {
                Err(error)
                    if attempts < ATTEMPTS && matches!(error.kind(), ApiErrorKind::ConnectionLost(_)) => {}
                other => return other,
            }
        }
    }
}

fn decode(resource: &VersionedKind, item: &RawValue) -> Result<Object, ApiError> {
    let value: Value = serde_json::from_str(item.get())?;
    prune(resource, &value)
        .ok_or_else(|| ApiError::malformed(format!("a {} without name or namespace", resource.kind)))
}
