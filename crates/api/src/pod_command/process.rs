//! One command in one container.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    sync::mpsc,
    time::timeout,
};

use super::{CommandStatus, ExecError, ExecPod, PodCommand, PodEvent};
use crate::{
    ApiError,
    error::{ApiErrorKind, first_line},
};

/// The longest line: a page of records has about 4 MiB, and one record more.
pub(super) const MAX_LINE: usize = 16 << 20;
/// How much of standard error is kept. The rest is read and dropped.
const MAX_STDERR: usize = 4 << 10;
/// How much is read from the connection before it is processed.
const BUFFER: usize = 64 << 10;
/// How long the lines may take that a lost connection has left.
const DRAIN: Duration = Duration::from_millis(200);
/// How long the exit code may take after the end of standard output.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the command and sends its lines. `started` is called when it has started, and `has_printed` is set once a line was sent.
///
/// Its standard input is open until this ends. So a command that ends at the end of its standard input does not outlive the
/// connection.
///
/// # Errors
/// If there is no exit code.
pub(super) async fn run(
    client: &Client,
    pod: &Arc<ExecPod>,
    command: &PodCommand,
    words: &[String],
    events: &mpsc::Sender<PodEvent>,
    started: impl FnOnce() + Send,
    has_printed: &mut bool,
) -> Result<CommandStatus, ExecError> {
    if let Some(why) = &pod.not_running {
        return Err(ExecError::NotRunning(why.clone()));
    }
    let mut process = start(client, pod, command, words).await?;
    started();
    let _input = process.stdin();
    let Some(status) = process.take_status() else { return Err(ExecError::ConnectionLost) };
    let (Some(stdout), Some(stderr)) = (process.stdout(), process.stderr()) else {
        return Err(ExecError::ConnectionLost);
    };
    let stderr = tokio::spawn(beginning(stderr));
    let abort = stderr.abort_handle();
    let result = read(pod, LineReader::new(stdout, command.idle_timeout), status, events, has_printed).await;
    if result.is_err() {
        abort.abort();
    }
    let code = result.and_then(|status| exit_code(&status))?;
    drop(process);
    Ok(CommandStatus { code, stderr: stderr.await.unwrap_or_default() })
}

/// Sends the lines, and returns the status that the kubelet sends at the end.
///
/// The end of the connection is the end of `status` alone: standard output ends with the command, and not with the connection.
async fn read(
    pod: &Arc<ExecPod>,
    mut lines: LineReader<impl AsyncRead + Unpin>,
    status: impl Future<Output = Option<Status>>,
    events: &mpsc::Sender<PodEvent>,
    has_printed: &mut bool,
) -> Result<Status, ExecError> {
    let mut status = std::pin::pin!(status);
    let mut ended = None;
    loop {
        let line = tokio::select! {
            biased;
            line = lines.next() => line,
            end = &mut status, if ended.is_none() => {
                if end.is_none() {
                    lines.idle_timeout = DRAIN;
                }
                ended = Some(end);
                continue;
            }
        };
        match line {
            Ok(Some(line)) => {
                if events.send(PodEvent::Line(Arc::clone(pod), line)).await.is_err() {
                    return Err(ExecError::ConnectionLost);
                }
                *has_printed = true;
            }
            Ok(None) => break,
            Err(ExecError::Idle(_)) if ended.is_some() => break,
            Err(error) => return Err(error),
        }
    }
    let status = match ended {
        Some(status) => status,
        None => timeout(STATUS_TIMEOUT, status).await.unwrap_or(None),
    };
    status.ok_or(ExecError::ConnectionLost)
}

async fn start(
    client: &Client,
    pod: &ExecPod,
    command: &PodCommand,
    words: &[String],
) -> Result<AttachedProcess, ExecError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &command.namespace);
    let parameters = AttachParams {
        container: Some(command.container.clone()),
        stdin: true,
        stdout: true,
        stderr: true,
        max_stdout_buf_size: Some(BUFFER),
        ..AttachParams::default()
    };
    let exec = timeout(command.timeout, pods.exec(&pod.name, words.to_vec(), &parameters));
    let exec = exec.await.map_err(|_| ExecError::Api(ApiErrorKind::TimedOut(command.timeout).into()))?;
    exec.map_err(|error| ExecError::Api(ApiError::from(error)))
}

