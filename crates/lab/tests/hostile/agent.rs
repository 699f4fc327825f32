//! The agent as a process: a copy of this program that runs the daemon, and a client of its socket.

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
    cni::Attachment,
    config::{AllowedSources, Config, Listen, LogFormat, LogLevel, SourceCheck, SourceChoice},
    daemon, log,
    socket::{Explained, Request, RequestLine, Response, ResponseLine, Status, VERSION, Verified},
};
use palisade_lab::{Lab, Place, with_causes};
use palisade_policy::{Cluster, Name};

use crate::harness::until;

/// The environment variable that makes a copy of this program an agent: `run` or `remove`.
pub(crate) const ROLE: &str = "PALISADE_HOSTILE_ROLE";
const NODE: &str = "PALISADE_HOSTILE_NODE";
const FOLDER: &str = "PALISADE_HOSTILE_FOLDER";
/// The file in the folder of all agents that says which sources they drop, unless it is the default.
const SOURCE_CHECK: &str = "source-check";
/// The same for sources that every pod may have.
const ALLOWED_SOURCES: &str = "allow-source";

/// The namespace of all pods and policies.
pub(crate) const NAMESPACE: &str = "x";
/// The label of the namespace that holds the revision of the manifests.
pub(crate) const REVISION: &str = "revision";

/// The timeout of steps that usually finish at once. Long enough for debug builds on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

fn config(folder: &Path, node: &str) -> Config {
    Config {
        node_name: Some(node.to_owned()),
        source: SourceChoice::Directory(folder.join("manifests")),
        listen: Listen::Off,
        socket: folder.join(node).join("agent.sock"),
        lock_timeout: 10,
        log_format: LogFormat::Text,
        log_level: LogLevel::Debug,
        source_check: source_check(folder),
        allow_source: allowed_sources(folder),
        ..Config::default()
    }
}

/// Makes agents that start from now on drop these sources.
pub(crate) fn set_source_check(folder: &Path, check: SourceCheck) -> Result<(), Failed> {
    Ok(fs::write(folder.join(SOURCE_CHECK), serde_json::to_string(&check)?)?)
}

/// Sets the sources that every pod may have, for agents that start later.
pub(crate) fn set_allowed_sources(folder: &Path, sources: &AllowedSources) -> Result<(), Failed> {
    Ok(fs::write(folder.join(ALLOWED_SOURCES), sources.to_string())?)
}

fn allowed_sources(folder: &Path) -> AllowedSources {
    let text = fs::read_to_string(folder.join(ALLOWED_SOURCES)).unwrap_or_default();
    text.parse().unwrap_or_default()
}

fn source_check(folder: &Path) -> SourceCheck {
    let text = fs::read_to_string(folder.join(SOURCE_CHECK)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Runs in a copy of this program: an agent, or `palisade agent --remove`.
pub(crate) fn child(role: &OsStr) -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let config = config(Path::new(&variable(FOLDER)), &variable(NODE));
    log::start(config.log_format, config.log_level);
    if role == "remove" {
        return done(daemon::remove(&config).map(drop));
    }
    // The test holds the other end of standard input. The agent must not outlive a test that was killed.
    thread::spawn(|| {
        _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    // The command line would use the engine here. The tests query the revision of the manifests that the agent has.
    let revision = |cluster: &Cluster, _: &str, _: &str, _: &str| {
        let namespace = cluster.namespaces.get(NAMESPACE).ok_or("no namespace")?;
        let text = namespace.labels.get(REVISION).unwrap_or_default().to_owned();
        Ok(Explained { text, ..Explained::default() })
    };
    done(daemon::run(&config, Arc::new(revision), Arc::new(|_, _| Vec::new())))
}

fn done(outcome: Result<(), daemon::DaemonError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            _ = writeln!(std::io::stderr(), "{}", with_causes(&e));
            ExitCode::FAILURE
        }
    }
}

fn spawn_copy(lab: &Lab, folder: &Path, node: &Name, role: &str) -> Result<Child, Failed> {
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
    Ok(lab.run_in(&Place::Node(node.clone()), || command.spawn()).map_err(|e| with_causes(&e))??)
}

fn log_file(folder: &Path, node: &Name) -> PathBuf {
    folder.join(&**node).join("log")
}

/// Runs `palisade agent --remove` on a node.
pub(crate) fn remove(lab: &Lab, folder: &Path, node: &Name) -> Result<(), Failed> {
    let mut child = spawn_copy(lab, folder, node, "remove")?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("--remove: {status}\n{}", tail(folder, node)).into()) }
}

