//! The plugin against a runtime of the test, over a socket pair: the same frames and messages that containerd exchanges.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Code, Response, get_status};

use super::*;
use crate::messages::{
    ConfigureRequest, ConfigureResponse, Empty, PLUGIN_SERVICE, PodRequest, PodSandbox, StateChangeEvent,
    SynchronizeRequest, SynchronizeResponse,
};
use crate::service::MAX_REQUESTS;

const IDENTITY: Identity<'static> = Identity { name: "palisade", index: "05" };
const PATIENCE: Duration = Duration::from_secs(30);

/// The runtime's end: registration is answered as the test says, and the plugin can be called.
struct Runtime {
    plugin: Client,
    registered: Arc<Mutex<Vec<RegisterPluginRequest>>>,
    transport: JoinHandle<NriError>,
}

struct Registration {
    answer: Option<&'static str>,
    registered: Arc<Mutex<Vec<RegisterPluginRequest>>>,
}

#[async_trait]
impl MethodHandler for Registration {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let message = RegisterPluginRequest::decode(request.payload.as_slice()).expect("a registration");
        self.registered.lock().expect("lock").push(message);
        let mut response = Response::new();
        response.set_status(match self.answer {
            None => get_status(Code::OK, ""),
            Some(reason) => get_status(Code::PERMISSION_DENIED, reason),
        });
        Ok(response)
    }
}

impl Runtime {
    /// A runtime that takes plugins, or refuses them with a reason.
    async fn start(refuses: Option<&'static str>) -> (Self, UnixStream) {
        let (near, far) = UnixStream::pair().expect("socket pair");
        let (channels, work) = multiplex(near);
        let registered = Arc::<Mutex<Vec<_>>>::default();
        let handler = Registration { answer: refuses, registered: Arc::clone(&registered) };
        let methods: HashMap<String, Box<dyn MethodHandler + Send + Sync>> =
            HashMap::from([("RegisterPlugin".to_owned(), Box::new(handler) as _)]);
        let service =
            HashMap::from([(RUNTIME_SERVICE.to_owned(), Service { methods, streams: HashMap::new() })]);
        let end = futures::stream::iter([Ok(channels.runtime)]);
        let mut server = Server::new().add_listener(Listener::new(end)).register_service(service);
        server.start().await.expect("server");
        let plugin = Client::new(Socket::new(channels.plugin));
        let transport = tokio::spawn(async move {
            let reason = work.await;
            drop(server);
            reason
        });
        (Self { plugin, registered, transport }, far)
    }

    async fn call<M: Message, R: Message + Default>(
        &self,
        method: &str,
        message: &M,
    ) -> Result<R, ttrpc::Error> {
        let mut request = Request::new();
        request.set_service(PLUGIN_SERVICE.to_owned());
        request.set_method(method.to_owned());
        request.set_payload(message.encode_to_vec());
        let response = self.plugin.request(request).await?;
        Ok(R::decode(response.payload.as_slice()).expect("a response"))
    }

    async fn configure(&self) -> ConfigureResponse {
        let request = ConfigureRequest {
            runtime_name: "containerd".to_owned(),
            runtime_version: "2.2.0".to_owned(),
            request_timeout: 2_000,
        };
        self.call("Configure", &request).await.expect("configured")
    }
}

/// A connection that is open, and its runtime.
async fn connected() -> (Arc<Runtime>, Connection) {
    let (runtime, socket) = Runtime::start(None).await;
    let runtime = Arc::new(runtime);
    let configuring = Arc::clone(&runtime);
    let configured = tokio::spawn(async move { configuring.configure().await });
    let connection = Connection::register(socket, IDENTITY, PATIENCE).await.expect("registered");
    // RunPodSandbox, StopPodSandbox and RemovePodSandbox.
    assert_eq!(configured.await.expect("configured").events, 0b111);
    (runtime, connection)
}

fn pod(name: &str) -> PodSandbox {
    PodSandbox {
        id: format!("sandbox-{name}"),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        namespace: "shop".to_owned(),
        ips: vec!["10.1.0.5".to_owned()],
        ..PodSandbox::default()
    }
}

/// Calls the plugin in the background.
fn calling<M: Message + 'static>(
    runtime: &Arc<Runtime>,
    method: &'static str,
    message: M,
) -> JoinHandle<Result<Empty, ttrpc::Error>> {
    let runtime = Arc::clone(runtime);
    tokio::spawn(async move { runtime.call(method, &message).await })
}

