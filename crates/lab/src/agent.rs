//! The agent as a node's enforcer: its reconcile loop with the kernel's nftables, and egress by name if that is wanted.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use palisade_agent::{
    NftDataPlane, NodeAgent, Report,
    names::{LearnedAnswer, Names, NamesSettings, ReceiveLearned},
};
use palisade_nft::EnforcerOptions;
use palisade_policy::{Change, Cluster, Name};

use crate::enforce::{Enforce, EnforceError, MakeEnforcer};

/// How often the thread that commits what was learned looks for reviews that are due.
const LOOK: Duration = Duration::from_millis(200);

/// Returns a constructor of enforcers that run Palisade's agent.
#[must_use]
pub fn palisade() -> MakeEnforcer {
    palisade_with(EnforcerOptions::default())
}

/// [`palisade`] with other options.
#[must_use]
pub fn palisade_with(options: EnforcerOptions) -> MakeEnforcer {
    make(options, None)
}

/// [`palisade`] that learns addresses from answers of DNS servers.
#[must_use]
pub fn palisade_with_names(settings: NamesSettings) -> MakeEnforcer {
    make(EnforcerOptions::default(), Some(settings))
}

fn make(options: EnforcerOptions, names: Option<NamesSettings>) -> MakeEnforcer {
    Arc::new(move |node: &Name| {
        let (options, names) = (options.clone(), names.clone());
        Box::new(Agent { node: node.clone(), options, names, running: None }) as Box<dyn Enforce>
    })
}

struct Agent {
    node: Name,
    options: EnforcerOptions,
    names: Option<NamesSettings>,
    running: Option<Arc<Mutex<Running>>>,
}

/// What the enforcer and the thread that commits learned addresses share.
struct Running {
    agent: NodeAgent<NftDataPlane>,
    names: Option<Names>,
    /// Whether the kernel holds the plan.
    is_current: bool,
}

impl Enforce for Agent {
    fn start(&mut self, cluster: &Cluster) -> Result<(), EnforceError> {
        // Opened here because sockets belong to the namespace of the thread that opens them.
        let plane = NftDataPlane::open_with(self.options.clone())?;
        let agent = NodeAgent::in_mode(self.node.clone(), plane, cluster.mode).denying_by(cluster.deny);
        let (sender, answers) = mpsc::channel();
        let names = self.names.as_ref().map(|settings| Names::new(settings, Arc::new(Answers(sender))));
        let learns = names.is_some();
        let running = Arc::new(Mutex::new(Running { agent, names, is_current: false }));
        self.running = Some(Arc::clone(&running));
        if learns {
            // Threads are in the namespace of the thread that starts them.
            let weak = Arc::downgrade(&running);
            thread::Builder::new().name("lab-names".into()).spawn(move || commit_answers(&answers, &weak))?;
        }
        let mut running = lock(&running);
        let report = running.agent.snapshot(cluster.clone());
        running.enforced(report)?;
        running.follow(None)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), EnforceError> {
        let mut running = lock(self.running.as_ref().ok_or("the agent was not started")?);
        let report = running.agent.apply(changes.to_vec());
        running.enforced(report)?;
        running.follow(Some(changes))
    }

    fn refresh_links(&mut self) -> Result<(), EnforceError> {
        let mut running = lock(self.running.as_ref().ok_or("the agent was not started")?);
        Ok(running.agent.data_plane().refresh_links_now().map(drop)?)
    }

    fn trust(&mut self, servers: &BTreeSet<SocketAddr>) -> Result<(), EnforceError> {
        let mut running = lock(self.running.as_ref().ok_or("the agent was not started")?);
        if let Some(names) = &mut running.names {
            names.set_resolvers(servers.clone());
        }
        running.follow(None)
    }
}

/// Ignores poisoning: the enforcer that panicked has failed, and its lab with it.
fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// As [`enforced`], and notes whether the kernel holds the plan.
    fn enforced(&mut self, report: Report) -> Result<(), EnforceError> {
        let outcome = enforced(&mut self.agent, report);
        self.is_current = outcome.is_ok();
        outcome
    }

    /// Hands the DNS messages of the pods that rules with names select to the agent.
    fn follow(&mut self, changes: Option<&[Change]>) -> Result<(), EnforceError> {
        let Some(names) = &mut self.names else { return Ok(()) };
        names.follow(changes, self.agent.reconciler());
        names.set_current(self.is_current);
        names.tick(self.agent.reconciler()).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Commits what was learned, in one transaction, and then releases the answers that wait for it.
    fn commit(&mut self, learned: &[LearnedAnswer]) {
        let changes: Vec<Change> = learned.iter().flat_map(|answer| answer.changes.iter().cloned()).collect();
        if !changes.is_empty() {
            self.is_current = self.agent.apply(changes).errors.is_empty();
        }
        if let Some(names) = &mut self.names {
            names.release(learned, self.is_current);
        }
    }
}

/// Sends answers to the thread that commits them.
#[derive(Debug)]
struct Answers(mpsc::Sender<LearnedAnswer>);

impl ReceiveLearned for Answers {
    fn receive_learned(&self, answer: LearnedAnswer) {
        // Without a receiver the lab is being removed.
        let _ = self.0.send(answer);
    }
}

/// Commits answers as long as the agent runs. Those that arrive meanwhile are committed together, as the agent does.
fn commit_answers(answers: &mpsc::Receiver<LearnedAnswer>, running: &Weak<Mutex<Running>>) {
    loop {
        let first = match answers.recv_timeout(LOOK) {
            Ok(answer) => Some(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        let learned: Vec<LearnedAnswer> = first.into_iter().chain(answers.try_iter()).collect();
        let Some(running) = running.upgrade() else { return };
        let mut running = lock(&running);
        if learned.is_empty() {
            // Reviews that earlier answers made due.
            running.agent.tick();
        } else {
            running.commit(&learned);
        }
    }
}

/// Waits until established connections are re-evaluated too. Returns the last error of the report: the agent continues after
/// errors, with the pods that it can't program cut off, but a lab must fail.
pub(crate) fn enforced(agent: &mut NodeAgent<NftDataPlane>, mut report: Report) -> Result<(), EnforceError> {
    loop {
        if let Some(worst) = report.errors.pop() {
            return Err(worst.into());
        }
        let Some(due) = report.review_due else { return Ok(()) };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        report = agent.tick();
    }
}
