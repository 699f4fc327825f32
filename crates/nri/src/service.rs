//! The service `Plugin`: the runtime's requests become events, and the events' answers its responses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot};
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Code, Error, Request, Response, get_status};

use crate::event::{Answer, Event, RuntimeInfo};
use crate::messages::SUBSCRIBED;
use crate::messages::{
    ConfigureRequest, ConfigureResponse, Empty, PLUGIN_SERVICE, PodRequest, PodSandbox, StateChangeEvent,
    SynchronizeRequest, SynchronizeResponse,
};
use crate::sandbox::{InvalidSandbox, Sandbox};
use crate::text;

/// Sandboxes in one synchronization, and bytes of their labels. A node has some hundred pods; a list that never ends must not fill the memory.
const MAX_SANDBOXES: usize = 10_000;
const MAX_LABELS_BYTES: usize = 32 << 20;
/// Requests that are not answered yet. Runtimes send one at a time; what sends more is none, and must not fill the memory.
pub(crate) const MAX_REQUESTS: usize = 16;

/// What the methods share.
pub(crate) struct Shared {
    events: mpsc::Sender<Event>,
    runtime: Mutex<Option<oneshot::Sender<RuntimeInfo>>>,
    /// What earlier requests of one synchronization brought. Checked on arrival: what is kept of a pod is bounded.
    parts: Mutex<Parts>,
    /// Places of requests that are being answered.
    places: Semaphore,
}

/// What the requests of one synchronization brought.
#[derive(Default)]
struct Parts {
    sandboxes: Vec<Sandbox>,
    invalid: Vec<InvalidSandbox>,
    /// Bytes of the sandboxes' labels.
    labels: usize,
}

impl Parts {
    /// Adds pods.
    ///
    /// # Errors
    /// There are more than a node has.
    fn add(&mut self, pods: Vec<PodSandbox>) -> Result<(), String> {
        if self.sandboxes.len() + self.invalid.len() + pods.len() > MAX_SANDBOXES {
            return Err(format!("more than {MAX_SANDBOXES} sandboxes"));
        }
        for pod in pods {
            match Sandbox::try_from(pod) {
                Ok(sandbox) => {
                    self.labels +=
                        sandbox.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
                    self.sandboxes.push(sandbox);
                }
                Err(problem) => self.invalid.push(problem),
            }
            if self.labels > MAX_LABELS_BYTES {
                return Err(format!("labels of more than {MAX_LABELS_BYTES} bytes"));
            }
        }
        Ok(())
    }
}

impl Shared {
    pub(crate) fn new(events: mpsc::Sender<Event>, runtime: oneshot::Sender<RuntimeInfo>) -> Arc<Self> {
        Arc::new(Self {
            events,
            runtime: Mutex::new(Some(runtime)),
            parts: Mutex::default(),
            places: Semaphore::new(MAX_REQUESTS),
        })
    }

    /// Sends an event that has to be answered, and returns the answer.
    async fn ask(&self, event: impl FnOnce(Answer) -> Event) -> Result<(), Error> {
        let (sender, answer) = oneshot::channel();
        let gone = || failure(Code::UNAVAILABLE, "the plugin stopped before it answered");
        self.events.send(event(Answer(sender))).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(|reason| failure(Code::FAILED_PRECONDITION, &reason))
    }

    /// Returns the pod of a request. One that is invalid is reported, and fails the request.
    async fn sandbox(&self, pod: Option<PodSandbox>) -> Result<Sandbox, Error> {
        let pod = pod.ok_or_else(|| failure(Code::INVALID_ARGUMENT, "the request names no pod"))?;
        match Sandbox::try_from(pod) {
            Ok(sandbox) => Ok(sandbox),
            Err(invalid) => {
                let error = failure(Code::INVALID_ARGUMENT, &invalid.to_string());
                // A full queue is no reason to wait here: the request fails either way.
                let _ = self.events.try_send(Event::Invalid(invalid));
                Err(error)
            }
        }
    }