/// Reads lines of bounded length.
struct LineReader<R> {
    output: BufReader<R>,
    /// The beginning of a line whose end was not read yet.
    line: Vec<u8>,
    idle_timeout: Duration,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn new(output: R, idle_timeout: Duration) -> Self {
        Self { output: BufReader::with_capacity(BUFFER, output), line: Vec::new(), idle_timeout }
    }

    /// Returns the next line without its line break, or `None` at the end. May be cancelled: what was read is kept.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ExecError> {
        let room = (MAX_LINE + 1).saturating_sub(self.line.len()) as u64;
        let mut limited = (&mut self.output).take(room);
        let read = timeout(self.idle_timeout, limited.read_until(b'\n', &mut self.line)).await;
        let read = read.map_err(|_| ExecError::Idle(self.idle_timeout))?;
        read.map_err(|_| ExecError::ConnectionLost)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_LINE {
            return Err(ExecError::LongLine(MAX_LINE));
        }
        Ok(Some(line))
    }
}

/// Reads to the end and returns the beginning.
async fn beginning(mut output: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        let room = MAX_STDERR.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Returns the exit code in the status that the kubelet sends.
fn exit_code(status: &Status) -> Result<i32, ExecError> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let cause = causes.into_iter().flatten().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = cause.and_then(|cause| cause.message.as_ref()?.parse().ok());
    code.ok_or_else(|| ExecError::Kubelet(first_line(status.message.as_deref().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(text: &[u8]) -> Result<Vec<String>, ExecError> {
        let mut lines = LineReader::new(text, Duration::from_secs(1));
        let mut out = Vec::new();
        while let Some(line) = lines.next().await? {
            out.push(String::from_utf8(line).unwrap());
        }
        Ok(out)
    }

    #[tokio::test]
    async fn output_is_read_by_lines_of_bounded_length() {
        assert_eq!(read_all(b"a\n\nb").await.unwrap(), ["a", "", "b"]);
        let mut long = vec![b'x'; MAX_LINE + 1];
        assert!(matches!(read_all(&long).await, Err(ExecError::LongLine(MAX_LINE))));
        long[MAX_LINE] = b'\n';
        assert_eq!(read_all(&long).await.unwrap()[0].len(), MAX_LINE);
        assert_eq!(beginning(&[b'x'; 9 << 10][..]).await.len(), MAX_STDERR);
    }

    #[tokio::test(start_paused = true)]
    async fn output_that_never_comes_is_an_error() {
        let (_open, output) = tokio::io::duplex(8);
        let result = LineReader::new(output, Duration::from_secs(30)).next().await;
        assert!(matches!(result, Err(ExecError::Idle(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_the_end_although_standard_output_stays_open() {
        use tokio::io::AsyncWriteExt as _;

        let pod = Arc::new(ExecPod {
            uid: "u".to_owned(),
            name: "agent".to_owned(),
            node: "n1".to_owned(),
            not_running: None,
        });
        let (mut open, output) = tokio::io::duplex(64);
        open.write_all(b"one\ntw").await.unwrap();
        let (end, status) = tokio::sync::oneshot::channel();
        let (events, mut received) = mpsc::channel(8);
        let lines = LineReader::new(output, Duration::from_secs(3600));
        let reading = tokio::spawn(async move {
            let mut has_printed = false;
            let result = read(&pod, lines, async { status.await.ok() }, &events, &mut has_printed).await;
            (result, has_printed)
        });
        assert!(matches!(received.recv().await, Some(PodEvent::Line(_, line)) if line == b"one"));
        // The rest of a line is not lost when the connection is.
        drop(end);
        open.write_all(b"o\n").await.unwrap();
        assert!(matches!(received.recv().await, Some(PodEvent::Line(_, line)) if line == b"two"));
        assert!(matches!(reading.await.unwrap(), (Err(ExecError::ConnectionLost), true)));
    }

    #[test]
    fn the_exit_code_is_read_from_the_status() {
        let status = |json| exit_code(&serde_json::from_value(json).unwrap());
        assert_eq!(status(serde_json::json!({"status": "Success"})).unwrap(), 0);
        let failed = serde_json::json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "2"}]}});
        assert_eq!(status(failed).unwrap(), 2);
        let refused = serde_json::json!({"status": "Failure", "message": "no such program\nat all"});
        assert_eq!(
            status(refused).unwrap_err().to_string(),
            "the kubelet could not run the command: no such program"
        );
    }
}
