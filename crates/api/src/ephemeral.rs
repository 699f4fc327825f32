//! One command in an ephemeral container of each of some pods, and the message that it leaves.
//!
//! ```text
//!   pod as it is ─► PATCH pods/ephemeralcontainers ─► pod once a second, until the container has ended ─► its termination message
//! ```
//!
//! The message is in the pod's status, so that neither `pods/exec` nor `pods/log` is needed: the one would run anything, the other
//! would read what the pod's own containers print. An ephemeral container has no port, no probe, no volume and no token of the
//! service account, and does not count for the pod's readiness. It can't be removed from a pod: a command has to end by itself.

mod container;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use futures::StreamExt as _;
use http::{Request, header};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use self::container::{PodState, Progress};
use crate::{
    Access, AccessError, ApiError,
    error::ApiErrorKind,
    request::encode,
    transport::{get_json, read_body, send},
};

/// How many pods have a container started at once.
const CONCURRENT: usize = 8;
/// How often a pod is read while its container runs.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a request may take without [`Access::timeout`].
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most ended containers of earlier calls that a pod may have: they stay in it until it is replaced.
pub const MOST_EARLIER: usize = 20;

/// A command, and the pod to run it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EphemeralCommand {
    /// The namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The image.
    pub image: String,
    /// The program in the image, and its arguments.
    pub words: Vec<String>,
}

/// Why a command left no message.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EphemeralError {
    /// The API server refused it, or could not be reached.
    #[error("{}", .0.with_advice())]
    Api(ApiError),
    /// The pod does not run.
    #[error("the pod is {0}")]
    NotRunning(String),
    /// The pod has the containers of too many earlier calls.
    #[error("the pod already has {0} ended containers of earlier probes, which stay until it is replaced")]
    TooManyEarlier(usize),
    /// The container could not be started.
    #[error("the container could not be started: {0}")]
    NotStarted(String),
    /// The command failed.
    #[error("the command failed with exit code {code}{}", after_colon(why.as_deref()))]
    Failed {
        /// Its exit code.
        code: i64,
        /// The message that it left, or the reason of the kubelet.
        why: Option<String>,
    },
    /// It had not ended in time.
    #[error("the container had not ended after {} s", .0.as_secs())]
    TimedOut(Duration),
}

