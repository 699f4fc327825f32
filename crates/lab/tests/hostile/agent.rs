//! The agent as a process of its own: a copy of this program that runs the daemon, and what a test does with it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use palisade_agent::{
    config::{Config, Listen, LogFormat, LogLevel, SourceChoice},
    daemon, log,
    socket::{Ask, Explained, Reply, Request, Response, Status, VERSION, Verified},
};
use palisade_lab::{Lab, Place};
use palisade_policy::{Cluster, Name};

use crate::{chain, until, world::NAMESPACE};

/// Set for a copy of this program that is an agent instead of running tests: `run` or `remove`.
pub(crate) const ROLE: &str = "PALISADE_HOSTILE_ROLE";
const NODE: &str = "PALISADE_HOSTILE_NODE";
const FOLDER: &str = "PALISADE_HOSTILE_FOLDER";

/// The label of the namespace that says which edit of the manifests a cluster is.
pub(crate) const TURN: &str = "turn";

/// How long anything may take that should be over in a moment; debug builds on a busy machine included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

fn config(folder: &Path, node: &str) -> Config {
    Config {
        node_name: Some(node.to_owned()),
        source: SourceChoice::Directory(folder.join("manifests")),
        listen: Listen::Off,
        socket: folder.join(node).join("agent.sock"),
        lock_timeout: 10,
        log_format: LogFormat::Text,
        log_level: LogLevel::Debug,
        ..Config::default()
    }
}

/// What a copy of this program does.
pub(crate) fn child(role: &OsStr) -> ExitCode {
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    let config = config(Path::new(&said(FOLDER)), &said(NODE));
    log::start(config.log_format, config.log_level);
    if role == "remove" {
        return done(daemon::remove(&config).map(drop));
    }
    // Whoever started this process holds the other end: it must not outlive a test that was killed.
    thread::spawn(|| {
        _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    // The command line would ask the engine. The tests ask which edit of the manifests the agent has taken in.
    let turn = |cluster: &Cluster, _: &str, _: &str, _: &str| {
        let namespace = cluster.namespaces.get(NAMESPACE).ok_or("no namespace")?;
        let text = namespace.labels.get(TURN).unwrap_or_default().to_owned();
        Ok(Explained { text, ..Explained::default() })
    };
    done(daemon::run(&config, Arc::new(turn)))
}

fn done(outcome: Result<(), daemon::DaemonError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            _ = writeln!(std::io::stderr(), "{}", chain(&e));
            ExitCode::FAILURE
        }
    }
}

fn copy(lab: &Lab, folder: &Path, node: &Name, role: &str) -> Result<Child, Failed> {
    fs::create_dir_all(folder.join(&**node))?;
    let log = fs::File::options().create(true).append(true).open(log_file(folder, node))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env(ROLE, role)
        .env(NODE, &**node)
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(lab.run_in(&Place::Node(node.clone()), || command.spawn()).map_err(|e| chain(&e))??)
}

fn log_file(folder: &Path, node: &Name) -> PathBuf {
    folder.join(&**node).join("log")
}

/// Runs `palisade agent --remove` on a node.
pub(crate) fn remove(lab: &Lab, folder: &Path, node: &Name) -> Result<(), Failed> {
    let mut child = copy(lab, folder, node, "remove")?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("--remove: {status}\n{}", tail(folder, node)).into()) }
}

/// The last lines of an agent's log.
pub(crate) fn tail(folder: &Path, node: &Name) -> String {
    let text = fs::read_to_string(log_file(folder, node)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A running agent. Dropped, it is killed with SIGKILL: its rules stay.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    folder: PathBuf,
    node: Name,
}

impl Agent {
    /// Starts an agent in a node's namespace. It is not ready yet.
    pub(crate) fn start(lab: &Lab, folder: &Path, node: &Name) -> Result<Self, Failed> {
        let child = copy(lab, folder, node, "run")?;
        Ok(Self { child, folder: folder.to_owned(), node: node.clone() })
    }

    /// Waits until the agent says that the kernel holds the plan.
    pub(crate) fn ready(&mut self) -> Result<(), Failed> {
        self.await_reply("be ready", |agent| {
            Ok(matches!(agent.ask(Ask::Status), Some(Reply::Status(s)) if s.ready).then_some(()))
        })
    }

    /// Waits until the agent has programmed the edit of the manifests with this number.
    pub(crate) fn took_in(&mut self, turn: usize) -> Result<(), Failed> {
        let ask =
            || Ask::Explain { source: String::new(), destination: String::new(), namespace: String::new() };
        self.await_reply("take the manifests in", |agent| {
            let Some(Reply::Explained(said)) = agent.ask(ask()) else { return Ok(None) };
            Ok((said.text == turn.to_string()).then_some(()))
        })
    }

    /// Waits until the kernel holds what the plan says, as the agent's own reader sees it.
    pub(crate) fn equal(&mut self) -> Result<(), Failed> {
        self.await_reply("hold the plan", |agent| Ok(agent.verify().filter(|v| v.equal).map(drop)))
    }

    /// What the agent's reader says of the kernel; nothing if it doesn't answer.
    pub(crate) fn verify(&mut self) -> Option<Verified> {
        match self.ask(Ask::Verify) {
            Some(Reply::Verified(verified)) => Some(verified),
            _ => None,
        }
    }

    /// How the agent says it fares.
    pub(crate) fn status(&mut self) -> Option<Status> {
        match self.ask(Ask::Status) {
            Some(Reply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// Stops its threads where they are, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Failed> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(kill(pid, if frozen { Signal::SIGSTOP } else { Signal::SIGCONT })?)
    }

    fn ask(&mut self, ask: Ask) -> Option<Reply> {
        let mut stream = UnixStream::connect(self.folder.join(&*self.node).join("agent.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut line = serde_json::to_string(&Request { version: VERSION, ask }).ok()?;
        line.push('\n');
        stream.write_all(line.as_bytes()).ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        serde_json::from_str::<Response>(&answer).ok().map(|response| response.reply)
    }

    fn await_reply(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Result<Option<()>, Failed>,
    ) -> Result<(), Failed> {
        let answered = until(PATIENCE, || {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the agent ended, {status}:\n{}", tail(&self.folder, &self.node)).into());
            }
            ask(self)
        })?;
        answered.ok_or_else(|| {
            let says = self.status().and_then(|s| s.not_ready).unwrap_or_default();
            let log = tail(&self.folder, &self.node);
            format!("the agent does not {what} within {PATIENCE:?} ({says}):\n{log}").into()
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
