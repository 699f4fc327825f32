//! What happens to the agents while pods start.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Cluster,
    palisade::{self, Method, NAMESPACE, TAGS},
    progress::say,
};

pub(super) const AGENTS: &str = "--selector=app.kubernetes.io/component=agent";
/// How long agents stand still: longer than a pod waits.
const STOPPED_FOR: Duration = Duration::from_secs(4);

/// One thing that happens to all agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// They end without time to do anything, as in a crash.
    Killed,
    /// They stand still, as on a node without a processor for them.
    Stopped,
    /// They are restarted one by one.
    Restarted,
    /// They are replaced one by one by another version.
    Upgraded,
}

impl Disturbance {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Killed, Self::Stopped, Self::Restarted, Self::Upgraded];

    /// Begins, and doesn't wait for the end.
    pub(super) fn begin(self, cluster: &Cluster) -> Result<()> {
        say(&format!("the agents are {self:?}").to_lowercase());
        match self {
            Self::Killed => {
                cluster.kubectl(&[
                    "-n",
                    NAMESPACE,
                    "delete",
                    "pods",
                    AGENTS,
                    "--grace-period=0",
                    "--force",
                ])?;
            }
            Self::Stopped => {
                let agents = processes()?;
                ensure!(agents.len() == cluster.nodes().len(), "{} agents run", agents.len());
                signal(&agents, Signal::SIGSTOP)?;
                thread::spawn(move || {
                    thread::sleep(STOPPED_FOR);
                    // One that has ended meanwhile is replaced by its kubelet.
                    _ = signal(&agents, Signal::SIGCONT);
                });
            }
            Self::Restarted => {
                cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/palisade-agent"])?;
            }
            Self::Upgraded => palisade::begin_upgrade(cluster, Method::Helm, TAGS[1])?,
        }
        Ok(())
    }
}

fn signal(processes: &[Pid], signal: Signal) -> Result<()> {
    processes
        .iter()
        .try_for_each(|process| kill(*process, signal).with_context(|| format!("process {process}")))
}

/// The agents' processes, as this process sees them: nodes are in namespaces below its own.
fn processes() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end meanwhile.
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        if words.starts_with(&[b"/usr/local/bin/palisade", b"agent"]) {
            found.push(Pid::from_raw(number));
        }
    }
    Ok(found)
}