fn after_colon(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

impl From<ApiError> for EphemeralError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum EphemeralClientError {
    /// There is no client.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no runtime.
    #[error("cannot start the client")]
    Runtime(#[source] std::io::Error),
}

/// Starts ephemeral containers, and waits for their end.
pub struct EphemeralClient {
    runtime: Runtime,
    client: Client,
    server: String,
    timeout: Duration,
}

impl fmt::Debug for EphemeralClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralClient").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What the caller must be allowed to do in the namespace of each pod: verb, resource and subresource.
const RIGHTS: [(&str, &str, Option<&str>); 2] =
    [("get", "pods", None), ("patch", "pods", Some("ephemeralcontainers"))];

impl EphemeralClient {
    /// Makes a client. No request is sent.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub fn open(access: &Access) -> Result<Self, EphemeralClientError> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(EphemeralClientError::Runtime)?;
        let connection = runtime.block_on(access.open())?;
        let timeout = access.timeout.unwrap_or(TIMEOUT);
        Ok(Self { runtime, client: connection.client, server: connection.server, timeout })
    }

    /// The address of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns the rights that the caller lacks in those of these namespaces where there are any, such as
    /// `patch pods/ephemeralcontainers`.
    ///
    /// # Errors
    /// If the server can't be asked.
    pub fn missing_rights(
        &self,
        namespaces: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        self.runtime.block_on(async {
            let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for namespace in namespaces {
                for (verb, resource, subresource) in RIGHTS {
                    if !self.is_allowed(verb, resource, subresource, namespace).await? {
                        let sub = subresource.map(|sub| format!("/{sub}")).unwrap_or_default();
                        missing.entry(namespace.clone()).or_default().push(format!("{verb} {resource}{sub}"));
                    }
                }
            }
            Ok(missing)
        })
    }

    async fn is_allowed(
        &self,
        verb: &str,
        resource: &str,
        subresource: Option<&str>,
        namespace: &str,
    ) -> Result<bool, ApiError> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some(String::new()),
            resource: Some(resource.to_owned()),
            subresource: subresource.map(str::to_owned),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let response = tokio::time::timeout(self.timeout, api.create(&params, &review)).await;
        let response = response.map_err(|_| ApiErrorKind::TimedOut(self.timeout))??;
        Ok(response.status.is_some_and(|status| status.allowed))
    }

    /// Returns the image of the first container of a DaemonSet with these labels; `None` if there is none.
    ///
    /// # Errors
    /// If DaemonSets can't be listed.
    pub fn image_of_daemon_set(&self, namespace: &str, selector: &str) -> Result<Option<String>, ApiError> {
        let path = format!(
            "/apis/apps/v1/namespaces/{}/daemonsets?limit=10&labelSelector={}",
            encode(namespace),
            encode(selector)
        );
        let list: DaemonSetList = self.runtime.block_on(get_json(&self.client, &path, self.timeout))?;
        let mut images = list.items.into_iter().flat_map(|set| set.spec.template.spec.containers);
        Ok(images.next().map(|container| container.image))
    }

    /// Runs the commands, and returns the message that each has left as its termination message, in their order. A command
    /// that has not ended after `patience` is no longer waited for.
    #[must_use]
    pub fn run(
        &self,
        commands: &[EphemeralCommand],
        patience: Duration,
    ) -> Vec<Result<String, EphemeralError>> {
        let runs = futures::stream::iter(commands).map(|command| self.run_one(command, patience));
        self.runtime.block_on(runs.buffered(CONCURRENT).collect())
    }

    async fn run_one(
        &self,
        command: &EphemeralCommand,
        patience: Duration,
    ) -> Result<String, EphemeralError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", encode(&command.namespace), encode(&command.pod));
        let pod: PodState = get_json(&self.client, &path, self.timeout).await?;
        let uid = pod.ready_for_another()?.to_owned();
        let name = container::name();
        let patch = container::patch(&uid, &name, command);
        let body = serde_json::to_vec(&patch).map_err(ApiError::from)?;
        let request = Request::patch(format!("{path}/ephemeralcontainers?fieldManager=palisade"))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/strategic-merge-patch+json")
            .body(body)
            .map_err(ApiError::from)?;
        let body = send(&self.client, request, self.timeout).await?;
        // Read to its end, so that the connection can be used again.
        read_body(body, MAX_POD, self.timeout).await?;
        let end = Instant::now() + patience;
        loop {
            let pod: PodState = get_json(&self.client, &path, self.timeout).await?;
            match pod.progress(&uid, &name) {
                Progress::Ended(message) => return message,
                Progress::Waits if Instant::now() >= end => return Err(EphemeralError::TimedOut(patience)),
                Progress::Waits => tokio::time::sleep(PERIOD).await,
            }
        }
    }
}

/// The most bytes of a pod: the API server's limit of an object is less.
const MAX_POD: usize = 4 << 20;

#[derive(Deserialize)]
struct DaemonSetList {
    #[serde(default)]
    items: Vec<DaemonSet>,
}

#[derive(Deserialize)]
struct DaemonSet {
    spec: DaemonSetSpec,
}

#[derive(Deserialize)]
struct DaemonSetSpec {
    template: PodTemplate,
}

#[derive(Deserialize)]
struct PodTemplate {
    spec: PodTemplateSpec,
}

#[derive(Deserialize)]
struct PodTemplateSpec {
    containers: Vec<TemplateContainer>,
}

#[derive(Deserialize)]
struct TemplateContainer {
    #[serde(default)]
    image: String,
}
