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
pub struct Options {
    /// The kubeconfig that it uses.
    pub kubeconfig: PathBuf,
    /// Further arguments.
    pub more: Vec<String>,
    /// Tells two processes of one node apart, in the names of files.
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
    /// When the program can't be started.
    pub fn start(
        palisade: &Path,
        node: &Name,
        namespace: Namespace,
        folder: &Path,
        options: &Options,
    ) -> Result<Self> {
        // A node has a /run of its own.
        let run = folder.join(format!("run-{node}"));
        std::fs::create_dir_all(&run)?;
        let socket = run.join("agent.sock");
        let mut command = Command::new(palisade);
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

    /// The socket by which `palisade node` asks it.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Everything that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The status and the body of what it serves at a path.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.namespace.run(|| get(path))?.with_context(|| format!("{} serves no {path}", self.process.name()))
    }

    /// Its metrics.
    ///
    /// # Errors
    /// When it serves none.
    pub fn metrics(&self) -> Result<Metrics> {
        match self.get("/metrics")? {
            (200, text) => Ok(Metrics::parse(&text)),
            (status, text) => bail!("/metrics: status {status}: {text}"),
        }
    }

    /// Whether it says that it is ready; `None` as long as nobody answers.
    #[must_use]
    pub fn is_ready(&self) -> Option<bool> {
        self.get("/readyz").ok().map(|(status, _)| status == 200)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or isn't ready in time, with the end of its log.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        eventually(&format!("{} is ready", self.process.name()), within, || {
            if let Some(status) = self.process.ended()? {
                bail!("{} ended: {status}\n{}", self.process.name(), last_lines(&self.log(), 20));
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

    /// Waits until its metrics are so.
    ///
    /// # Errors
    /// When they aren't in time.
    pub fn wait_metric(
        &self,
        what: &str,
        within: Duration,
        is_so: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics> {
        eventually(what, within, || {
            let metrics = self.metrics()?;
            Ok(if is_so(&metrics) { Ok(metrics) } else { Err(metrics.in_words("palisade_")) })
        })
    }

    /// Waits until its log has a line with all of these words, whatever their case.
    ///
    /// # Errors
    /// When it hasn't in time.
    pub fn wait_log(&self, words: &[&str], within: Duration) -> Result<String> {
        eventually(&format!("a line of the log with {words:?}"), within, || {
            let log = self.log();
            let has = |line: &&str| {
                let line = line.to_lowercase();
                words.iter().all(|w| line.contains(&w.to_lowercase()))
            };
            Ok(log.lines().find(has).map(str::to_owned).ok_or_else(|| last_lines(&log, 20)))
        })
    }
}

/// A plain request: what serves it is ours, and closes.
fn get(path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&LISTEN, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without headers")?;
    let status = head.split(' ').nth(1).context("an answer without status")?.parse()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(body)? } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> Result<String> {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(out);
        }
        out.push_str(rest.get(..size).context("a short chunk")?);
        body = rest.get(size + 2..).context("a chunk without end")?;
    }
}

/// Metrics in the text format of Prometheus, by name and labels as they are written.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text format.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|l| !l.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The value of `NAME` or `NAME{LABELS}`, as it is written.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The sum over all samples of that name whose labels contain this text.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let is_it = |key: &str| {
            key.strip_prefix(name)
                .is_some_and(|rest| (rest.is_empty() || rest.starts_with('{')) && rest.contains(labels))
        };
        self.0.iter().filter(|(k, _)| is_it(k)).map(|(_, v)| v).sum()
    }

    /// Those that begin so, as text.
    #[must_use]
    pub fn in_words(&self, prefix: &str) -> String {
        let lines = self.0.iter().filter(|(k, _)| k.starts_with(prefix) && !k.contains("_bucket"));
        lines.map(|(k, v)| format!("{k} {v}\n")).collect()
    }

    /// The buckets of a histogram, `(upper bound, how many so far)`, and how many there are in all.
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
