//! The real `palisade agent`, on a node of the lab.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use palisade_lab::namespace::Namespace;
use palisade_policy::Name;

use crate::{
    eventually,
    process::{Process, last_lines},
};

/// Where the agent serves metrics and health. Every node has its own loopback.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9643);

/// How to start an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// The kubeconfig that it uses.
    pub kubeconfig: PathBuf,
    /// Further arguments.
    pub more: Vec<String>,
    /// The program, instead of the one that was built: for comparisons.
    pub program: Option<PathBuf>,
    /// A suffix for file names that distinguishes two agents of one node.
    pub name: String,
}

/// A running agent. Dropping it is `kill -9`.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    namespace: Namespace,
    socket: PathBuf,
}

impl Agent {
    /// Starts the agent of a node, in the node's namespace.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn start(
        palisade: &Path,
        node: &Name,
        namespace: Namespace,
        folder: &Path,
        options: &AgentOptions,
    ) -> Result<Self> {
        // Each node has its own /run.
        let run = folder.join(format!("run-{node}"));
        std::fs::create_dir_all(&run)?;
        let socket = run.join("agent.sock");
        let mut command = Command::new(options.program.as_deref().unwrap_or(palisade));
        command
            .arg("agent")
            .arg(format!("--node-name={node}"))
            .arg(format!("--kubeconfig={}", options.kubeconfig.display()))
            .arg(format!("--listen={LISTEN}"))
            .arg(format!("--socket={}", socket.display()))
            .args(&options.more)
            .env_remove("KUBECONFIG")
            .env("HOME", folder);
        let name = format!("agent-{node}{}", options.name);
        let process = Process::start(&name, &namespace, command, folder)?;
        Ok(Self { process, namespace, socket })
    }

    /// The process.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The socket that `palisade node` connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its whole log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Returns the status and body of the response at a path.
    ///
    /// # Errors
    /// If there is no response.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.namespace
            .run(|| get(path))?
            .with_context(|| format!("{} does not serve {path}", self.process.name()))
    }

    /// Its metrics.
    ///
    /// # Errors
    /// If it does not serve metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        match self.get("/metrics")? {
            (200, text) => Ok(Metrics::parse(&text)),
            (status, text) => bail!("/metrics: status {status}: {text}"),
        }
    }

    /// Whether it reports that it is ready; `None` if there is no response.
    #[must_use]
    pub fn is_ready(&self) -> Option<bool> {
        self.get("/readyz").ok().map(|(status, _)| status == 200)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it exits, or isn't ready in time, with the end of its log.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        eventually(&format!("{} is ready", self.process.name()), within, || {
            if let Some(status) = self.process.exit_status()? {
                bail!("{} exited: {status}\n{}", self.process.name(), last_lines(&self.log(), 20));
            }
            Ok(match self.get("/readyz") {
                Ok((200, _)) => Ok(()),
                Ok((status, text)) => {
                    Err(format!("{status}: {}\n{}", text.trim(), last_lines(&self.log(), 20)))
                }
                Err(e) => Err(format!("{e:#}\n{}", last_lines(&self.log(), 20))),
            })
        })
    }

    /// Waits until its metrics fulfil a condition.
    ///
    /// # Errors
    /// If they don't in time.
    pub fn wait_metric(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics> {
        eventually(what, within, || {
            let metrics = self.metrics()?;
            Ok(if condition(&metrics) { Ok(metrics) } else { Err(metrics.with_prefix("palisade_")) })
        })
    }

    /// Waits until its log has a line that contains all of these texts, in any case.
    ///
    /// # Errors
    /// If it doesn't in time.
    pub fn wait_log(&self, texts: &[&str], within: Duration) -> Result<String> {
        eventually(&format!("a line of the log with {texts:?}"), within, || {
            let log = self.log();
            let has = |line: &&str| {
                let line = line.to_lowercase();
                texts.iter().all(|w| line.contains(&w.to_lowercase()))
            };
            Ok(log.lines().find(has).map(str::to_owned).ok_or_else(|| last_lines(&log, 20)))
        })
    }
}

/// Sends a plain HTTP/1.1 request; the agent closes the connection after the response.
fn get(path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&LISTEN, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("a response without headers")?;
    let status = head.split(' ').nth(1).context("a response without status")?.parse()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { decode_chunks(body)? } else { body.to_owned() }))
}

fn decode_chunks(mut body: &str) -> Result<String> {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(out);
        }
        out.push_str(rest.get(..size).context("an incomplete chunk")?);
        body = rest.get(size + 2..).context("a chunk without end")?;
    }
}

/// Metrics in the Prometheus text format, by name and labels as written.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Parses the text format.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|l| !l.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// Returns the value of `NAME` or `NAME{LABELS}`, as written.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Returns the sum of all samples with this name whose labels contain this text.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let matches = |key: &str| {
            key.strip_prefix(name)
                .is_some_and(|rest| (rest.is_empty() || rest.starts_with('{')) && rest.contains(labels))
        };
        self.0.iter().filter(|(k, _)| matches(k)).map(|(_, v)| v).sum()
    }

    /// Returns the samples whose names have this prefix, as text.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> String {
        let lines = self.0.iter().filter(|(k, _)| k.starts_with(prefix) && !k.contains("_bucket"));
        lines.map(|(k, v)| format!("{k} {v}\n")).collect()
    }

    /// Returns the buckets of a histogram as `(upper bound, cumulative count)`; the last has the total.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Vec<(f64, f64)> {
        let prefix = format!("{name}_bucket{{");
        let bound = |key: &str| {
            let rest = key.split("le=\"").nth(1)?.split('"').next()?;
            if rest == "+Inf" { Some(f64::INFINITY) } else { rest.parse().ok() }
        };
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter(|(k, _)| k.starts_with(&prefix))
            .filter_map(|(k, v)| Some((bound(k)?, *v)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}
