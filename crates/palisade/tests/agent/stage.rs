//! The environment of the tests: a lab with a node and pods that doesn't enforce policies, a directory of manifests, and the agent
//! as a process in the node's network namespace.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::{Ipv4Addr, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use palisade_netns::rtnetlink::Netlink;
use palisade_nft::Kernel;
use tempfile::TempDir;

/// The timeout of all waits, long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Three pods on one node, for the lab and for the agent.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 5432}]}]}
status: {phase: Running, podIP: 10.244.7.1, podIPs: [{ip: 10.244.7.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.244.7.2, podIPs: [{ip: 10.244.7.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, labels: {app: other}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.244.7.3, podIPs: [{ip: 10.244.7.3}]}
";

pub(crate) fn palisade(runtime: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.env("XDG_RUNTIME_DIR", runtime).env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    for name in ["PALISADE_SOURCE", "PALISADE_CONFIG", "PALISADE_LOG_LEVEL", "NODE_NAME", "KUBECONFIG"] {
        command.env_remove(name);
    }
    command
}

/// Returns exit code, standard output and standard error.
pub(crate) fn text(output: &Output) -> (i32, String, String) {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Runs a command that must end with this exit code. Returns its output.
#[track_caller]
pub(crate) fn run(command: &mut Command, code: i32) -> String {
    let (got, out, err) = text(&command.output().unwrap());
    assert_eq!(got, code, "{command:?}\n{out}{err}");
    assert!(!err.contains("panicked"), "{err}");
    out + &err
}

/// Returns a policy that allows one app to connect to the database.
pub(crate) fn policy(app: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: db-from, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: db}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]
    ports: [{{port: 5432}}]
"
    )
}

pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    lab: Running,
}

impl Stage {
    /// Starts the lab, and creates the manifests without a policy.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with further objects.
    pub(crate) fn with(objects: &str) -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["lab", "manifests"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("pods.yaml"), format!("{PODS}{objects}")).unwrap();
        }
        let mut command = palisade(dir.path());
        command.args(["lab", "up", "--family", "4"]).arg(dir.path().join("lab"));
        let lab = Running::of(&mut command);
        lab.until("waiting for edits");
        Self { dir, lab }
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// Replaces a manifest as editors and kubelets do: by renaming another file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let fresh = self.dir.path().join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.manifests().join(name)).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/agent.sock")
    }

    /// Returns a command in the node's network namespace.
    pub(crate) fn on_node(&self, words: &[&str]) -> Command {
        let mut command = palisade(self.dir.path());
        command.args(["lab", "exec", "node/n1", "--"]).args(words);
        command
    }

    /// Returns the command `palisade agent` on the node.
    pub(crate) fn agent_command(&self, words: &[&str]) -> Command {
        let mut command = self.on_node(&[env!("CARGO_BIN_EXE_palisade"), "agent", "--node-name", "n1"]);
        command.arg(format!("--source=dir:{}", self.manifests().display()));
        command.arg("--socket").arg(self.socket()).args(["--listen", "127.0.0.1:9643"]).args(words);
        command
    }

    /// Starts the agent.
    pub(crate) fn agent(&self, words: &[&str]) -> Running {
        Running::of(&mut self.agent_command(words))
    }

    /// Returns the command `palisade node`.
    pub(crate) fn node(&self, words: &[&str]) -> Command {
        let mut command = palisade(self.dir.path());
        command.arg("node").args(words).arg("--socket").arg(self.socket());
        command
    }

    /// Whether a connection from one pod to another succeeds now.
    pub(crate) fn answers(&self, from: &str, to: &str) -> bool {
        let mut command = palisade(self.dir.path());
        // The lab expects that all is allowed, and would try again twice before it reports anything else.
        let probe = ["lab", "probe", "-n", "shop", "--timeout", "2s", from, to];
        let output = command.args(probe).output().unwrap();
        let (code, out, err) = text(&output);
        assert!(code == 0 || code == 1, "{out}{err}");
        code == 0
    }

    /// Waits until a connection succeeds, or fails if `answers` is false.
    #[track_caller]
    pub(crate) fn until_answers(&self, from: &str, to: &str, answers: bool) {
        let begin = Instant::now();
        while self.answers(from, to) != answers {
            assert!(begin.elapsed() < PATIENCE, "{from} to {to}: not {answers}");
        }
    }

    /// Waits until the output of `palisade node` contains `part`.
    #[track_caller]
    pub(crate) fn until_node_says(&self, words: &[&str], part: &str) -> String {
        let begin = Instant::now();
        loop {
            let (_, out, err) = text(&self.node(words).output().unwrap());
            if out.contains(part) {
                return out;
            }
            assert!(begin.elapsed() < PATIENCE, "no {part:?} in {out}{err}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts a process in the network of a pod or node.
    pub(crate) fn in_pod(&self, pod: &str) -> InPod {
        let mut command = palisade(self.dir.path());
        command.args(["lab", "exec", pod, "--", "sh", "-c", "echo pid $$; exec sleep 600"]);
        let running = Running::of(&mut command);
        let lines = running.until("pid ");
        let process = lines.trim().rsplit(' ').next().unwrap().to_owned();
        InPod { _running: running, process }
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.lab.signal(Signal::SIGTERM);
        _ = self.lab.child.wait();
    }
}

/// A process in the network of a pod or node.
pub(crate) struct InPod {
    _running: Running,
    process: String,
}

impl InPod {
    /// The path of its network namespace.
    pub(crate) fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.process)
    }

    /// Does this in it, in a thread of its own.
    pub(crate) fn run<T: Send>(&self, this: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(self.namespace()).unwrap();
        let inside = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            this()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap()
    }

    /// Opens the kernel's interfaces in it.
    pub(crate) fn kernel(&self) -> Kernel {
        self.run(|| Kernel::open().unwrap())
    }

    /// Opens at least this many connections from it to itself, in vain.
    pub(crate) fn open_connections(&self, count: usize) {
        self.run(|| {
            let ports: Vec<u16> = (1..=u16::MAX).collect();
            for _ in 0..count.div_ceil(ports.len()) {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                for port in &ports {
                    socket.send_to(b"x", ("127.0.0.1", *port)).unwrap();
                }
            }
        });
    }

    /// Removes the neighbors that the lab has set on the node whose network this is: it has to find its pods itself.
    pub(crate) fn forget_neighbors(&self) {
        self.run(|| {
            let mut netlink = Netlink::open().unwrap();
            for line in fs::read_to_string("/proc/thread-self/net/route").unwrap().lines() {
                // The interface `pod2` has index 102, and the route to its pod the address in memory's order.
                let mut words = line.split_whitespace();
                let (name, address) = (words.next().unwrap(), words.next().unwrap());
                let Some(pod) = name.strip_prefix("pod").and_then(|n| n.parse::<u32>().ok()) else {
                    continue;
                };
                let address = u32::from_str_radix(address, 16).unwrap().to_ne_bytes();
                netlink.remove_neighbor(100 + pod, Ipv4Addr::from(address).into());
            }
            netlink.commit().unwrap();
        });
    }
}

/// A running program and its output lines.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Running {
    /// Starts the program.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take().unwrap(), sender.clone());
        forward(child.stderr.take().unwrap(), sender);
        Self { child, lines: Mutex::new(lines) }
    }

    /// Waits for a line with `part`. Returns all lines up to it.
    #[track_caller]
    pub(crate) fn until(&self, part: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.lines.lock().unwrap().recv_timeout(PATIENCE) {
                Ok(line) => seen += &format!("{line}\n"),
                Err(e) => panic!("no line with {part:?} ({e}) in:\n{seen}"),
            }
            if seen.lines().next_back().is_some_and(|l| l.contains(part)) {
                return seen;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // The program may have ended already.
        _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal);
    }

    /// Stops the program, which must end with exit code 0.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// Waits until the program ends by itself. Returns its exit code and all lines.
    pub(crate) fn ended(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, self.lines.lock().unwrap().iter().map(|l| l + "\n").collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn forward(out: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).for_each(|l| drop(sender.send(l)));
    });
}
