//! The agent, as a process on the node.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command},
    sync::Arc,
    thread,
};

use clap::{Args as _, FromArgMatches as _};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use palisade_agent::{config::Config, daemon};
use tempfile::TempDir;

use crate::until;

/// The arguments of the agent, as lines. Set: this process is the agent.
pub(crate) const AGENT: &str = "PALISADE_TEST_AGENT";

const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.7.2, podIPs: [{ip: 10.244.7.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.7.3, podIPs: [{ip: 10.244.7.3}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}
";

/// The file with what it logs, which is shown if a test fails.
const LOG: &str = "agent.log";

/// Where `/readyz` is.
const HEALTH: &str = "127.0.0.1:9644";

pub(crate) struct Agent {
    process: Child,
    /// With its manifests and its log.
    dir: TempDir,
}

impl Agent {
    /// Starts an agent that exports to an endpoint, and waits until it enforces the policy.
    pub(crate) fn start(endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        fs::write(dir.path().join("manifests/all.yaml"), MANIFESTS).unwrap();
        let words = [
            "--node-name=n1".to_owned(),
            format!("--source=dir:{}", dir.path().join("manifests").display()),
            format!("--socket={}", dir.path().join("run/agent.sock").display()),
            format!("--otlp-endpoint={endpoint}"),
            "--listen=off".to_owned(),
            format!("--health-listen={HEALTH}"),
        ];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(AGENT, words.join("\n")).env("OTEL_METRIC_EXPORT_INTERVAL", "300");
        let log = fs::File::create(dir.path().join(LOG)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.envs(variables.iter().copied()).spawn().unwrap();
        let agent = Self { process, dir };
        until("the agent is ready", Self::is_ready);
        agent
    }

    fn is_ready() -> bool {
        let Ok(mut stream) = TcpStream::connect(HEALTH) else { return false };
        let mut text = String::new();
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut text).is_ok()
            && text.contains(" 200 ")
    }

    /// The resident memory of the process, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Stops it: it ends by itself, with exit code 0.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default());
        }
    }
}

/// Runs the agent in this process.
pub(crate) fn run(words: &str) {
    let command = Config::augment_args(clap::Command::new("agent"));
    let config =
        Config::from_arg_matches(&command.get_matches_from(["agent"].into_iter().chain(words.lines())))
            .unwrap();
    fs::create_dir_all(config.socket.parent().unwrap()).unwrap();
    palisade_agent::log::start(config.log_format, config.log_level);
    let explain: daemon::Explain = Arc::new(|_, _, _, _| Err("not in this test".to_owned()));
    daemon::run(&config, explain, Arc::new(|_, _| Vec::new())).unwrap();
}
