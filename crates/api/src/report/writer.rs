//! Writes Events and conditions, one request at a time, each retried with exponential backoff.

use std::{collections::BTreeMap, future::Future, sync::Weak, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ObjectReference,
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    conditions::to_write,
    election::{Election, LEASE_DURATION, LeaseAction, ObservedLease, READ_INTERVAL, RENEW_INTERVAL},
    event_log::{EventWrite, Problem},
    options::ReportOptions,
    queue::StatusWrite,
    reporter::Shared,
};
use crate::{
    backoff::{Backoff, jitter},
    client::ClientPool,
    error::{ApiError, ApiErrorKind},
    event::ObjectRef,
    resource::ResourceKind,
};

/// The reporting controller of Events, and the field manager of conditions.
const CONTROLLER: &str = "palisade.dev/agent";
const LEASE: &str = "palisade-status-writer";
/// The election, in logs.
const ELECTION: &str = "election of the status writer";
/// How often the queue is checked. Limits how fast the leader writes.
const TICK: Duration = Duration::from_millis(250);
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Reports until the last [`super::Reporter`] is dropped.
pub(super) async fn run(clients: ClientPool, options: ReportOptions, shared: Weak<Shared>) {
    let now = Instant::now();
    let backoff = || Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    let mut writer = Writer {
        election: Election::new(options.node.to_string()),
        read_lease_at: now + jitter(options.max_first_lease_delay, 0.0, 1.0),
        options,
        clients,
        was_leader: false,
        versions: BTreeMap::new(),
        events_at: now,
        event_backoff: backoff(),
        status_backoff: backoff(),
        logged: BTreeMap::new(),
    };
    while let Some(shared) = shared.upgrade() {
        writer.tick(&shared).await;
        drop(shared);
        tokio::time::sleep(TICK).await;
    }
}

struct Writer {
    options: ReportOptions,
    clients: ClientPool,
    election: Election,
    read_lease_at: Instant,
    /// Whether this agent was the leader at the last tick.
    was_leader: bool,
    /// The version in which a kind was found.
    versions: BTreeMap<ResourceKind, &'static str>,
    events_at: Instant,
    event_backoff: Backoff,
    status_backoff: Backoff,
    /// The last error that was logged of each task. An error is logged once.
    logged: BTreeMap<&'static str, String>,
}

impl Writer {
    /// Reads the lease if it is time, and writes at most one status and one Event.
    async fn tick(&mut self, shared: &Shared) {
        if Instant::now() >= self.read_lease_at {
            self.elect().await;
            let pause = match self.election.is_leader(Instant::now()) {
                true => jitter(RENEW_INTERVAL, 0.8, 1.0),
                false => jitter(READ_INTERVAL, 0.5, 1.5),
            };
            self.read_lease_at = Instant::now() + pause;
        }
        let is_leader = self.election.is_leader(Instant::now());
        if is_leader && !self.was_leader {
            tracing::info!(node = %self.options.node, "elected as writer of policy status");
            shared.queue().become_leader(Instant::now());
        }
        self.was_leader = is_leader;
        if is_leader {
            let next = shared.queue().next_status(Instant::now());
            if let Some(write) = next {
                self.write_status(shared, write).await;
            }
        }
        if Instant::now() >= self.events_at {
            let next = shared.queue().next_event(is_leader, Instant::now());
            if let Some(write) = next {
                self.write_event(shared, write).await;
            }
        }
    }

