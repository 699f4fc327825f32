//! Pods that a container runtime announces by NRI, with real packets. The runtime is played here; it writes the protocol's bytes itself.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::stage::{PATIENCE, Running, Stage, policy};

/// Connection numbers of the services.
const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;
/// Message types of ttrpc.
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A field of Protocol Buffers with bytes.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

/// A number that fits two bytes.
fn number(field: u8, value: u16) -> Vec<u8> {
    vec![field << 3, value as u8 & 0x7f | 0x80, (value >> 7) as u8 & 0x7f]
}

/// Returns the field with this number, if it has bytes.
fn bytes_of(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message;
    while let [tag, tail @ ..] = rest {
        let (mut value, mut at) = (0_usize, 0);
        while let Some(byte) = tail.get(at) {
            value |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let end = if tag & 7 == 2 { at + value } else { at };
        if tag >> 3 == wanted && tag & 7 == 2 {
            return tail.get(at..end);
        }
        rest = tail.get(end..)?;
    }
    None
}

/// A runtime that offers its socket.
struct Offered {
    listener: UnixListener,
    path: PathBuf,
}

impl Offered {
    fn new(stage: &Stage) -> Self {
        let path = stage.dir.path().join("nri.sock");
        _ = std::fs::remove_file(&path);
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    fn option(&self) -> String {
        format!("--nri-socket={}", self.path.display())
    }

    /// Accepts the agent as a plugin, and lists the sandboxes.
    fn accept(&self, sandboxes: &[Vec<u8>]) -> Connected {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut runtime = Connected { stream, calls: 0 };
        let (connection, id, kind, registration) = runtime.receive();
        assert_eq!((connection, kind), (RUNTIME, REQUEST));
        let payload = bytes_of(&registration, 3).unwrap();
        assert_eq!(bytes_of(payload, 1), Some(&b"palisade"[..]));
        runtime.send(RUNTIME, id, RESPONSE, &field(1, []));
        let configuration = [field(2, "containerd"), field(3, "2.2.0"), number(5, 2000)].concat();
        runtime.call("Configure", &configuration).unwrap();
        let list: Vec<u8> = sandboxes.iter().flat_map(|pod| field(1, pod)).collect();
        runtime.call("Synchronize", &list).unwrap();
        runtime
    }
}

/// A runtime that has the agent as its plugin.
struct Connected {
    stream: UnixStream,
    calls: u32,
}

impl Connected {
    /// Calls the plugin. An error has the message.
    fn call(&mut self, method: &str, payload: &[u8]) -> Result<(), String> {
        let id = 2 * self.calls + 1;
        self.calls += 1;
        let request = [field(1, "nri.pkg.api.v1alpha1.Plugin"), field(2, method), field(3, payload)].concat();
        self.send(PLUGIN, id, REQUEST, &request);
        let (connection, answered, kind, response) = self.receive();
        assert_eq!((connection, answered, kind), (PLUGIN, id, RESPONSE));
        let status = bytes_of(&response, 1).unwrap_or_default();
        match bytes_of(status, 2) {
            Some(message) if !message.is_empty() => Err(String::from_utf8_lossy(message).into_owned()),
            _ => Ok(()),
        }
    }

    /// Announces a pod's start. Returns how long it had to wait.
    fn start(&mut self, sandbox: &[u8]) -> Duration {
        let begin = Instant::now();
        self.call("RunPodSandbox", &field(1, sandbox)).unwrap();
        begin.elapsed()
    }

    fn send(&mut self, connection: u32, id: u32, kind: u8, message: &[u8]) {
        let mut frame = connection.to_be_bytes().to_vec();
        frame.extend((message.len() as u32 + 10).to_be_bytes());
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(id.to_be_bytes());
        frame.extend([kind, 0]);
        frame.extend(message);
        self.stream.write_all(&frame).unwrap();
    }

    /// Returns connection number, stream id, type and content of the next message, which may come in several frames.
    fn receive(&mut self) -> (u32, u32, u8, Vec<u8>) {
        let mut message = Vec::new();
        loop {
            let mut header = [0; 8];
            self.stream.read_exact(&mut header).unwrap();
            let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
            let (connection, length) = (word(&header[..4]), word(&header[4..]) as usize);
            assert!(length <= 4096, "a runtime reads no longer frame");
            let start = message.len();
            message.resize(start + length, 0);
            self.stream.read_exact(&mut message[start..]).unwrap();
            if message.len() >= 10 && message.len() == 10 + word(&message[..4]) as usize {
                return (connection, word(&message[4..8]), message[8], message.split_off(10));
            }
        }
    }
}

/// A sandbox of a pod in the namespace `shop`.
fn sandbox(name: &str, address: &str) -> Vec<u8> {
    let label = [field(1, "app"), field(2, name)].concat();
    let namespace = [field(1, "network"), field(2, "/run/netns/x")].concat();
    [
        field(1, format!("sandbox-{name}")),
        field(2, name),
        field(3, "0e5f0d7c-5b43-4d3c-9f2c-0123456789ab"),
        field(4, "shop"),
        field(5, label),
        field(8, field(5, namespace)),
        field(10, address),
    ]
    .concat()
}

const DB: &str = "10.244.7.1";

/// The lab's pods except for the database, of which the API server doesn't know yet.
fn without_database(stage: &Stage) {
    let pods = std::fs::read_to_string(stage.manifests().join("pods.yaml")).unwrap();
    let documents = pods.split("---\n").filter(|document| !document.contains("name: db,"));
    stage.write("pods.yaml", &documents.collect::<Vec<_>>().join("---\n"));
}

fn agent(stage: &Stage, runtime: &Offered, words: &[&str]) -> Running {
    stage.agent(&[&["--nri=on", &runtime.option(), "--log-level=debug"], words].concat())
}

#[test]
fn an_announced_pod_is_isolated_when_the_runtime_gets_its_answer() {
    let stage = Stage::new();
    let all = std::fs::read_to_string(stage.manifests().join("pods.yaml")).unwrap();
    without_database(&stage);
    stage.write("policy.yaml", &policy("web"));
    let runtime = Offered::new(&stage);
    let agent = agent(&stage, &runtime, &[]);
    let mut connected = runtime.accept(&[]);
    agent.until("agent is ready");
    assert!(stage.answers("other", "db:5432"), "nobody knows the pod");

    connected.start(&sandbox("db", DB));
    assert!(!stage.answers("other", "db:5432"));
    assert!(stage.answers("web", "db:5432"));
    assert!(agent.until("programmed pod before its start").contains("pod=\"shop/db\""));

    // What the API server says later: the same pod, and its deletion while it runs.
    stage.write("pods.yaml", &all);
    stage.until_node_says(&["status"], "3 pods");
    without_database(&stage);
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "db:5432"));

    // What no pod can be, and a pod that has no address, leave everything as it is.
    let forged = [field(1, "x"), field(2, "../x"), field(4, "shop")].concat();
    let error = connected.call("RunPodSandbox", &field(1, forged)).unwrap_err();
    assert!(error.contains("name of the sandbox"), "{error}");
    agent.until("describes a pod that no pod can be");
    let network = field(8, field(5, [field(1, "network"), field(2, "/run/netns/y")].concat()));
    connected.start(&[field(1, "y"), field(2, "y"), field(4, "shop"), network].concat());
    agent.until("names no address of the pod");

    connected.call("StopPodSandbox", &field(1, sandbox("db", DB))).unwrap();
    stage.until_answers("other", "db:5432", true);
    agent.stop();
}

