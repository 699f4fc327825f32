//! The agent's side of the chained CNI plugin: answers the plugin, and keeps it installed.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::Notify, task::JoinError, time::timeout};

use super::{pod_gate::PodGate, runtime_event::RuntimeEvent, start_outcome::StartOutcome};
use crate::{
    cni::{Attachment, Entry, InstallError, Installed, Installer, Records},
    config::{CniChain, Config},
    error_chain,
    metrics::{Metrics, StageLabel},
    runtime_pods::RuntimePod,
    socket::{PodStarted, Response},
    source::files::may_change,
};

/// How often the configuration is looked at without a notification.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after the plugin was added, or could not be. It doubles up to [`MAX_PAUSE`], and is short again once the plugin has stayed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Answers for a pod whose network is set up.
pub(super) async fn attached(gate: &PodGate, attachment: Attachment) -> Response {
    if let Err(error) = attachment.check() {
        tracing::warn!(err = error, "refused an invalid pod from the CNI plugin");
        gate.count("invalid");
        return Response::Error(error);
    }
    let pod = attachment.pod();
    let key = pod.key.to_string();
    if pod.addresses.is_empty() {
        gate.count("no-address");
        return started(true, "the pod has no address yet");
    }
    match gate.announce(pod, Instant::now(), gate.timeout).outcome().await {
        StartOutcome::Programmed => Response::PodStarted(PodStarted { starts: true, note: None }),
        StartOutcome::Closed(why) => started(
            true,
            &format!("{key} starts closed, all its traffic is dropped until it is opened: {why}"),
        ),
        StartOutcome::Open(why) => started(true, &format!("{key} starts before it is isolated: {why}")),
        StartOutcome::Refused(why) => started(false, &format!("{key} could not be isolated: {why}")),
    }
}

fn started(starts: bool, note: &str) -> Response {
    Response::PodStarted(PodStarted { starts, note: Some(note.to_owned()) })
}

/// Takes back a pod whose network is taken down.
pub(super) fn detached(gate: &PodGate, id: String) -> Response {
    gate.inbox.add_runtime(RuntimeEvent::Stopped(id));
    Response::Done
}

/// Tells the worker of the pods that have started through the plugin while other agents ran, or none.
pub(super) fn recall(socket: &Path, gate: &PodGate) {
    let (records, invalid) = Records::beside(socket).read();
    for err in invalid {
        tracing::warn!(err, "cannot read the record of a pod that started through the CNI plugin");
    }
    let pods: Vec<RuntimePod> =
        records.iter().map(Attachment::pod).filter(|pod| !pod.addresses.is_empty()).collect();
    if !pods.is_empty() {
        tracing::info!(pods = pods.len(), "read pods that started through the CNI plugin");
        gate.inbox.add_runtime(RuntimeEvent::Synchronized(pods));
    }
}

/// Keeps the plugin installed.
#[derive(Debug)]
pub(super) struct Chain {
    installer: Installer,
    metrics: Arc<Metrics>,
}

impl Chain {
    /// Returns `None` if the plugin isn't to be installed.
    pub(super) fn new(config: &Config, metrics: &Arc<Metrics>) -> Option<Self> {
        (config.cni_chain == CniChain::On).then(|| Self {
            installer: Installer {
                configurations: config.cni_conf_dir.clone(),
                programs: config.cni_bin_dir.clone(),
                entry: Entry::new(config),
            },
            metrics: Arc::clone(metrics),
        })
    }

    /// Installs the plugin, and adds it again when another program has rewritten the configuration, as long as the process runs.
    pub(super) async fn run(self) {
        let changed = Arc::new(Notify::new());
        // Before the configuration is read, so that no later change is missed.
        let mut watcher = watch(&self.installer.configurations, &changed);
        let (mut pause, mut logged, mut is_compared) = (FIRST_PAUSE, None, false);
        loop {
            let is_stable = match self.install(&mut is_compared).await {
                Ok(Installed::Already) => {
                    self.metrics.cni_chained.set(1);
                    true
                }
                Ok(Installed::Added(file)) => {
                    self.metrics.cni_chained.set(1);
                    let file = file.display();
                    tracing::info!(%file, "added the plugin to the CNI configuration, pods are isolated before they start");
                    false
                }
                Err(failure) => {
                    self.metrics.cni_chained.set(0);
                    let err = failure.text;
                    if logged.as_ref() != Some(&err) {
                        self.metrics.errors.get_or_create(&StageLabel { stage: "cni" }).inc();
                        tracing::warn!(
                            err,
                            "cannot add the plugin to the CNI configuration, retrying; pods may start before they are isolated"
                        );
                    }
                    logged = Some(err);
                    if failure.is_of_configuration {
                        // The pods that start until it is changed don't wait, so the change must be noticed at once.
                        tokio::time::sleep(FIRST_PAUSE).await;
                        watcher = self.wait_for_change(&changed, watcher).await;
                        continue;
                    }
                    false
                }
            };
            if is_stable {
                (pause, logged) = (FIRST_PAUSE, None);
                watcher = self.wait_for_change(&changed, watcher).await;
            } else {
                // Another program that removes the plugin each time doesn't keep both busy.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }

    /// Waits until the configuration may have changed. Returns what watches it from then on.
    async fn wait_for_change(
        &self,
        changed: &Arc<Notify>,
        watcher: Option<RecommendedWatcher>,
    ) -> Option<RecommendedWatcher> {
        let is_notified = timeout(CHECK_INTERVAL, changed.notified()).await.is_ok();
        match watcher {
            Some(watcher) if is_notified => Some(watcher),
            // The directory may be another one than before, or exist only now.
            _ => watch(&self.installer.configurations, changed),
        }
    }

    /// Installs what is missing. The program is compared once, then it is only looked at.
    async fn install(&self, is_compared: &mut bool) -> Result<Installed, Failure> {
        let (installer, compare) = (self.installer.clone(), !*is_compared);
        // Copying a program takes a moment, and this thread answers the runtime and the plugin.
        let installing = tokio::task::spawn_blocking(move || {
            // The program first: a runtime that reads the configuration needs it.
            if compare || !installer.has_program() {
                installer.install_program()?;
            }
            Ok::<_, InstallError>(installer.install_configuration())
        });
        let ended = |error: JoinError| Failure { text: error.to_string(), is_of_configuration: false };
        let configuration = installing.await.map_err(ended)??;
        *is_compared = true;
        configuration.map_err(Failure::from)
    }
}

/// Why the plugin could not be installed.
#[derive(Debug)]
struct Failure {
    text: String,
    is_of_configuration: bool,
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        Self { text: error_chain::with_causes(&error), is_of_configuration: error.is_of_configuration() }
    }
}

/// Notifies of changes in a directory. Without notifications it is looked at in intervals.
fn watch(directory: &Path, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let changed = Arc::clone(changed);
    let handle = move |event| {
        // Not when files are read: this process reads them after each notification.
        if may_change(&event, |_| true) {
            changed.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(handle).ok()?;
    watcher.watch(directory, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_change_of_the_configuration_is_notified_and_reading_it_is_not() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("10-pods.conflist");
        fs::write(&file, "{}").unwrap();
        let changed = Arc::new(Notify::new());
        let _watcher = watch(dir.path(), &changed).unwrap();
        fs::read(&file).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let notified = timeout(Duration::from_millis(300), changed.notified()).await;
        assert!(notified.is_err(), "reading the configuration counts as a change");
        fs::write(&file, "{} ").unwrap();
        timeout(Duration::from_secs(60), changed.notified()).await.unwrap();
    }
}
