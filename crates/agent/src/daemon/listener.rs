//! The agent's local socket, which answers `palisade node`, `palisade flows` and the CNI plugin.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::geteuid;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{cni, pod_gate::PodGate, shared::Shared};
#[cfg(fuzzing)]
use super::{runtime_event::RuntimeEvent, start_outcome::StartOutcome};
use crate::config::Config;
use crate::flows::FlowStore;
use crate::socket::{RESPONSE_TIMEOUT, Request, RequestLine, Response, ResponseLine, VERSION};

/// The longest request in bytes: it contains at most names and addresses.
const MAX_REQUEST: u64 = 16 << 10;
/// The most connections at once: more than pods start at once and programs follow flows.
const MAX_CONNECTIONS: usize = 128;
/// The most questions answered at once, whose answers may be long. Others wait. Pods that start don't, whatever else is asked.
const MAX_QUESTIONS: usize = 16;
/// Idle connections are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting pauses after `accept` failed.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Why the socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A file operation failed.
    #[error("cannot {doing} the socket {}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The path exists and is not a socket.
    #[error("{} exists and is not a socket: remove it, or choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
}

/// What requests lead to.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    gate: PodGate,
    flows: Arc<FlowStore>,
    questions: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new(config: &Config, shared: &Shared) -> Self {
        let gate = PodGate::new(config, &shared.inbox, &shared.metrics);
        Self::with(gate, Arc::clone(&shared.flows))
    }

    fn with(gate: PodGate, flows: Arc<FlowStore>) -> Self {
        Self { gate, flows, questions: Arc::new(Semaphore::new(MAX_QUESTIONS)) }
    }
}

/// The listening socket. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct SocketListener {
    listener: UnixListener,
    path: PathBuf,
}

impl SocketListener {
    /// Opens the socket for this user only, and removes one that a killed agent left: the lock excludes a running agent.
    /// Must be called in a runtime.
    pub(super) fn open(path: &Path) -> Result<Self, SocketError> {
        let failed = |doing| move |source| SocketError::Io { doing, path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed("remove the old file of"))?;
            }
            Ok(_) => return Err(SocketError::NotASocket(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look up")(e)),
        }
        // Bound under another name and renamed, so that no one can connect before the mode is set.
        let temporary = path.with_extension("new");
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("create")(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary).map_err(failed("create"))?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))
            .map_err(failed("set the mode of"))?;
        fs::rename(&temporary, path).map_err(failed("rename"))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

/// Serves connections; never returns.
pub(super) async fn serve(listener: &SocketListener, doors: Doors) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.listener.accept().await {
            Ok((stream, _)) => {
                let doors = doors.clone();
                tokio::spawn(async move {
                    if let Err(err) = serve_connection(stream, &doors).await {
                        tracing::debug!(%err, "socket connection failed");
                    }
                    drop(slot);
                });
            }
            // Usually the process has no file descriptors left, until other connections are closed.
            Err(err) => {
                tracing::warn!(%err, "cannot accept socket connections, retrying");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, doors: &Doors) -> io::Result<()> {
    // The file's mode excludes other users. This check also works on file systems that ignore the mode.
    let user = stream.peer_cred()?.uid();
    if user != 0 && user != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user} has no access")));
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(MAX_REQUEST);
        let reading = limited.read_until(b'\n', &mut line);
        if timeout(IDLE_TIMEOUT, reading).await.map_err(io::Error::other)?? == 0 {
            return Ok(());
        }
        let is_complete = line.ends_with(b"\n");
        let request = if is_complete { decode(&line) } else { Err(too_long()) };
        // Held until the answer is written: a client may read slowly.
        let (response, _place) = match request {
            Ok(Request::PodAttached(attachment)) => {
                let pod = attachment.pod_name();
                let response = tokio::select! {
                    biased;
                    () = hung_up(&mut read) => {
                        if doors.gate.starts_whatever_happens() {
                            tracing::warn!(pod, "the CNI plugin gave up, its pod starts before it is isolated");
                        } else {
                            tracing::warn!(
                                pod,
                                "the CNI plugin gave up while its pod waited, the pod does not start"
                            );
                        }
                        return Ok(());
                    }
                    response = cni::attached(&doors.gate, attachment) => response,
                };
                (response, None)
            }
            Ok(Request::PodDetached { id }) => (cni::detached(&doors.gate, id), None),
            Ok(request) => {
                // The semaphore is never closed.
                let place = doors.questions.acquire().await.map_err(io::Error::other)?;
                (answer(request, doors).await, Some(place))
            }
            Err(error) => (Response::Error(error), None),
        };
        let mut text = serde_json::to_vec(&ResponseLine { version: VERSION, response })?;
        text.push(b'\n');
        timeout(RESPONSE_TIMEOUT, write.write_all(&text)).await.map_err(io::Error::other)??;
        if !is_complete {
            return Ok(());
        }
    }
}

