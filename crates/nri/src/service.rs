//! The service `Plugin`: the runtime's requests become events, and the events' answers its responses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Code, Error, Request, Response, get_status};

use crate::event::{Answer, Event, RuntimeInfo};
use crate::messages::SUBSCRIBED;
use crate::messages::{
    ConfigureRequest, ConfigureResponse, Empty, PLUGIN_SERVICE, PodRequest, PodSandbox, StateChangeEvent,
    SynchronizeRequest, SynchronizeResponse,
};
use crate::sandbox::{InvalidSandbox, Sandbox};

/// Sandboxes in one synchronization. A node has some hundred pods; a list that never ends must not fill the memory.
const MAX_SANDBOXES: usize = 10_000;

/// What the methods share.
pub(crate) struct Shared {
    events: mpsc::Sender<Event>,
    runtime: Mutex<Option<oneshot::Sender<RuntimeInfo>>>,
    /// What earlier requests of one synchronization brought. Checked on arrival: what is kept of a pod is bounded.
    parts: Mutex<(Vec<Sandbox>, Vec<InvalidSandbox>)>,
}

impl Shared {
    pub(crate) fn new(events: mpsc::Sender<Event>, runtime: oneshot::Sender<RuntimeInfo>) -> Arc<Self> {
        Arc::new(Self { events, runtime: Mutex::new(Some(runtime)), parts: Mutex::default() })
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
            name: request.runtime_name,
            version: request.runtime_version,
            request_timeout: timeout.map(Duration::from_millis),
        };
        if let Some(sender) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The other end may have given up.
            let _ = sender.send(info);
        }
        ConfigureResponse { events: SUBSCRIBED }
    }

    async fn synchronize(&self, request: SynchronizeRequest) -> Result<SynchronizeResponse, Error> {
        let (sandboxes, invalid) = {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            if parts.0.len() + parts.1.len() + request.pods.len() > MAX_SANDBOXES {
                *parts = Default::default();
                let reason = format!("more than {MAX_SANDBOXES} sandboxes");
                return Err(failure(Code::RESOURCE_EXHAUSTED, &reason));
            }
            for pod in request.pods {
                match Sandbox::try_from(pod) {
                    Ok(sandbox) => parts.0.push(sandbox),
                    Err(problem) => parts.1.push(problem),
                }
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
        let (shared, payload) = (&self.shared, request.payload.as_slice());
        let answered = match self.method {
            Method::Configure => decode(payload).map(|request| shared.configure(request).encode_to_vec()),
            Method::Synchronize => match decode(payload) {
                Ok(request) => shared.synchronize(request).await.map(|m| m.encode_to_vec()),
                Err(error) => Err(error),
            },
            Method::Shutdown => {
                let _ = shared.events.try_send(Event::Shutdown);
                Ok(Vec::new())
            }
            Method::Pod(change) => match decode::<PodRequest>(payload) {
                Ok(request) => shared.pod_event(change, request.pod).await.map(|m| m.encode_to_vec()),
                Err(error) => Err(error),
            },
            Method::StateChange => match decode(payload) {
                Ok(request) => shared.state_change(request).await.map(|m| m.encode_to_vec()),
                Err(error) => Err(error),
            },
        };
        Ok(response(answered))
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

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Error> {
    M::decode(payload).map_err(|error| failure(Code::INVALID_ARGUMENT, &error.to_string()))
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
