//! The enforcers of the nodes: what a node of the lab runs to enforce policies.

use std::{
    collections::BTreeSet,
    error::Error,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster, Name};

use crate::namespace::Namespace;

/// The error of an enforcer.
pub type EnforceError = Box<dyn Error + Send + Sync>;

/// The enforcer of one node. All calls come from one thread, which runs in the node's network namespace.
pub trait Enforce {
    /// Programs the node for this cluster. Called once, before the node's first pod is attached.
    ///
    /// # Errors
    /// Fails if the kernel doesn't hold the rules afterwards.
    fn start(&mut self, cluster: &Cluster) -> Result<(), EnforceError>;

    /// Applies these changes. Returns when the kernel holds the new rules.
    ///
    /// # Errors
    /// Fails if the kernel doesn't hold the new rules afterwards.
    fn apply(&mut self, changes: &[Change]) -> Result<(), EnforceError>;

    /// Reads the links and routes of the node again, after some were added or removed.
    ///
    /// # Errors
    /// Fails if the kernel doesn't hold the rules that depend on them.
    fn refresh_links(&mut self) -> Result<(), EnforceError> {
        Ok(())
    }

    /// Trusts these DNS servers instead of those before, by the addresses that pods ask.
    ///
    /// # Errors
    /// Fails if the kernel doesn't hand over their answers afterwards.
    fn trust(&mut self, _: &BTreeSet<SocketAddr>) -> Result<(), EnforceError> {
        Ok(())
    }

    /// Does what is to be done while there is no other call. Returns when to call it again; `None`: after the next call.
    fn idle(&mut self) -> Option<Duration> {
        None
    }
}

/// An enforcer that enforces nothing: every packet passes. Used to compare with a network without Palisade.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEnforcement;

impl Enforce for NoEnforcement {
    fn start(&mut self, _: &Cluster) -> Result<(), EnforceError> {
        Ok(())
    }

    fn apply(&mut self, _: &[Change]) -> Result<(), EnforceError> {
        Ok(())
    }
}

/// Creates the enforcer of a node, given its name. Called on the thread and in the namespace in which it will run.
pub type MakeEnforcer = Arc<dyn Fn(&Name) -> Box<dyn Enforce> + Send + Sync>;

enum Command {
    Start(Arc<Cluster>),
    Apply(Arc<[Change]>),
    RefreshLinks,
    Trust(Arc<BTreeSet<SocketAddr>>),
}

type Outcome = Result<Duration, EnforceError>;

/// Waits for the next command, for as long as `idle` says.
fn next(received: &mpsc::Receiver<Command>, idle: Option<Duration>) -> Result<Command, RecvTimeoutError> {
    match idle {
        Some(timeout) => received.recv_timeout(timeout),
        None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// An enforcer on its thread.
#[derive(Debug)]
pub(crate) struct Enforcer {
    commands: Option<mpsc::Sender<Command>>,
    /// Locked because a lab is shared between threads; only one waits at a time.
    outcomes: Mutex<mpsc::Receiver<Outcome>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Enforcer {
    pub(crate) fn spawn(node: &Name, namespace: &Namespace, make: &MakeEnforcer) -> io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let (done, outcomes) = mpsc::channel();
        let (node, namespace, make) = (node.clone(), namespace.try_clone()?, make.clone());
        let thread = thread::Builder::new().name(format!("node-{node}")).spawn(move || {
            if let Err(e) = namespace.enter() {
                // This is the outcome of the first command.
                let _ = done.send(Err(e.into()));
                return;
            }
            let mut enforcer = make(&node);
            let mut idle = None;
            loop {
                let command = match next(&received, idle) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        idle = enforcer.idle();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                let began = Instant::now();
                let result = match command {
                    Command::Start(cluster) => enforcer.start(&cluster),
                    Command::Apply(changes) => enforcer.apply(&changes),
                    Command::RefreshLinks => enforcer.refresh_links(),
                    Command::Trust(servers) => enforcer.trust(&servers),
                };
                if done.send(result.map(|()| began.elapsed())).is_err() {
                    return;
                }
                idle = enforcer.idle();
            }
        })?;
        Ok(Self { commands: Some(commands), outcomes: Mutex::new(outcomes), thread: Some(thread) })
    }

    /// Starts the command; [`Enforcer::outcome`] waits for its end.
    pub(crate) fn start(&self, cluster: &Arc<Cluster>) {
        self.send(Command::Start(cluster.clone()));
    }

    /// Starts the command; [`Enforcer::outcome`] waits for its end.
    pub(crate) fn apply(&self, changes: &Arc<[Change]>) {
        self.send(Command::Apply(changes.clone()));
    }

    /// Starts the command; [`Enforcer::outcome`] waits for its end.
    pub(crate) fn refresh_links(&self) {
        self.send(Command::RefreshLinks);
    }

    /// Starts the command; [`Enforcer::outcome`] waits for its end.
    pub(crate) fn trust(&self, servers: &Arc<BTreeSet<SocketAddr>>) {
        self.send(Command::Trust(servers.clone()));
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // If the thread has ended, `outcome` returns the error.
            let _ = commands.send(command);
        }
    }

    /// Waits for the end of the started command. Returns how long it took.
    pub(crate) fn outcome(&self) -> Outcome {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.recv().unwrap_or_else(|_| Err("the enforcing thread of the node has ended".into()))
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