#[test]
fn pods_of_a_lost_runtime_stay_isolated_and_its_list_is_taken_when_it_is_back() {
    let stage = Stage::new();
    without_database(&stage);
    stage.write("policy.yaml", &policy("web"));
    let runtime = Offered::new(&stage);
    let agent = agent(&stage, &runtime, &[]);
    let mut connected = runtime.accept(&[]);
    agent.until("agent is ready");
    connected.start(&sandbox("db", DB));
    drop(connected);
    agent.until("lost the container runtime");
    assert!(!stage.answers("other", "db:5432"));

    let connected = runtime.accept(&[sandbox("db", DB)]);
    agent.until("connected to the container runtime");
    assert!(!stage.answers("other", "db:5432"));
    drop(connected);
    drop(runtime.accept(&[]));
    stage.until_answers("other", "db:5432", true);

    // An agent that starts while the pod runs.
    agent.stop();
    let again = self::agent(&stage, &runtime, &[]);
    let _connected = runtime.accept(&[sandbox("db", DB)]);
    again.until("agent is ready");
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "db:5432"));
}

#[test]
fn without_policies_a_pod_starts_closed_or_as_it_is_and_the_runtime_waits_for_a_bounded_time() {
    for how in ["closed", "open"] {
        let stage = Stage::new();
        stage.write("policy.yaml", &policy("web"));
        stage.write("broken.yaml", "kind: [");
        let runtime = Offered::new(&stage);
        let agent = agent(&stage, &runtime, &[&format!("--pod-start={how}")]);
        let mut connected = runtime.accept(&[]);
        agent.until("connected to the container runtime");
        let waited = connected.start(&sandbox("db", DB));
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        let phrase = if how == "open" { "pod starts before its policies" } else { "pod starts closed" };
        assert!(agent.until(phrase).contains("shop/db"));
        assert_eq!(stage.answers("web", "db:5432"), how == "open");
        assert!(stage.answers("web", "other:80"), "another pod");

        stage.write("broken.yaml", "");
        agent.until("agent is ready");
        stage.until_answers("web", "db:5432", true);
        assert!(!stage.answers("other", "db:5432"));
        agent.stop();
    }
}
