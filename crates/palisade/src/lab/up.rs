//! `palisade lab up`: a cluster that keeps running and follows its manifests.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    os::unix::net::UnixStream,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use palisade_agent::source::files::{LONGEST, LOOK_AGAIN, QUIET, Watch};
use palisade_lab::{Lab, Layout, Sandbox, UpdateSummary, dns};
use palisade_manifest::{Diagnostic, Input};
use palisade_policy::Change;

use super::{
    by_name::ByName,
    changes::{self, Verdicts},
    control::{ControlSocket, LabName, Request},
    event::Event,
    layout_arguments::{LayoutArguments, load_options},
    serve,
};
use crate::{
    exit::Outcome,
    inputs::{self, ReadingArguments},
    output::{self, Style, styled},
};

pub(crate) const HELP: &str = "\
Edits are enforced when they are saved. While the manifests are invalid or missing, the last valid state remains active. Stop it with Ctrl-C, or with `palisade lab down` from another terminal.

Examples:
  palisade lab up examples/shop
  palisade lab up examples/shop --name shop --nodes 3
  palisade lab up examples/egress-by-name --zones examples/egress-by-name.zones.yaml
  palisade lab exec -n shop frontend -- sh        (from another terminal)
  palisade lab probe -n shop frontend backend:8080

Exit codes: 0 stopped, 2 error.";

/// Arguments of `lab up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Manifests: files or directories (read recursively)
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    layout: LayoutArguments,
    #[command(flatten)]
    reading: ReadingArguments,
    #[command(flatten)]
    lab: LabName,
    /// What the lab's DNS servers answer (YAML, read once): nodes learn the addresses, for domainNames of policies
    #[arg(long, value_name = "FILE")]
    zones: Option<String>,
}

/// Runs the lab until it is stopped.
pub(crate) fn run(arguments: &Up) -> Result<Outcome> {
    if arguments.paths.iter().any(|p| Input::of_argument(p) == Input::Stdin) {
        bail!("standard input can't be watched; use files or directories, or `palisade lab run -`");
    }
    let loaded =
        inputs::load(&arguments.paths, &arguments.reading, &load_options(arguments.zones.is_some()), false)?;
    let mut options = arguments.layout.options();
    let (by_name, layout) = match &arguments.zones {
        Some(path) => {
            // An edit may remove the cluster's DNS Service.
            options.outside.extend(dns::OUTSIDE);
            let (by_name, layout) = ByName::read(path, &loaded.cluster, &options)?;
            (Some(by_name), layout)
        }
        None => (None, Layout::of(&loaded.cluster, &options)?),
    };
    // Opened before the sandbox is entered, while this process still has the identity of the user who owns the directory.
    let control = ControlSocket::open(&arguments.lab.name)?;
    let sandbox = Sandbox::enter()?;
    let (events, inbox) = mpsc::channel();
    stop_on_signals(events.clone())?;
    let files = events.clone();
    // The receiver is dropped when the lab ends.
    let on_change = move |at| _ = files.send(Event::Files(at));
    let watch = Watch::begin(&arguments.paths, on_change)?;

    let began = Instant::now();
    let agents = by_name.as_ref().map_or_else(palisade_lab::agent::palisade, ByName::agents);
    let mut lab = Lab::build(&sandbox, layout, agents)?;
    if let Some(by_name) = &by_name {
        by_name.serve(&mut lab)?;
    }
    output::print(&greeting(&lab, &arguments.lab.name, began.elapsed())).context("can't write")?;
    serve::listen(control.listener()?, events)?;
    let verdicts = Verdicts::of(lab.layout());
    let mut running = Running {
        arguments,
        inbox,
        lab,
        verdicts,
        watch,
        reported: loaded.diagnostics,
        // The watch missed edits between reading and watching, so read once more.
        waiting: VecDeque::from([Event::Files(Instant::now())]),
        is_missing: false,
    };
    let client = running.until_stopped();
    drop(running);
    drop(control);
    // The client of `lab down` waits until this is closed, which happens last.
    client.map(|stream| {
        drop(stream);
        Outcome::Yes
    })
}