/// Returns once the client is gone, or sends nothing more. A plugin that gives up is gone, and its pod must not be programmed later: another
/// pod may have its address then.
async fn hung_up(read: &mut (impl AsyncBufRead + Unpin)) {
    if read.fill_buf().await.is_ok_and(|more| !more.is_empty()) {
        std::future::pending::<()>().await;
    }
}

/// What connections need, without a worker.
#[cfg(any(test, fuzzing))]
fn idle_doors() -> Doors {
    let metrics = Arc::new(crate::metrics::Metrics::new("", &palisade_policy::Name::from("n1")));
    let gate = PodGate::new(&Config::default(), &Arc::default(), &metrics);
    Doors::with(gate, Arc::new(FlowStore::new(1 << 20, None, metrics)))
}

/// Serves one connection, for [`crate::fuzzing`]. Every request is answered at once.
#[cfg(fuzzing)]
pub(crate) async fn fuzz(stream: UnixStream) {
    let doors = idle_doors();
    let worker = async {
        loop {
            let taken = doors.gate.inbox.take(Duration::ZERO);
            for pending in taken.requests {
                // The client may have disconnected.
                _ = pending.respond.send(Response::Done);
            }
            for event in taken.runtime {
                if let RuntimeEvent::Started(start) = event {
                    start.answer(StartOutcome::Programmed);
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = serve_connection(stream, &doors) => {}
        () = worker => {}
    }
}

fn too_long() -> String {
    format!("a request is one line of at most {MAX_REQUEST} bytes")
}

fn decode(line: &[u8]) -> Result<Request, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    // The version is checked first: a request of a later version may not parse.
    let invalid = |error: serde_json::Error| format!("invalid request: {error}");
    let Versioned { version } = serde_json::from_slice(line).map_err(invalid)?;
    if version != VERSION {
        return Err(format!("unsupported protocol version {version}: this agent supports version {VERSION}"));
    }
    serde_json::from_slice(line).map(|line: RequestLine| line.request).map_err(invalid)
}

async fn answer(request: Request, Doors { gate, flows, .. }: &Doors) -> Response {
    // Without the worker: it may be busy for long, and requests for flows may wait.
    if let Request::Flows(request) = request {
        return flows.page(&request).await.map_or_else(Response::Error, Response::Flows);
    }
    match timeout(RESPONSE_TIMEOUT, gate.inbox.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Response::Error("the agent is stopping".to_owned()),
        Err(_) => {
            Response::Error(format!("the agent is busy: no response within {} s", RESPONSE_TIMEOUT.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn connect(path: &Path) -> UnixStream {
        UnixStream::connect(path).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_and_make_room_for_others() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = SocketListener::open(&path).unwrap();
        tokio::spawn(async move { serve(&listener, idle_doors()).await });
        let begin = Instant::now();
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(connect(&path).await);
        }
        let mut stream = connect(&path).await;
        stream.write_all(b"not a request\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        assert!(line.contains("invalid request"), "{line}");
        assert!(begin.elapsed() >= IDLE_TIMEOUT, "{:?}", begin.elapsed());
        for mut stream in idle {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        }
        assert!(begin.elapsed() < IDLE_TIMEOUT * 2, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_worker_for_a_limited_time() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = SocketListener::open(&path).unwrap();
        // Nothing reads the inbox, as during a transaction that never ends.
        tokio::spawn(async move { serve(&listener, idle_doors()).await });
        let mut stream = connect(&path).await;
        stream.write_all(b"{\"version\":1,\"ask\":\"status\"}\n").await.unwrap();
        let begin = Instant::now();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        assert!(line.contains("the agent is busy"), "{line}");
        assert!(begin.elapsed() >= RESPONSE_TIMEOUT, "{:?}", begin.elapsed());
    }
}