#[tokio::test]
async fn a_plugin_registers_and_learns_who_the_runtime_is() {
    let (runtime, connection) = connected().await;
    let registered = runtime.registered.lock().expect("lock").clone();
    assert_eq!((registered[0].plugin_name.as_str(), registered[0].plugin_idx.as_str()), ("palisade", "05"));
    assert_eq!(connection.runtime.name, "containerd");
    assert_eq!(connection.runtime.request_timeout, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_pod_waits_until_the_answer() {
    let (runtime, mut connection) = connected().await;
    let call = calling(&runtime, "RunPodSandbox", PodRequest { pod: Some(pod("web-0")) });
    let Event::PodStarts { sandbox, answer } = connection.next().await.expect("event") else {
        panic!("another event")
    };
    assert_eq!((sandbox.namespace.as_str(), sandbox.name.as_str()), ("shop", "web-0"));
    tokio::task::yield_now().await;
    assert!(!call.is_finished());
    answer.accept();
    call.await.expect("call").expect("accepted");
}

#[tokio::test]
async fn a_refusal_and_a_lost_answer_fail_the_request() {
    let (runtime, mut connection) = connected().await;
    for refuse in [true, false] {
        let call = calling(&runtime, "RunPodSandbox", PodRequest { pod: Some(pod("web-0")) });
        let Event::PodStarts { answer, .. } = connection.next().await.expect("event") else {
            panic!("another event")
        };
        if refuse {
            answer.refuse("too many pods");
        } else {
            drop(answer);
        }
        let error = call.await.expect("call").expect_err("refused").to_string();
        assert!(error.contains(if refuse { "too many pods" } else { "the plugin stopped" }), "{error}");
    }
}

#[tokio::test]
async fn notifications_of_older_runtimes_are_the_same_events() {
    let (runtime, mut connection) = connected().await;
    for event in [1, 2, 3] {
        let call = calling(&runtime, "StateChange", StateChangeEvent { event, pod: Some(pod("web-0")) });
        let answer = match (event, connection.next().await.expect("event")) {
            (1, Event::PodStarts { answer, .. }) | (2 | 3, Event::PodStopped { answer, .. }) => answer,
            (_, other) => panic!("{event}: {other:?}"),
        };
        answer.accept();
        call.await.expect("call").expect("accepted");
    }
    // What the plugin didn't subscribe to is answered without an event.
    calling(&runtime, "StateChange", StateChangeEvent { event: 9, pod: None })
        .await
        .expect("call")
        .expect("ignored");
}

#[tokio::test]
async fn a_list_in_several_requests_is_one_event() {
    let (runtime, mut connection) = connected().await;
    let part =
        |names: &[&str], more| SynchronizeRequest { pods: names.iter().map(|n| pod(n)).collect(), more };
    let first: SynchronizeResponse =
        runtime.call("Synchronize", &part(&["a", "b"], true)).await.expect("first part");
    assert!(first.more);
    let mut broken = part(&["c", "d"], false);
    broken.pods[1].ips = vec!["nonsense".to_owned()];
    let last = calling(&runtime, "Synchronize", broken);
    let Event::Synchronize { sandboxes, invalid, answer } = connection.next().await.expect("event") else {
        panic!("another event")
    };
    assert_eq!(sandboxes.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(invalid.len(), 1);
    answer.accept();
    last.await.expect("call").expect("accepted");
}

#[tokio::test]
async fn forged_requests_are_refused_and_reported() {
    let (runtime, mut connection) = connected().await;
    let forged = PodRequest { pod: Some(PodSandbox { name: "../../x".to_owned(), ..pod("x") }) };
    let error = calling(&runtime, "RunPodSandbox", forged).await.expect("call").expect_err("refused");
    assert!(error.to_string().contains("name of the sandbox"), "{error}");
    assert!(matches!(connection.next().await.expect("event"), Event::Invalid(_)));
    calling(&runtime, "RunPodSandbox", PodRequest { pod: None })
        .await
        .expect("call")
        .expect_err("names no pod");

    let mut request = Request::new();
    request.set_service(PLUGIN_SERVICE.to_owned());
    request.set_method("RunPodSandbox".to_owned());
    request.set_payload(vec![0xff; 64]);
    runtime.plugin.request(request).await.expect_err("not a message");
    let forged = PodRequest { pod: Some(PodSandbox { ips: vec!["x".repeat(1 << 20)], ..pod("x") }) };
    let error = calling(&runtime, "RunPodSandbox", forged).await.expect("call").expect_err("refused");
    assert!(error.to_string().len() < 1_000, "{} bytes", error.to_string().len());
    assert!(matches!(connection.next().await.expect("event"), Event::Invalid(_)));
    // The connection outlives all of them.
    let call = calling(&runtime, "RunPodSandbox", PodRequest { pod: Some(pod("web-0")) });
    let Event::PodStarts { answer, .. } = connection.next().await.expect("event") else {
        panic!("another event")
    };
    answer.accept();
    call.await.expect("call").expect("accepted");
}

#[tokio::test]
async fn requests_without_end_are_refused_and_not_kept() {
    let (runtime, mut connection) = connected().await;
    let start = || PodRequest { pod: Some(pod("web-0")) };
    // Nothing takes these from the queue.
    let waiting: Vec<_> = (0..MAX_REQUESTS).map(|_| calling(&runtime, "RunPodSandbox", start())).collect();
    let error = loop {
        // Without an answer it took a place before the last of the others.
        let request = start();
        let call = runtime.call::<_, Empty>("RunPodSandbox", &request);
        if let Ok(answered) = timeout(Duration::from_millis(20), call).await {
            break answered.expect_err("refused").to_string();
        }
    };
    assert!(error.contains("requests at once"), "{error}");
    waiting.iter().for_each(JoinHandle::abort);
    while let Ok(event) = timeout(Duration::from_millis(50), connection.next()).await {
        let Event::PodStarts { answer, .. } = event.expect("event") else { panic!("another event") };
        answer.accept();
    }
    let call = calling(&runtime, "RunPodSandbox", start());
    let Event::PodStarts { answer, .. } = connection.next().await.expect("event") else {
        panic!("another event")
    };
    answer.accept();
    call.await.expect("call").expect("accepted");
}

#[tokio::test]
async fn a_list_with_too_many_or_too_large_pods_is_refused() {
    let (runtime, _connection) = connected().await;
    let small = SynchronizeRequest { pods: vec![pod("a"); 3_000], more: true };
    let large = PodSandbox { labels: [("app".to_owned(), "x".repeat(200 << 10))].into(), ..pod("a") };
    let large = SynchronizeRequest { pods: vec![large; 15], more: true };
    for (part, reason, most) in [(small, "more than 10000 sandboxes", 4), (large, "labels of more than", 12)]
    {
        let mut refused = None;
        for _ in 0..most {
            let answered = runtime.call::<_, SynchronizeResponse>("Synchronize", &part).await;
            refused = refused.or(answered.err());
        }
        let error = refused.expect("refused").to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_runtime_that_refuses_or_never_answers_is_an_error() {
    let (_runtime, socket) = Runtime::start(Some("plugins are not allowed")).await;
    let error = Connection::register(socket, IDENTITY, PATIENCE).await.expect_err("refused");
    assert!(matches!(&error, NriError::Refused(reason) if reason == "plugins are not allowed"), "{error}");

    let (near, _far) = UnixStream::pair().expect("socket pair");
    let error = Connection::register(near, IDENTITY, Duration::from_millis(50)).await.expect_err("silent");
    assert!(matches!(error, NriError::Silent(_)), "{error}");

    // Registered, but never configured.
    let (_runtime, socket) = Runtime::start(None).await;
    let error =
        Connection::register(socket, IDENTITY, Duration::from_millis(50)).await.expect_err("not configured");
    assert!(matches!(error, NriError::Silent(_)), "{error}");

    let folder = tempfile::tempdir().expect("folder");
    let error =
        Connection::open(&folder.path().join("nri.sock"), IDENTITY, PATIENCE).await.expect_err("no socket");
    assert!(matches!(error, NriError::NoSocket { .. }), "{error}");
}

#[tokio::test]
async fn the_end_of_the_runtime_ends_the_connection_and_late_answers_are_noticed() {
    let (runtime, mut connection) = connected().await;
    let call = calling(&runtime, "RunPodSandbox", PodRequest { pod: Some(pod("web-0")) });
    let Event::PodStarts { answer, .. } = connection.next().await.expect("event") else {
        panic!("another event")
    };
    assert!(!answer.is_too_late());
    call.abort();
    runtime.transport.abort();
    drop(call.await);
    assert!(matches!(connection.next().await, Err(NriError::Closed)));
    answer.accept();
}
