//! What an API server lets us do, and what it serves: asked, not tried.
//!
//! The server answers for whoever asks (`SelfSubjectAccessReview`), so this is run with the agent's credentials: in its
//! pod, or with a kubeconfig made for its service account.

use std::{future::Future, time::Duration};

use futures::future::join_all;
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    jiff::{Timestamp, fmt::rfc2822},
};
use kube::{Api, Client, api::PostParams, client::Body};
use serde::Deserialize;

use crate::{
    Access, AccessError, Kind, Trouble,
    catalogue::{GroupVersion, Groups, Resources},
};

/// How long one request may take where [`Access::timeout`] does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the agent's own objects are.
const OWN_NAMESPACE: &str = "palisade-system";

/// The Lease that elects who writes conditions.
const LEASE: &str = "palisade-status-writer";

/// What a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Without it policies are not enforced.
    Enforcing,
    /// Without it nobody is told in the cluster: Events, conditions of policies.
    Reporting,
}

/// One thing that the agent does with the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What it is for.
    pub purpose: Purpose,
    /// `get`, `list`, `watch`, `create`, `update` or `patch`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The plural of the kind, with a subresource behind a slash.
    pub resource: &'static str,
    /// The namespace; `None` for all of them.
    pub namespace: Option<&'static str>,
    /// The one object that it is about; `None` for any.
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

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The server's address.
    pub server: String,
    /// Its version, such as `v1.33.1`.
    pub version: String,
    /// How far this machine's clock is ahead of the server's, in seconds; within two of them it may be the network's
    /// doing. `None` where the server does not tell the time.
    pub ahead: Option<i64>,
    /// The cluster-wide policy kinds that it serves, each with its versions.
    pub served: Vec<(Kind, Vec<String>)>,
    /// What the agent does, and whether it may.
    pub rights: Vec<Right>,
}

/// Why a server says nothing.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// There is no way to it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It can't be asked.
    #[error("cannot ask {server}: {trouble}")]
    Server {
        /// Its address.
        server: String,
        /// Why.
        trouble: Trouble,
    },
    /// This process can't wait for anything.
    #[error("cannot wait for answers")]
    Runtime(#[source] std::io::Error),
}

impl Rights {
    /// Asks, and waits for the answers.
    ///
    /// # Errors
    /// When there is no way to a server, or it can't be asked.
    pub fn ask_blocking(access: &Access) -> Result<Self, RightsError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RightsError::Runtime)?;
        let rights = runtime.block_on(Self::ask(access));
        // A name being resolved on a thread is nobody's business any longer.
        runtime.shutdown_background();
        rights
    }

    /// Asks.
    ///
    /// # Errors
    /// When there is no way to a server, or it can't be asked.
    pub async fn ask(access: &Access) -> Result<Self, RightsError> {
        let connection = access.open().await?;
        let server = connection.server.clone();
        let asking = Asking { client: connection.client, timeout: access.timeout.unwrap_or(TIMEOUT) };
        asking.everything(&server).await.map_err(|trouble| RightsError::Server { server, trouble })
    }
}

struct Asking {
    client: Client,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default, rename = "gitVersion")]
    git_version: String,
}

impl Asking {
    async fn everything(&self, server: &str) -> Result<Rights, Trouble> {
        let (version, ahead) = self.version().await?;
        let served = self.served().await?;
        let rights = join_all(wanted(&served).into_iter().map(|right| self.ask(right)))
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        Ok(Rights { server: server.to_owned(), version, ahead, served, rights })
    }

    async fn version(&self) -> Result<(String, Option<i64>), Trouble> {
        let request = http::Request::get("/version").body(Body::empty());
        let request = request.map_err(|e| Trouble::Garbage(e.to_string()))?;
        let response = self.in_time(self.client.send(request)).await?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
        let version: Version = self.get("/version").await?;
        Ok((version.git_version, date.and_then(|date| ahead(&date))))
    }

