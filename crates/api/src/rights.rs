//! Which requests of the agent the API server would allow, and which policy kinds it serves.
//!
//! The server answers for the user of the request (`SelfSubjectAccessReview`), so the queries have to be sent with the agent's
//! credentials: in its pod, or with a kubeconfig for its service account.

use std::{future::Future, time::Duration};

use futures::future::join_all;
use http::{Request, header};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    jiff::{Timestamp, fmt::rfc2822},
};
use kube::{Api, Client, api::PostParams, client::Body};
use serde::Deserialize;

use crate::{
    access::{Access, AccessError},
    api_groups::{ApiGroupList, ApiResourceList, GroupVersion},
    error::{ApiError, ApiErrorKind},
    resource::ResourceKind,
    transport::get_json,
};

/// How long one request may take without [`Access::timeout`].
const TIMEOUT: Duration = Duration::from_secs(10);

/// The namespace of the agent's own objects.
const OWN_NAMESPACE: &str = "palisade-system";

/// The Lease that elects the agent that writes conditions.
const LEASE: &str = "palisade-status-writer";

/// What a right is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Enforcement of policies.
    Enforcing,
    /// Services, for some settings ([`WatchOptions::services`](crate::WatchOptions)).
    Services,
    /// Reports in the cluster: Events, and conditions of policies.
    Reporting,
}

/// A request that the agent makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What it is needed for.
    pub purpose: Purpose,
    /// `get`, `list`, `watch`, `create`, `update` or `patch`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The plural of the kind, with a subresource after a slash.
    pub resource: &'static str,
    /// The namespace; `None` for all of them.
    pub namespace: Option<&'static str>,
    /// The name of the object; `None` for any.
    pub name: Option<&'static str>,
    /// Whether the server allows it.
    pub allowed: bool,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        self.name.map_or(Ok(()), |name| write!(f, " {name}"))?;
        self.namespace.map_or(Ok(()), |namespace| write!(f, " in {namespace}"))
    }
}

/// What a server allows and serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The server's address.
    pub server: String,
    /// Its version, such as `v1.33.1`.
    pub version: String,
    /// How many seconds this machine's clock is ahead of the server's. Up to two of them may be due to network latency. `None` if the
    /// server does not send its time.
    pub clock_ahead: Option<i64>,
    /// The cluster-wide policy kinds that it serves, each with its versions.
    pub served: Vec<(ResourceKind, Vec<String>)>,
    /// The requests of the agent, each with whether it is allowed.
    pub rights: Vec<Right>,
}

/// Why the rights are unknown.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// There is no client for the server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The server can't be queried.
    #[error("cannot query the API server {server}: {error}")]
    Server {
        /// The server's address.
        server: String,
        /// The error.
        error: ApiError,
    },
    /// The async runtime can't be started.
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
}

impl Rights {
    /// Queries the server and waits for the responses.
    ///
    /// # Errors
    /// If there is no client for the server, or the server can't be queried.
    pub fn query_blocking(access: &Access) -> Result<Self, RightsError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RightsError::Runtime)?;
        let rights = runtime.block_on(Self::query(access));
        // A name look-up that is still running on a thread would delay the exit.
        runtime.shutdown_background();
        rights
    }

    /// Queries the server.
    ///
    /// # Errors
    /// If there is no client for the server, or the server can't be queried.
    pub async fn query(access: &Access) -> Result<Self, RightsError> {
        let connection = access.open().await?;
        let server = connection.server.clone();
        let query = Query { client: connection.client, timeout: access.timeout.unwrap_or(TIMEOUT) };
        query.everything(&server).await.map_err(|error| RightsError::Server { server, error })
    }
}

struct Query {
    client: Client,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default, rename = "gitVersion")]
    git_version: String,
}

impl Query {
    async fn everything(&self, server: &str) -> Result<Rights, ApiError> {
        let (version, clock_ahead) = self.version().await?;
        let served = self.served().await?;
        let rights = join_all(required(&served).into_iter().map(|right| self.review(right)))
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        Ok(Rights { server: server.to_owned(), version, clock_ahead, served, rights })
    }

    async fn version(&self) -> Result<(String, Option<i64>), ApiError> {
        let request = Request::get("/version").body(Body::empty())?;
        let response = self.in_time(self.client.send(request)).await?;
        let date =
            response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        let version: Version = get_json(&self.client, "/version", self.timeout).await?;
        Ok((version.git_version, date.and_then(|date| seconds_ahead(&date))))
    }