/// Returns the last lines of an agent's log.
pub(crate) fn tail(folder: &Path, node: &Name) -> String {
    let text = fs::read_to_string(log_file(folder, node)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A running agent. Dropping it kills it with SIGKILL; its rules stay in the kernel.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    folder: PathBuf,
    node: Name,
}

impl Agent {
    /// Starts an agent in a node's namespace, without waiting until it is ready.
    pub(crate) fn start(lab: &Lab, folder: &Path, node: &Name) -> Result<Self, Failed> {
        let child = spawn_copy(lab, folder, node, "run")?;
        Ok(Self { child, folder: folder.to_owned(), node: node.clone() })
    }

    /// Waits until the agent reports that it is ready.
    pub(crate) fn await_ready(&mut self) -> Result<(), Failed> {
        self.await_reply("be ready", |agent| {
            Ok(matches!(agent.ask(Request::Status), Some(Response::Status(s)) if s.ready).then_some(()))
        })
    }

    /// Waits until the agent has programmed this revision of the manifests.
    pub(crate) fn await_revision(&mut self, revision: usize) -> Result<(), Failed> {
        let ask = || Request::Explain {
            source: String::new(),
            destination: String::new(),
            namespace: String::new(),
        };
        self.await_reply("apply the manifests", |agent| {
            let Some(Response::Explained(reply)) = agent.ask(ask()) else { return Ok(None) };
            Ok((reply.text == revision.to_string()).then_some(()))
        })
    }

    /// Waits until the agent's `verify` finds the kernel equal to the plan.
    pub(crate) fn await_equal(&mut self) -> Result<(), Failed> {
        self.await_reply("hold the plan", |agent| Ok(agent.verify().filter(|v| v.equal).map(drop)))
    }

    /// Waits until established connections are re-evaluated by the rules that the kernel holds.
    pub(crate) fn await_reviewed(&mut self) -> Result<(), Failed> {
        self.await_reply("review the connections", |agent| {
            Ok(agent.status().filter(|status| status.unreviewed.is_none()).map(drop))
        })
    }

    /// Returns the result of the agent's `verify`, or `None` if it doesn't answer.
    pub(crate) fn verify(&mut self) -> Option<Verified> {
        match self.ask(Request::Verify) {
            Some(Response::Verified(verified)) => Some(verified),
            _ => None,
        }
    }

    /// Returns the agent's status, or `None` if it doesn't answer.
    pub(crate) fn status(&mut self) -> Option<Status> {
        match self.ask(Request::Status) {
            Some(Response::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// Tells the agent what the CNI plugin tells it of a pod whose network is set up.
    pub(crate) fn attach(&mut self, attachment: Attachment) -> Result<(), Failed> {
        match self.ask(Request::PodAttached(attachment)) {
            Some(Response::PodStarted(started)) if started.starts => Ok(()),
            other => Err(format!("the pod does not start: {other:?}").into()),
        }
    }

    /// Returns for how long the thread that waited most for a processor has waited since it started: what other programs of this machine cost
    /// the agent. Zero if the kernel doesn't say.
    pub(crate) fn time_without_processor(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let waited = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        });
        Duration::from_nanos(waited.max().unwrap_or_default())
    }

    /// Stops the process with SIGSTOP, or continues it.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Failed> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(kill(pid, if frozen { Signal::SIGSTOP } else { Signal::SIGCONT })?)
    }

    fn ask(&mut self, request: Request) -> Option<Response> {
        let mut stream = UnixStream::connect(self.folder.join(&*self.node).join("agent.sock")).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        let mut line = serde_json::to_string(&RequestLine { version: VERSION, request }).ok()?;
        line.push('\n');
        stream.write_all(line.as_bytes()).ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        serde_json::from_str::<ResponseLine>(&answer).ok().map(|line| line.response)
    }

    fn await_reply(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Result<Option<()>, Failed>,
    ) -> Result<(), Failed> {
        let answered = until(TIMEOUT, || {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the agent ended, {status}:\n{}", tail(&self.folder, &self.node)).into());
            }
            ask(self)
        })?;
        answered.ok_or_else(|| {
            let why = self.status().and_then(|s| s.not_ready).unwrap_or_default();
            let log = tail(&self.folder, &self.node);
            format!("the agent does not {what} within {TIMEOUT:?} ({why}):\n{log}").into()
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails if the process has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
