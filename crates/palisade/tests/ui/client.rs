//! A server as a user starts it, and requests to it as bytes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A running `palisade ui`, which ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads what a server sent before it closed the connection.
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns a header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Server {
    pub(crate) fn start(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        command
            .arg("ui")
            .args(words)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .env("KUBECONFIG", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("http://").unwrap_or_else(|| panic!("{words:?}: {line}"));
        let (address, token) = url.split_once("/#token=").unwrap();
        Self { child, address: address.parse().unwrap(), token: token.to_owned() }
    }

    /// Sends bytes, and reads until the server closes the connection.
    pub(crate) fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        // The server may have answered before it has read all.
        _ = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        _ = stream.read_to_end(&mut bytes);
        Answer::of(&String::from_utf8(bytes).unwrap())
    }

    /// Sends a request as a page of the server does.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[("Host", &self.address.to_string()), ("Authorization", &self.bearer())])
    }

    /// Sends a question with a body as a page of the server does.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let (host, bearer) = (self.address, self.bearer());
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(&format!("{method} {path} HTTP/1.1\r\n{headers}\r\n"))
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(crate) fn state(&self) -> Value {
        self.get("/api/v1/state").json()
    }

    /// Waits for a state.
    pub(crate) fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut state = self.state();
        while !is(&state) {
            assert!(began.elapsed() < Duration::from_secs(120), "{what}: {state:#}");
            state = self.get(&format!("/api/v1/state?after={}", state["number"])).json();
        }
        state
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
