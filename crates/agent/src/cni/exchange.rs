//! One request to the agent, in a bounded time.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::socket::{Request, RequestLine, Response, ResponseLine, VERSION};

/// How long a response may take beyond what the agent is given.
const GRACE: Duration = Duration::from_millis(500);
/// The pause before another attempt to connect: agents that are upgraded are away for a moment.
const RETRY: Duration = Duration::from_millis(25);

/// Why the last attempt to connect failed; nothing once one has succeeded.
type Refusal = Arc<Mutex<Option<String>>>;

/// Sends a request, and returns the response. An agent that isn't there is waited for.
pub(super) fn ask(socket: &Path, request: Request, timeout: Duration) -> Result<Response, String> {
    let (sender, receiver) = mpsc::channel();
    let socket: PathBuf = socket.to_owned();
    let refusal = Refusal::default();
    let seen = Arc::clone(&refusal);
    // Connecting blocks for as long as the agent doesn't accept, so it is done apart. The thread ends with the process.
    thread::spawn(move || sender.send(exchange(&socket, request, timeout, &seen)));
    receiver.recv_timeout(timeout + GRACE).unwrap_or_else(|_| {
        let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(refused.unwrap_or_else(|| {
            format!("the agent is busy: no response within {} ms", (timeout + GRACE).as_millis())
        }))
    })
}

fn exchange(
    socket: &Path,
    request: Request,
    timeout: Duration,
    refusal: &Refusal,
) -> Result<Response, String> {
    let stream = connect(socket, timeout, refusal)?;
    let mut line =
        serde_json::to_vec(&RequestLine { version: VERSION, request }).map_err(|e| e.to_string())?;
    line.push(b'\n');
    let lost = |error: io::Error| format!("the agent closed the connection: {error}");
    (&stream).write_all(&line).map_err(lost)?;
    let mut text = String::new();
    if BufReader::new(stream).read_line(&mut text).map_err(lost)? == 0 {
        return Err("the agent closed the connection".to_owned());
    }
    let line: ResponseLine =
        serde_json::from_str(&text).map_err(|error| format!("the agent is of another version: {error}"))?;
    match line.response {
        Response::Error(error) => Err(error),
        response => Ok(response),
    }
}

fn connect(socket: &Path, timeout: Duration, refusal: &Refusal) -> Result<UnixStream, String> {
    let begin = Instant::now();
    loop {
        let attempt = UnixStream::connect(socket)
            .map_err(|error| format!("no agent listens at {}: {error}", socket.display()));
        *refusal.lock().unwrap_or_else(PoisonError::into_inner) = attempt.as_ref().err().cloned();
        match attempt {
            Err(_) if begin.elapsed() < timeout => thread::sleep(RETRY),
            ended => return ended,
        }
    }
}
