//! The writing: one thing at a time, each tried again with growing pauses.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Weak,
    time::{Duration, Instant},
};

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

use super::{
    ReportOptions, Shared,
    conditions::to_write,
    election::{Act, Election, LASTS, LOOKED_AT, RENEWED, Seen},
    ledger::StatusWrite,
    notices::{Notice, Post},
};
use crate::{
    Kind, ObjectRef,
    watch::{
        doors::Doors,
        failure::Failure,
        pauses::{Pauses, spread},
    },
};

/// Who reports, and the field manager of the conditions.
const CONTROLLER: &str = "palisade.dev/agent";
const LEASE: &str = "palisade-status-writer";
/// How often there may be something to do. Also how fast the leader writes at most: the API server has other things to do.
const TICK: Duration = Duration::from_millis(250);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Reports until nobody holds a [`super::Reporter`].
pub(super) async fn run(doors: Doors, options: ReportOptions, shared: Weak<Shared>) {
    let now = Instant::now();
    let pauses = || Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut writer = Writer {
        election: Election::new(options.node.to_string()),
        look_at: now + spread(options.first_look, 0.0, 1.0),
        options,
        doors,
        led: false,
        versions: BTreeMap::new(),
        events_at: now,
        event_pauses: pauses(),
        status_pauses: pauses(),
        said: BTreeMap::new(),
    };
    while let Some(shared) = shared.upgrade() {
        writer.turn(&shared).await;
        drop(shared);
        tokio::time::sleep(TICK).await;
    }
}

struct Writer {
    options: ReportOptions,
    doors: Doors,
    election: Election,
    look_at: Instant,
    /// Whether we led at the last turn.
    led: bool,
    /// The version in which a kind was found.
    versions: BTreeMap<Kind, &'static str>,
    events_at: Instant,
    event_pauses: Pauses,
    status_pauses: Pauses,
    /// What was last logged of each sort of work: only news is.
    said: BTreeMap<&'static str, String>,
}

impl Writer {
    /// One look at the lease if it is time, one status and one Event if there are any.
    async fn turn(&mut self, shared: &Shared) {
        if Instant::now() >= self.look_at {
            self.look().await;
            let pause = match self.election.leads(Instant::now()) {
                true => spread(RENEWED, 0.8, 1.0),
                false => spread(LOOKED_AT, 0.5, 1.5),
            };
            self.look_at = Instant::now() + pause;
        }
        let leads = self.election.leads(Instant::now());
        if leads && !self.led {
            tracing::info!(node = %self.options.node, "this agent writes the status of policies now");
            shared.ledger().take_over(Instant::now());
        }
        self.led = leads;
        if leads {
            let next = shared.ledger().next_status(Instant::now());
            if let Some(write) = next {
                self.status(shared, write).await;
            }
        }
        if Instant::now() >= self.events_at {
            let next = shared.ledger().next_event(leads, Instant::now());
            if let Some(post) = next {
                self.event(shared, post).await;
            }
        }
    }