    /// The cluster-wide policy kinds in each version of their group.
    async fn served(&self) -> Result<Vec<(Kind, Vec<String>)>, Trouble> {
        let groups: Groups = match self.get("/apis").await {
            // Who may not discover is told by the rights.
            Err(Trouble::Refused(_)) => Groups::default(),
            other => other?,
        };
        let mut served: Vec<(Kind, Vec<String>)> =
            Kind::ALL.into_iter().filter(|kind| kind.is_optional()).map(|kind| (kind, Vec::new())).collect();
        for group in groups.groups {
            if !served.iter().any(|(kind, _)| kind.group() == group.name) {
                continue;
            }
            for GroupVersion { version } in group.versions {
                let path = format!("/apis/{}/{version}", group.name);
                let resources: Resources = match self.get(&path).await {
                    Err(Trouble::Refused(_) | Trouble::NotFound) => continue,
                    other => other?,
                };
                for (kind, versions) in &mut served {
                    if resources.has(kind.plural()) {
                        versions.push(version.clone());
                    }
                }
            }
        }
        served.retain(|(_, versions)| !versions.is_empty());
        Ok(served)
    }

    async fn ask(&self, right: Right) -> Result<Right, Trouble> {
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
        let answer = self.in_time(api.create(&PostParams::default(), &review)).await?;
        Ok(Right { allowed: answer.status.is_some_and(|status| status.allowed), ..right })
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Trouble> {
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|e| Trouble::Garbage(e.to_string()))?;
        let text = self.in_time(self.client.request_text(request)).await?;
        serde_json::from_str(&text).map_err(|e| Trouble::Garbage(e.to_string()))
    }

    async fn in_time<T>(&self, answer: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error| Trouble::of(&error)),
            Err(_) => Err(Trouble::TimedOut(self.timeout)),
        }
    }
}

/// What the agent does with a server that serves these kinds.
fn wanted(served: &[(Kind, Vec<String>)]) -> Vec<Right> {
    let right = |purpose, verb, group, resource, namespace| Right {
        purpose,
        verb,
        group,
        resource,
        namespace,
        name: None,
        allowed: false,
    };
    let mut out = Vec::new();
    for kind in Kind::ALL {
        // The agent watches no services.
        let is_served = !kind.is_optional() || served.iter().any(|(k, _)| *k == kind);
        if kind == Kind::Service || !is_served {
            continue;
        }
        for verb in ["list", "watch"] {
            out.push(right(Purpose::Enforcing, verb, kind.group(), kind.plural(), None));
        }
    }
    let report =
        |verb, group, resource, namespace| right(Purpose::Reporting, verb, group, resource, namespace);
    out.push(report("create", "events.k8s.io", "events", None));
    if served.iter().any(|(kind, _)| *kind == Kind::ClusterNetworkPolicy) {
        let group = Kind::ClusterNetworkPolicy.group();
        out.push(report("patch", group, "clusternetworkpolicies/status", None));
    }
    for verb in ["get", "create", "update"] {
        // `create` can't be limited to a name: the server doesn't know it yet when it asks.
        let name = (verb != "create").then_some(LEASE);
        let lease = report(verb, "coordination.k8s.io", "leases", Some(OWN_NAMESPACE));
        out.push(Right { name, ..lease });
    }
    out
}

/// Seconds that this machine's clock is ahead of a time as HTTP headers have it.
fn ahead(date: &str) -> Option<i64> {
    let there = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(Timestamp::now().as_second() - there.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_follows_what_is_served() {
        let words = |served: &[(Kind, Vec<String>)]| -> Vec<String> {
            wanted(served).iter().map(ToString::to_string).collect()
        };
        let plain = words(&[]);
        assert!(plain.contains(&"watch networkpolicies.networking.k8s.io".to_owned()), "{plain:?}");
        assert!(
            plain.contains(&"create leases.coordination.k8s.io in palisade-system".to_owned()),
            "{plain:?}"
        );
        assert!(!plain.iter().any(|w| w.contains("clusternetworkpolicies") || w.contains("services")));
        let with = words(&[(Kind::ClusterNetworkPolicy, vec!["v1alpha2".to_owned()])]);
        assert!(with.contains(&"patch clusternetworkpolicies/status.policy.networking.k8s.io".to_owned()));
    }

    #[test]
    fn the_servers_date_is_read() {
        let year = ahead("Sun, 06 Nov 1994 08:49:37 GMT").unwrap_or_default();
        assert!(year > 30 * 365 * 86_400, "{year}");
        assert_eq!(ahead("yesterday"), None);
    }
}