/// Stops the lab in order on Ctrl-C, `kill` or a closed terminal, and at once on a second signal. Must be called before
/// other threads exist, so that all inherit the mask and the signals arrive here only.
fn stop_on_signals(events: Sender<Event>) -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("can't block signals")?;
    let wait = move || {
        while signals.wait().is_ok() {
            if events.send(Event::Stop).is_err() {
                // The lab is being removed already. The kernel does the rest.
                std::process::exit(i32::from(crate::exit::ERROR));
            }
        }
    };
    thread::Builder::new().name("lab-signals".into()).spawn(wait).context("can't start a thread")?;
    Ok(())
}

fn greeting(lab: &Lab, name: &str, took: Duration) -> String {
    let layout = lab.layout();
    let mut out = String::new();
    let heading = styled(Style::Strong, &format!("lab `{name}` is up"));
    _ = writeln!(
        out,
        "{heading}: {} nodes, {} pods, {} services, {} policies; built in {}",
        layout.nodes.len(),
        layout.pods.len(),
        layout.cluster.services.len(),
        layout.cluster.policies.len(),
        output::duration(took)
    );
    let width = layout.pods.keys().map(|k| k.to_string().len()).max().unwrap_or(0);
    for (key, place) in &layout.pods {
        let addresses: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
        _ = writeln!(out, "  {:<width$}  {}  {}", key.to_string(), place.node, addresses.join("  "));
    }
    let outside: Vec<String> = layout.outside.iter().map(ToString::to_string).collect();
    _ = writeln!(out, "  outside: {}", outside.join("  "));
    if let Some((zones, servers)) = lab.names() {
        let ask: Vec<String> = servers.ask.iter().map(|server| server.ip().to_string()).collect();
        let names = zones.to_ask().len();
        _ = writeln!(out, "  DNS: {}  {names} {}", ask.join("  "), inputs::plural(names, "name"));
    }
    for note in &layout.notes {
        _ = writeln!(out, "  note: {note}");
    }
    out.push_str("waiting for edits; press Ctrl-C to stop\n");
    out
}

struct Running<'a> {
    arguments: &'a Up,
    // Dropped before the lab, so that a second signal exits at once.
    inbox: Receiver<Event>,
    lab: Lab,
    verdicts: Verdicts,
    watch: Watch,
    /// The diagnostics that were reported last.
    reported: Vec<Diagnostic>,
    /// Events received while edits were collected.
    waiting: VecDeque<Event>,
    /// Whether a path does not exist.
    is_missing: bool,
}