    fn configure(&self, request: ConfigureRequest) -> ConfigureResponse {
        let timeout = u64::try_from(request.request_timeout).ok().filter(|&milliseconds| milliseconds > 0);
        let info = RuntimeInfo {
            name: text::shortened(request.runtime_name),
            version: text::shortened(request.runtime_version),
            request_timeout: timeout.map(Duration::from_millis),
        };
        if let Some(sender) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The other end may have given up.
            let _ = sender.send(info);
        }
        ConfigureResponse { events: SUBSCRIBED }
    }

    async fn synchronize(&self, request: SynchronizeRequest) -> Result<SynchronizeResponse, Error> {
        let Parts { sandboxes, invalid, .. } = {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(reason) = parts.add(request.pods) {
                *parts = Parts::default();
                return Err(failure(Code::RESOURCE_EXHAUSTED, &reason));
            }
            if request.more {
                return Ok(SynchronizeResponse { more: true });
            }
            std::mem::take(&mut *parts)
        };
        self.ask(|answer| Event::Synchronize { sandboxes, invalid, answer }).await?;
        Ok(SynchronizeResponse { more: false })
    }

    async fn pod_event(&self, change: PodEvent, pod: Option<PodSandbox>) -> Result<Empty, Error> {
        let sandbox = self.sandbox(pod).await?;
        self.ask(|answer| match change {
            PodEvent::Starts => Event::PodStarts { sandbox, answer },
            PodEvent::Stopped => Event::PodStopped { sandbox, answer },
        })
        .await?;
        Ok(Empty {})
    }

    /// Answers a request. Its bytes are not kept while the answer is waited for.
    async fn answer(&self, method: Method, request: Request) -> Result<Vec<u8>, Error> {
        Ok(match method {
            Method::Configure => self.configure(decode(request)?).encode_to_vec(),
            Method::Synchronize => self.synchronize(decode(request)?).await?.encode_to_vec(),
            Method::Shutdown => {
                // Nothing depends on it.
                let _ = self.events.try_send(Event::Shutdown);
                Vec::new()
            }
            Method::Pod(change) => {
                let PodRequest { pod } = decode(request)?;
                self.pod_event(change, pod).await?.encode_to_vec()
            }
            Method::StateChange => self.state_change(decode(request)?).await?.encode_to_vec(),
        })
    }

    /// Runtimes before NRI 0.12 report pods with one notification for all events, by number.
    async fn state_change(&self, request: StateChangeEvent) -> Result<Empty, Error> {
        let change = match request.event {
            1 => PodEvent::Starts,
            2 | 3 => PodEvent::Stopped,
            _ => return Ok(Empty {}),
        };
        self.pod_event(change, request.pod).await
    }
}

#[derive(Clone, Copy)]
enum PodEvent {
    Starts,
    Stopped,
}

/// The methods that the runtime may call.
#[derive(Clone, Copy)]
enum Method {
    Configure,
    Synchronize,
    Shutdown,
    Pod(PodEvent),
    StateChange,
}

const METHODS: [(&str, Method); 7] = [
    ("Configure", Method::Configure),
    ("Synchronize", Method::Synchronize),
    ("Shutdown", Method::Shutdown),
    ("RunPodSandbox", Method::Pod(PodEvent::Starts)),
    ("StopPodSandbox", Method::Pod(PodEvent::Stopped)),
    ("RemovePodSandbox", Method::Pod(PodEvent::Stopped)),
    ("StateChange", Method::StateChange),
];

struct Handler {
    shared: Arc<Shared>,
    method: Method,
}

#[async_trait]
impl MethodHandler for Handler {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        Ok(response(match self.shared.places.try_acquire() {
            Ok(_place) => self.shared.answer(self.method, request).await,
            Err(_) => {
                let reason = format!("more than {MAX_REQUESTS} requests at once");
                Err(failure(Code::RESOURCE_EXHAUSTED, &reason))
            }
        }))
    }
}

/// Returns the service, ready to be registered with a server.
pub(crate) fn plugin(shared: &Arc<Shared>) -> HashMap<String, Service> {
    let methods = METHODS.iter().map(|&(name, method)| {
        let handler = Handler { shared: Arc::clone(shared), method };
        (name.to_owned(), Box::new(handler) as Box<dyn MethodHandler + Send + Sync>)
    });
    let service = Service { methods: methods.collect(), streams: HashMap::new() };
    HashMap::from([(PLUGIN_SERVICE.to_owned(), service)])
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the request's bytes are freed before its answer is waited for"
)]
fn decode<M: Message + Default>(request: Request) -> Result<M, Error> {
    M::decode(request.payload.as_slice()).map_err(|error| failure(Code::INVALID_ARGUMENT, &error.to_string()))
}

fn failure(code: Code, reason: &str) -> Error {
    Error::RpcStatus(get_status(code, reason))
}

fn response(answered: Result<Vec<u8>, Error>) -> Response {
    let mut response = Response::new();
    match answered {
        Ok(payload) => {
            response.set_status(get_status(Code::OK, ""));
            response.set_payload(payload);
        }
        Err(Error::RpcStatus(status)) => response.set_status(status),
        Err(other) => response.set_status(get_status(Code::UNKNOWN, other)),
    }
    response
}