    /// Reads the lease, and creates, acquires or renews it if possible.
    async fn elect(&mut self) {
        let sent = Instant::now();
        let namespace = self.options.namespace.clone();
        let found = self
            .attempt(ELECTION, |client| async move {
                Api::<Lease>::namespaced(client, &namespace).get_opt(LEASE).await
            })
            .await;
        let Ok(lease) = found else { return };
        let observed = lease.as_ref().map(|l| ObservedLease {
            holder: l.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default(),
            version: l.metadata.resource_version.clone().unwrap_or_default(),
        });
        let action = self.election.observe(observed, sent);
        if action == LeaseAction::Wait {
            return;
        }
        let lease = self.own_lease(lease);
        let namespace = self.options.namespace.clone();
        let acquired = self
            .attempt(ELECTION, |client| async move {
                let api = Api::<Lease>::namespaced(client, &namespace);
                let parameters =
                    PostParams { field_manager: Some(CONTROLLER.to_owned()), ..PostParams::default() };
                // The request names the observed version, so the second of two agents is refused.
                let written = match action {
                    LeaseAction::Create => api.create(&parameters, &lease).await,
                    _ => api.replace(LEASE, &parameters, &lease).await,
                };
                match written {
                    Ok(_) => Ok(true),
                    Err(Error::Api(status)) if status.code == 409 => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await;
        match acquired {
            Ok(true) => self.election.acquired(sent),
            Ok(false) => self.election.lost(),
            // A lease that we hold remains valid until it expires.
            Err(_) => {}
        }
    }

    /// Returns the lease with our name in it.
    fn own_lease(&self, before: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = before.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        let own_name = self.options.node.to_string();
        if spec.holder_identity.as_ref() != Some(&own_name) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(own_name);
        }
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
        lease
    }

    /// Writes the conditions of one policy if they differ.
    async fn write_status(&mut self, shared: &Shared, write: StatusWrite) {
        let kind = write.object.kind;
        let candidates = match self.versions.get(&kind) {
            Some(version) => vec![*version],
            None => kind.versions().to_vec(),
        };
        let sent = write.clone();
        let outcome = self
            .attempt("status of policies", |client| async move {
                for version in candidates {
                    if apply_conditions(&client, version, &sent).await? {
                        return Ok(Some(version));
                    }
                }
                Ok(None)
            })
            .await;
        match outcome {
            Ok(version) => {
                self.status_backoff.reset();
                // A policy that isn't found was deleted, or is served in another version now.
                match version {
                    Some(version) => drop(self.versions.insert(kind, version)),
                    None => drop(self.versions.remove(&kind)),
                }
            }
            Err(error) => {
                let pause = self.status_backoff.next(error.retry_after());
                shared.queue().retry_status(&write.object, Instant::now() + pause);
            }
        }
    }

    async fn write_event(&mut self, shared: &Shared, write: EventWrite) {
        let (problem, outcome) = match write {
            EventWrite::Create(problem) => {
                let event = self.new_event(&problem);
                let name = event.metadata.name.clone().unwrap_or_default();
                let namespace = namespace_of(&problem.about).to_owned();
                let sent = self.attempt("Events", |client| async move {
                    Api::<Event>::namespaced(client, &namespace).create(&PostParams::default(), &event).await
                });
                (problem, sent.await.map(|_| (name, 1)))
            }
            EventWrite::Repeat { problem, event, count } => {
                let series =
                    json!({"series": {"count": count, "lastObservedTime": MicroTime(Timestamp::now())}});
                let namespace = namespace_of(&problem.about).to_owned();
                let name = event.clone();
                let sent = self.attempt("Events", |client| async move {
                    let api = Api::<Event>::namespaced(client, &namespace);
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(series)).await
                });
                (problem, sent.await.map(|_| (event, count)))
            }
        };
        match outcome {
            Ok((event, count)) => {
                self.event_backoff.reset();
                shared.queue().event_sent(problem, event, count, Instant::now());
            }
            // The server deletes Events after an hour. The next tick creates a new one.
            Err(error) if error.is_not_found() => shared.queue().forget_event(&problem),
            Err(error) => self.events_at = Instant::now() + self.event_backoff.next(error.retry_after()),
        }
    }

    fn new_event(&self, problem: &Problem) -> Event {
        let about = &problem.about;
        let now = Timestamp::now();
        let version = self.versions.get(&about.kind).copied().unwrap_or_else(|| about.kind.versions()[0]);
        let api_version = about.kind.api_version(version);
        // Named as by client-go: the object and the time in hexadecimal.
        let suffix = format!("{:x}", now.as_nanosecond());
        let name: String = about.name.chars().take(230).collect();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{suffix}", name.trim_end_matches(['.', '-']))),
                namespace: Some(namespace_of(about).to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.options.node.chars().take(128).collect()),
            action: Some("Programming".to_owned()),
            reason: Some(problem.reason.to_owned()),
            note: Some(problem.note.clone()),
            type_: Some("Warning".to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(api_version),
                kind: Some(about.kind.as_str().to_owned()),
                namespace: about.namespace.as_ref().map(ToString::to_string),
                name: Some(about.name.to_string()),
                uid: Some(about.uid.to_string()).filter(|u| !u.is_empty()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }

    /// Sends a request with a time limit. Logs an error unless it is the last one that was logged.
    async fn attempt<T, F>(
        &mut self,
        task: &'static str,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let client = self.clients.current().await;
        let error = match tokio::time::timeout(REQUEST_TIMEOUT, request(client.client.clone())).await {
            Ok(Ok(response)) => {
                if self.logged.remove(task).is_some() {
                    tracing::info!(task, "reporting works again");
                }
                return Ok(response);
            }
            Ok(Err(error)) => ApiError::from(error),
            Err(_) => ApiErrorKind::TimedOut(REQUEST_TIMEOUT).into(),
        };
        if !error.is_not_found() {
            let text = error.to_string();
            if self.logged.get(task) != Some(&text) {
                tracing::warn!(task, err = %error, "cannot report, retrying; enforcement is not affected");
                self.logged.insert(task, text);
            }
        }
        if error.may_need_new_client() {
            self.clients.renew(&client).await;
        }
        Err(error)
    }
}

/// Returns the namespace of Events about an object. For cluster-scoped objects it is `default`, as for client-go.
fn namespace_of(object: &ObjectRef) -> &str {
    object.namespace.as_deref().unwrap_or("default")
}

/// Writes conditions if they differ. Returns whether the object was found.
async fn apply_conditions(
    client: &Client,
    version: &'static str,
    write: &StatusWrite,
) -> Result<bool, Error> {
    let StatusWrite { object, conditions } = write;
    let api_version = object.kind.api_version(version);
    let resource = ApiResource {
        group: object.kind.group().to_owned(),
        version: version.to_owned(),
        api_version: api_version.clone(),
        kind: object.kind.as_str().to_owned(),
        plural: object.kind.plural().to_owned(),
    };
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let found = match api.get_status(&object.name).await {
        Err(Error::Api(status)) if status.code == 404 => return Ok(false),
        found => found?,
    };
    let is_another = found.metadata.uid.as_deref() != Some(&*object.uid)
        || found.metadata.generation.is_some_and(|g| g > object.generation);
    if is_another {
        // The watch will deliver the new object or generation, and its status is written then.
        return Ok(true);
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let existing = &found.data["status"]["conditions"];
    let Some(conditions) = to_write(existing, conditions, object.generation, &now) else { return Ok(true) };
    // Server-side apply keeps the conditions of other managers. The uid makes the request fail if the object was replaced meanwhile.
    let patch = json!({
        "apiVersion": api_version, "kind": object.kind.as_str(),
        "metadata": {"name": &*object.name, "uid": &*object.uid},
        "status": {"conditions": conditions},
    });
    let parameters = PatchParams::apply(CONTROLLER).force();
    match api.patch_status(&object.name, &parameters, &Patch::Apply(patch)).await {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}
