//! The agent's inputs other than the API server and the kernel: its socket, its HTTP listener, its configuration file.

use std::{fs, path::PathBuf, process, sync::OnceLock};

use clap::{ArgMatches, Args as _, Command};
use palisade_agent::{
    config::Config,
    fuzzing,
    socket::{RequestLine, Response, ResponseLine, VERSION},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime::Builder,
};

/// Requests over the agent's socket. Every line is answered with a line that can be read, and a valid request is not refused.
pub fn socket(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answers = runtime.block_on(async {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let (mut read, mut write) = ours.into_split();
        let talk = async {
            // The agent stops reading after a line that is too long.
            _ = write.write_all(data).await;
            drop(write);
            let mut answers = Vec::new();
            _ = read.read_to_end(&mut answers).await;
            answers
        };
        tokio::join!(talk, fuzzing::socket(theirs)).0
    });
    let mut lines = data.split_inclusive(|byte| *byte == b'\n');
    for answer in answers.split_inclusive(|byte| *byte == b'\n') {
        let answer: ResponseLine = serde_json::from_slice(answer).expect("an answer is a line of JSON");
        assert_eq!(answer.version, VERSION);
        let line = lines.next().expect("no answer without a line");
        if let Ok(request) = serde_json::from_slice::<RequestLine>(line)
            && request.version == VERSION
            && line.ends_with(b"\n")
        {
            assert_eq!(answer.response, Response::Done, "{request:?}");
            let again = serde_json::to_vec(&request).expect("a request is JSON");
            assert_eq!(
                serde_json::from_slice::<RequestLine>(&again).ok(),
                Some(request),
                "printed and read again"
            );
        }
    }
}

/// A connection to the metrics and health listener, in chunks separated by 0xff. The response is HTTP or nothing, and arrives in bounded
/// time however the request ends.
pub fn http(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let answer = runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (mut read, mut write) = tokio::io::split(ours);
        let talk = async {
            for chunk in data.split(|byte| *byte == 0xff) {
                if write.write_all(chunk).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            // The connection stays open: idle clients are disconnected.
            let mut answer = Vec::new();
            _ = read.read_to_end(&mut answer).await;
            answer
        };
        let began = tokio::time::Instant::now();
        let answer = tokio::join!(talk, fuzzing::http(theirs)).0;
        assert!(began.elapsed().as_secs() < 60, "a connection was kept open");
        answer
    });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
}

/// The agent's configuration file. An accepted file can be printed, and is read back unchanged.
pub fn config(data: &[u8]) {
    let Ok(config) = read(data) else { return };
    let printed = config.to_yaml().expect("all paths are UTF-8");
    let again = read(printed.as_bytes()).unwrap_or_else(|error| panic!("{error}:\n{printed}"));
    assert_eq!(again, config, "{printed}");
}

fn read(text: &[u8]) -> Result<Config, palisade_agent::config::ConfigError> {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    static MATCHES: OnceLock<ArgMatches> = OnceLock::new();
    // Several jobs run concurrently.
    let file =
        FILE.get_or_init(|| std::env::temp_dir().join(format!("palisade-fuzz-config.{}", process::id())));
    let matches = MATCHES.get_or_init(|| {
        let command =
            Config::augment_args(Command::new("agent")).mut_args(|argument| argument.env(None::<&str>));
        command.get_matches_from(["agent"])
    });
    fs::write(file, text).expect("a temporary file");
    Config::read(matches, Some(file))
}