    /// Returns the cluster-wide policy kinds in each version of their group.
    async fn served(&self) -> Result<Vec<(ResourceKind, Vec<String>)>, ApiError> {
        let groups: ApiGroupList = match get_json(&self.client, "/apis", self.timeout).await {
            // Without the right to discover the reviews still tell what is allowed.
            Err(error) if error.is_forbidden() => ApiGroupList::default(),
            other => other?,
        };
        let mut served: Vec<(ResourceKind, Vec<String>)> =
            ResourceKind::cluster_wide_policies().map(|kind| (kind, Vec::new())).collect();
        for group in groups.groups {
            if !served.iter().any(|(kind, _)| kind.group() == group.name) {
                continue;
            }
            for GroupVersion { version } in group.versions {
                let path = format!("/apis/{}/{version}", group.name);
                let resources: ApiResourceList = match get_json(&self.client, &path, self.timeout).await {
                    Err(error) if error.is_forbidden() || error.is_not_found() => continue,
                    other => other?,
                };
                for (kind, versions) in &mut served {
                    if resources.contains(kind.plural()) {
                        versions.push(version.clone());
                    }
                }
            }
        }
        served.retain(|(_, versions)| !versions.is_empty());
        Ok(served)
    }

    /// Returns the right with the server's decision.
    async fn review(&self, right: Right) -> Result<Right, ApiError> {
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (right.resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(right.verb.to_owned()),
                    group: Some(right.group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    namespace: right.namespace.map(str::to_owned),
                    name: right.name.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let response = self.in_time(api.create(&PostParams::default(), &review)).await?;
        Ok(Right { allowed: response.status.is_some_and(|status| status.allowed), ..right })
    }

    async fn in_time<T>(&self, response: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
        match tokio::time::timeout(self.timeout, response).await {
            Ok(response) => Ok(response?),
            Err(_) => Err(ApiErrorKind::TimedOut(self.timeout).into()),
        }
    }
}

/// Returns the requests that the agent makes to a server that serves these kinds.
fn required(served: &[(ResourceKind, Vec<String>)]) -> Vec<Right> {
    let right = |purpose, verb, group, resource, namespace| Right {
        purpose,
        verb,
        group,
        resource,
        namespace,
        name: None,
        allowed: false,
    };
    let is_served =
        |kind: &ResourceKind| !kind.is_optional() || served.iter().any(|(served, _)| served == kind);
    let mut out = Vec::new();
    let for_policies = ResourceKind::watched().filter(is_served).map(|kind| (Purpose::Enforcing, kind));
    for (purpose, kind) in for_policies.chain([(Purpose::Services, ResourceKind::Service)]) {
        for verb in ["list", "watch"] {
            out.push(right(purpose, verb, kind.group(), kind.plural(), None));
        }
    }
    let report =
        |verb, group, resource, namespace| right(Purpose::Reporting, verb, group, resource, namespace);
    out.push(report("create", "events.k8s.io", "events", None));
    if served.iter().any(|(kind, _)| *kind == ResourceKind::ClusterNetworkPolicy) {
        let group = ResourceKind::ClusterNetworkPolicy.group();
        out.push(report("patch", group, "clusternetworkpolicies/status", None));
    }
    for verb in ["get", "create", "update"] {
        // RBAC can't limit `create` to a name: the name is not known when the request is authorized.
        let name = (verb != "create").then_some(LEASE);
        let lease = report(verb, "coordination.k8s.io", "leases", Some(OWN_NAMESPACE));
        out.push(Right { name, ..lease });
    }
    out
}

/// Returns how many seconds this machine's clock is ahead of the time of an HTTP `Date` header.
fn seconds_ahead(date: &str) -> Option<i64> {
    let server = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(Timestamp::now().as_second() - server.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_rights_follow_the_served_kinds() {
        let required_for = |served: &[(ResourceKind, Vec<String>)]| -> Vec<String> {
            required(served).iter().map(ToString::to_string).collect()
        };
        let plain = required_for(&[]);
        assert!(plain.contains(&"watch networkpolicies.networking.k8s.io".to_owned()), "{plain:?}");
        assert!(
            plain.contains(&"create leases.coordination.k8s.io in palisade-system".to_owned()),
            "{plain:?}"
        );
        assert!(!plain.iter().any(|w| w.contains("clusternetworkpolicies")));
        let with = required_for(&[(ResourceKind::ClusterNetworkPolicy, vec!["v1alpha2".to_owned()])]);
        assert!(with.contains(&"patch clusternetworkpolicies/status.policy.networking.k8s.io".to_owned()));
    }

    #[test]
    fn the_date_header_is_parsed() {
        let year = seconds_ahead("Sun, 06 Nov 1994 08:49:37 GMT").unwrap_or_default();
        assert!(year > 30 * 365 * 86_400, "{year}");
        assert_eq!(seconds_ahead("yesterday"), None);
    }
}