impl Running<'_> {
    /// Handles events until one stops the lab. Returns the client that waits for the end, if any.
    fn until_stopped(&mut self) -> Result<Option<UnixStream>> {
        loop {
            match self.next() {
                Some(Event::Stop) => return Ok(None),
                Some(Event::Request(Request::Down, mut stream)) => {
                    serve::answer(&self.lab, &Request::Down, &mut stream);
                    return Ok(Some(stream));
                }
                Some(Event::Request(request, mut stream)) => serve::answer(&self.lab, &request, &mut stream),
                Some(Event::Files(first)) => {
                    self.collect(first);
                    self.reload(first)?;
                }
                None => self.reload(Instant::now())?,
            }
        }
    }

    /// Returns the next event. `None`: it is time to check for a missing path.
    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.waiting.pop_front() {
            return Some(event);
        }
        let timeout = if self.is_missing { LOOK_AGAIN } else { Duration::from_secs(3600) };
        match self.inbox.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }

    /// Waits until no file has changed for a while.
    fn collect(&mut self, first: Instant) {
        while first.elapsed() < LONGEST {
            match self.inbox.recv_timeout(QUIET) {
                Ok(Event::Files(_)) => {}
                Ok(other) => self.waiting.push_back(other),
                Err(_) => return,
            }
        }
    }

    /// Whether all paths exist and are watched. Reports changes to the user.
    fn all_exist(&mut self) -> Result<bool> {
        // A path may be deleted during this check.
        let followed = if self.watch.missing().is_none() { self.watch.follow() } else { Ok(()) };
        if let Some(path) = self.watch.missing() {
            if !self.is_missing {
                output::note(&format!(
                    "{} does not exist: keeping the last state until it does\n",
                    path.display()
                ));
            }
            self.is_missing = true;
            return Ok(false);
        }
        followed?;
        if std::mem::take(&mut self.is_missing) {
            output::note("the manifests exist again\n");
        }
        Ok(true)
    }

    /// Reads the manifests again and enforces them.
    fn reload(&mut self, saved: Instant) -> Result<()> {
        if !self.all_exist()? {
            return Ok(());
        }
        let inputs: Vec<Input> = self.arguments.paths.iter().map(|p| Input::of_argument(p)).collect();
        let options = self.arguments.reading.options(load_options(self.arguments.zones.is_some()));
        let loaded = palisade_manifest::load(&inputs, &options);
        // Repeating the same warnings at every save would hide the effect of the save.
        if loaded.diagnostics != self.reported {
            inputs::report(&loaded, false);
            self.reported.clone_from(&loaded.diagnostics);
        }
        if loaded.has_errors() && !self.arguments.reading.keep_going {
            output::note("the manifests have errors: keeping the last valid state\n");
            return Ok(());
        }
        if loaded.counts.objects.is_empty() {
            output::note("there are no manifests: keeping the last state\n");
            return Ok(());
        }
        let before_layout = self.lab.layout().clone();
        let updated = self.lab.update(&loaded.cluster).context("can't enforce the edit")?;
        let took = saved.elapsed();
        if updated.changes.is_empty() {
            return Ok(());
        }
        let after = Verdicts::of(self.lab.layout());
        let text = edit_text(&before_layout, &updated, took) + &changes::text(&self.verdicts, &after);
        self.verdicts = after;
        output::print(&text).context("can't write")
    }
}

fn edit_text(before: &Layout, updated: &UpdateSummary, took: Duration) -> String {
    let mut out = format!(
        "{} in {} from save to kernel ({} of it in the nodes)\n",
        styled(Style::Strong, &format!("enforced {}", changes_text(updated))),
        output::duration(took),
        output::duration(updated.enforced_in)
    );
    for key in &updated.added {
        let word = if before.pods.contains_key(key) { "moved" } else { "new" };
        _ = writeln!(out, "  {word} pod {key}");
    }
    for key in updated.removed.iter().filter(|k| !updated.added.contains(k)) {
        _ = writeln!(out, "  removed pod {key}");
    }
    out
}

/// Formats changes: `1 change: NetworkPolicy shop/p`.
fn changes_text(updated: &UpdateSummary) -> String {
    const SHOWN: usize = 4;
    let mut names: Vec<String> = updated.changes.iter().take(SHOWN).map(change_text).collect();
    if updated.changes.len() > SHOWN {
        names.push(format!("{} more", updated.changes.len() - SHOWN));
    }
    format!(
        "{} {}: {}",
        updated.changes.len(),
        inputs::plural(updated.changes.len(), "change"),
        names.join(", ")
    )
}

fn change_text(change: &Change) -> String {
    match change {
        Change::SetNamespace(n) => format!("namespace {}", n.name),
        Change::RemoveNamespace(name) => format!("no namespace {name}"),
        Change::SetPod(p) => format!("pod {}", p.key),
        Change::RemovePod(key) => format!("no pod {key}"),
        Change::SetNode(n) => format!("node {}", n.name),
        Change::RemoveNode(name) => format!("no node {name}"),
        Change::SetService(s) => format!("service {}", s.key),
        Change::RemoveService(key) => format!("no service {key}"),
        Change::SetPolicy(p) => p.key.to_string(),
        Change::RemovePolicy(key) => format!("no {key}"),
        Change::SetLearned(learned) => format!("addresses of {}", learned.name),
        Change::RemoveLearned(name) => format!("no addresses of {name}"),
    }
}
