//! The agent's side of the socket.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::geteuid;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{PATIENCE, Reply, Request, Response, VERSION};
use crate::daemon::Inbox;

/// The longest request: names and addresses.
const LONGEST: u64 = 16 << 10;
/// As many connections at once.
const MANY: usize = 16;
/// Who says nothing for so long is left alone.
const SILENCE: Duration = Duration::from_secs(10);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The file system refuses.
    #[error("cannot {doing} the socket {}", path.display())]
    Io {
        /// What failed.
        doing: &'static str,
        /// Which socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else has the name.
    #[error("{} is there and is no socket: name another with --socket, or remove it", .0.display())]
    NoSocket(PathBuf),
}

/// The socket. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens it, for this user alone. What a killed agent left is removed: the lock says that none runs. Needs a runtime.
    pub(crate) fn open(path: &Path) -> Result<Self, SocketError> {
        let failed = |doing| move |source| SocketError::Io { doing, path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed("remove what is left of"))?;
            }
            Ok(_) => return Err(SocketError::NoSocket(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look for")(e)),
        }
        // Bound under another name and renamed, so that nobody can connect before the mode is set.
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("make")(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("make"))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
        fs::rename(&fresh, path).map_err(failed("name"))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

/// Answers, for ever.
pub(crate) async fn serve(door: &Door, inbox: Arc<Inbox>) {
    let room = Arc::new(Semaphore::new(MANY));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match door.listener.accept().await {
            Ok((stream, _)) => {
                let inbox = Arc::clone(&inbox);
                tokio::spawn(async move {
                    if let Err(error) = talk(stream, &inbox).await {
                        tracing::debug!(%error, "a conversation over the socket ended");
                    }
                    drop(place);
                });
            }
            // Out of files, as a rule: others must close some first.
            Err(error) => {
                tracing::warn!(%error, "nobody can be let in at the socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, inbox: &Inbox) -> io::Result<()> {
    // The mode keeps others out already; this also does where a file system ignores it.
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} may not ask")));
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(LONGEST);
        let reading = limited.read_until(b'\n', &mut line);
        if timeout(SILENCE, reading).await.map_err(io::Error::other)?? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let reply = if whole { answer(&line, inbox).await } else { Reply::Error(too_long()) };
        let mut text = serde_json::to_vec(&Response { version: VERSION, reply })?;
        text.push(b'\n');
        timeout(PATIENCE, write.write_all(&text)).await.map_err(io::Error::other)??;
        if !whole {
            return Ok(());
        }
    }
}

fn too_long() -> String {
    format!("a request is one line of at most {LONGEST} bytes")
}

async fn answer(line: &[u8], inbox: &Inbox) -> Reply {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    // The version first: a later one may have words that don't parse here.
    match serde_json::from_slice::<Versioned>(line) {
        Ok(Versioned { version: VERSION }) => {}
        Ok(Versioned { version }) => {
            return Reply::Error(format!(
                "this agent speaks version {VERSION} and was asked in version {version}"
            ));
        }
        Err(error) => return Reply::Error(format!("not a request: {error}")),
    }
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return Reply::Error(format!("not a request: {error}")),
    };
    match timeout(PATIENCE, inbox.ask(request.ask)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => Reply::Error("the agent is ending".to_owned()),
        Err(_) => Reply::Error(format!("the agent is busy: no answer in {} s", PATIENCE.as_secs())),
    }
}