    async fn look(&mut self) {
        let asked = Instant::now();
        let namespace = self.options.namespace.clone();
        let found = self
            .attempt("the election of the status writer", |client| async move {
                Api::<Lease>::namespaced(client, &namespace).get_opt(LEASE).await
            })
            .await;
        let Ok(lease) = found else { return };
        let seen = lease.as_ref().map(|l| Seen {
            holder: l.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default(),
            version: l.metadata.resource_version.clone().unwrap_or_default(),
        });
        let act = self.election.look(seen, asked);
        if act == Act::Wait {
            return;
        }
        let lease = self.mine(lease);
        let namespace = self.options.namespace.clone();
        let taken = self
            .attempt("the election of the status writer", |client| async move {
                let api = Api::<Lease>::namespaced(client, &namespace);
                let parameters =
                    PostParams { field_manager: Some(CONTROLLER.to_owned()), ..PostParams::default() };
                // The version that we saw goes along: whoever is second is refused.
                let taken = match act {
                    Act::Create => api.create(&parameters, &lease).await,
                    _ => api.replace(LEASE, &parameters, &lease).await,
                };
                match taken {
                    Ok(_) => Ok(true),
                    Err(Error::Api(status)) if status.code == 409 => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await;
        match taken {
            Ok(true) => self.election.got(asked),
            Ok(false) => self.election.lost(),
            // What we hold we hold for as long as it lasts.
            Err(_) => {}
        }
    }

    /// The lease with our name on it.
    fn mine(&self, before: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = before.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        let me = self.options.node.to_string();
        if spec.holder_identity.as_ref() != Some(&me) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(me);
        }
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(LASTS.as_secs()).ok();
        lease
    }

    /// Brings the conditions of one policy up to date, if they aren't.
    async fn status(&mut self, shared: &Shared, write: StatusWrite) {
        let kind = write.object.kind;
        let candidates = match self.versions.get(&kind) {
            Some(version) => vec![*version],
            None => versions(kind).to_vec(),
        };
        let sent = write.clone();
        let outcome = self
            .attempt("the status of policies", |client| async move {
                for version in candidates {
                    if write_status(&client, version, &sent).await? {
                        return Ok(Some(version));
                    }
                }
                Ok(None)
            })
            .await;
        match outcome {
            Ok(version) => {
                self.status_pauses.reset();
                // Where it isn't found the policy is gone, or is served in another version now.
                match version {
                    Some(version) => drop(self.versions.insert(kind, version)),
                    None => drop(self.versions.remove(&kind)),
                }
            }
            Err(failure) => {
                let pause = self.status_pauses.next(failure.retry_after());
                shared.ledger().later(&write.object, Instant::now() + pause);
            }
        }
    }

    async fn event(&mut self, shared: &Shared, post: Post) {
        let (notice, outcome) = match post {
            Post::Create(notice) => {
                let event = self.new_event(&notice);
                let name = event.metadata.name.clone().unwrap_or_default();
                let namespace = namespace_of(&notice.about).to_owned();
                let sent = self.attempt("Events", |client| async move {
                    Api::<Event>::namespaced(client, &namespace).create(&PostParams::default(), &event).await
                });
                (notice, sent.await.map(|_| (name, 1)))
            }
            Post::Again { notice, event, count } => {
                let series =
                    json!({"series": {"count": count, "lastObservedTime": MicroTime(Timestamp::now())}});
                let namespace = namespace_of(&notice.about).to_owned();
                let name = event.clone();
                let sent = self.attempt("Events", |client| async move {
                    let api = Api::<Event>::namespaced(client, &namespace);
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(series)).await
                });
                (notice, sent.await.map(|_| (event, count)))
            }
        };
        match outcome {
            Ok((event, count)) => {
                self.event_pauses.reset();
                shared.ledger().posted(notice, event, count, Instant::now());
            }
            // The server forgets Events after an hour. The next turn makes a new one.
            Err(failure) if failure.code() == Some(404) => shared.ledger().forget_event(&notice),
            Err(failure) => self.events_at = Instant::now() + self.event_pauses.next(failure.retry_after()),
        }
    }

    fn new_event(&self, notice: &Notice) -> Event {
        let about = &notice.about;
        let now = Timestamp::now();
        let version = self.versions.get(&about.kind).copied().unwrap_or_else(|| versions(about.kind)[0]);
        let api_version = match about.kind.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        // As client-go names them: the object and a time, in base 16.
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
            reason: Some(notice.reason.to_owned()),
            note: Some(notice.note.clone()),
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

    /// Asks the server for something, in time. What goes wrong is logged when it is news.
    async fn attempt<T, F>(&mut self, what: &'static str, ask: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let door = self.doors.door().await;
        let failure = match tokio::time::timeout(PATIENCE, ask(door.client.clone())).await {
            Ok(Ok(answer)) => {
                if self.said.remove(what).is_some() {
                    tracing::info!("{what}: works again");
                }
                return Ok(answer);
            }
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::Silent(PATIENCE),
        };
        if failure.code() != Some(404) {
            let words = failure.to_string();
            if self.said.get(what) != Some(&words) {
                tracing::warn!(%failure, "cannot report: {what}; tried again from time to time, and enforcement goes on");
                self.said.insert(what, words);
            }
        }
        if failure.wants_new_connection() {
            self.doors.renew(&door).await;
        }
        Err(failure)
    }
}

/// The versions in which a kind may be served, the one to prefer first.
fn versions(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::ClusterNetworkPolicy => &["v1beta1", "v1alpha2"],
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => &["v1alpha1"],
        _ => &["v1"],
    }
}

/// Events about cluster-scoped objects are in this namespace.
fn namespace_of(object: &ObjectRef) -> &str {
    object.namespace.as_deref().unwrap_or("default")
}

/// Writes conditions where they differ from what is there. Whether the object was found.
async fn write_status(client: &Client, version: &'static str, write: &StatusWrite) -> Result<bool, Error> {
    let StatusWrite { object, conditions } = write;
    let api_version = format!("{}/{version}", object.kind.group());
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
    let is_other = found.metadata.uid.as_deref() != Some(&*object.uid)
        || found.metadata.generation.is_some_and(|g| g > object.generation);
    if is_other {
        // The watch is about to tell us, and then there is something to write.
        return Ok(true);
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let existing = &found.data["status"]["conditions"];
    let Some(conditions) = to_write(existing, conditions, object.generation, &now) else { return Ok(true) };
    // Applied: what others have written stays. The uid makes it fail where the object was replaced meanwhile.
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
