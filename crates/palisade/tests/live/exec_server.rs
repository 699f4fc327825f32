//! An API server on the loopback device that lists agents and runs commands in their pods: what a command prints is up to the test.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

/// A part of what a command does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A line of standard output.
    Line(Value),
    /// Text on standard output.
    Text(String),
    /// Text on standard error.
    Error(String),
    /// The exit code.
    Exit(i32),
    /// The connection is closed without an exit code.
    Close,
    /// Nothing happens until the client closes the connection.
    Stay,
    /// The request is refused with this status code and message. Only as the first act.
    Refuse(u16, &'static str),
}

/// Returns what the command does in a node's pod at the n-th attempt, from 0.
type Script = dyn Fn(&str, usize) -> Vec<Act> + Send + Sync;

/// A running server.
pub(crate) struct ExecServer {
    shared: Arc<Shared>,
    address: String,
    dir: TempDir,
}

struct Shared {
    /// The agents, which a test may replace.
    pods: Mutex<Vec<Value>>,
    desired: Option<usize>,
    script: Box<Script>,
    /// The words of each command, by node.
    commands: Mutex<BTreeMap<String, Vec<Vec<String>>>>,
}

/// The pod of an agent.
pub(crate) fn agent(node: &str) -> Value {
    json!({
        "metadata": {"name": format!("palisade-agent-{node}"), "uid": format!("uid-{node}")},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "containerStatuses": [{"name": "agent", "state": {"running": {}}}]},
    })
}

impl ExecServer {
    /// Serves the agents of these nodes. A DaemonSet wants `desired` of them; `None` refuses the list of DaemonSets.
    pub(crate) fn of(
        nodes: &[&str],
        desired: Option<usize>,
        script: impl Fn(&str, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            pods: Mutex::new(nodes.iter().map(|node| agent(node)).collect()),
            desired,
            script: Box::new(script),
            commands: Mutex::default(),
        });
        let server = Self { shared: Arc::clone(&shared), address, dir: TempDir::new().unwrap() };
        // The threads end with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        });
        server
    }

    /// Replaces the agents.
    pub(crate) fn set_pods(&self, pods: Vec<Value>) {
        *self.shared.pods.lock().unwrap() = pods;
    }

    /// The words of the commands that ran on a node.
    pub(crate) fn commands(&self, node: &str) -> Vec<Vec<String>> {
        self.shared.commands.lock().unwrap().get(node).cloned().unwrap_or_default()
    }

    /// Writes a kubeconfig for this server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: c\n  cluster:\n    server: http://{}\n\
             users:\n- name: u\n  user:\n    token: t\n\
             contexts:\n- name: test\n  context: {{cluster: c, user: u}}\n",
            self.address
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let Some(head) = head(&mut stream) else { return };
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            ["api", "v1", "namespaces", "palisade-system", "pods", pod, "exec"] => {
                self.exec(stream, &head, pod, query);
            }
            ["api", "v1", "namespaces", "palisade-system", "pods"] => self.page(&mut stream, query),
            ["apis", "apps", "v1", "namespaces", "palisade-system", "daemonsets"] => match self.desired {
                Some(desired) => {
                    let items = json!([{"status": {"desiredNumberScheduled": desired}}]);
                    reply(&mut stream, 200, &json!({"items": items}));
                }
                None => refuse(&mut stream, 403, "daemonsets.apps is forbidden"),
            },
            // A cluster with one object.
            ["api", "v1", "namespaces"] => {
                reply(&mut stream, 200, &json!({"kind": "List", "items": [{"metadata": {"name": "shop"}}]}));
            }
            ["apis"] => {
                let groups = ["apps", "batch", "networking.k8s.io", "discovery.k8s.io"]
                    .map(|name| json!({"name": name, "versions": [{"version": "v1"}]}));
                reply(&mut stream, 200, &json!({"kind": "APIGroupList", "groups": groups}));
            }
            _ => reply(&mut stream, 200, &json!({"kind": "List", "items": []})),
        }
    }

    /// Replies with one pod to each request, as the real one does with a larger number.
    fn page(&self, stream: &mut TcpStream, query: &str) {
        assert!(query.contains("labelSelector=app.kubernetes.io%2Fname%3Dpalisade"), "{query}");
        let pods = self.pods.lock().unwrap().clone();
        let from: usize = query.split("continue=").nth(1).map_or(0, |token| token.parse().unwrap());
        let mut metadata = json!({});
        if from + 1 < pods.len() {
            metadata["continue"] = (from + 1).to_string().into();
        }
        let items: Vec<&Value> = pods.iter().skip(from).take(1).collect();
        reply(stream, 200, &json!({"metadata": metadata, "items": items}));
    }

    fn exec(&self, mut stream: TcpStream, head: &str, pod: &str, query: &str) {
        assert!(query.contains("container=agent"), "{query}");
        let node = pod.trim_start_matches("palisade-agent-").to_owned();
        let words = query.split('&').filter_map(|pair| pair.strip_prefix("command="));
        let words: Vec<String> = words.map(decoded).collect();
        let attempt = {
            let mut commands = self.commands.lock().unwrap();
            let of_node = commands.entry(node.clone()).or_default();
            of_node.push(words);
            of_node.len() - 1
        };
        let acts = (self.script)(&node, attempt);
        if let Some(Act::Refuse(code, message)) = acts.first() {
            return refuse(&mut stream, *code, message);
        }
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        });
        let accept = derive_accept_key(key.unwrap().as_bytes());
        _ = write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {accept}\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
        );
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        for act in acts {
            let (channel, text) = match act {
                Act::Line(value) => (1, format!("{value}\n")),
                Act::Text(text) => (1, text),
                Act::Error(text) => (2, text),
                Act::Exit(0) => (3, json!({"status": "Success"}).to_string()),
                Act::Exit(code) => {
                    let causes = json!([{"reason": "ExitCode", "message": code.to_string()}]);
                    (3, json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}).to_string())
                }
                Act::Stay => {
                    while socket.read().is_ok() {}
                    return;
                }
                Act::Close | Act::Refuse(..) => return,
            };
            let message = [&[channel], text.as_bytes()].concat();
            if socket.send(Message::binary(message)).is_err() {
                return;
            }
        }
        // The client closes the connection.
        while socket.read().is_ok() {}
    }
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn reply(stream: &mut TcpStream, code: u16, body: &Value) {
    let body = body.to_string();
    _ = write!(
        stream,
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn refuse(stream: &mut TcpStream, code: u16, message: &str) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "X", "code": code});
    reply(stream, code, &status);
}

/// Decodes a value of a query.
fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).unwrap()
}
