//! Commands that are started again when they end, in pods that come and go.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{CONCURRENT, ExecError, ExecPod, MAX_FOLLOWED, PodCommand, PodEvent, pods, process};
use crate::backoff::Backoff;

/// How often the pods are listed.
const LIST_INTERVAL: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A command that ran for so long did not fail at its start.
const LONG: Duration = Duration::from_secs(10);

/// The commands by the pods' uids.
struct Followed {
    client: Client,
    command: Arc<PodCommand>,
    events: mpsc::Sender<PodEvent>,
    connecting: Arc<Semaphore>,
    began: Instant,
    pods: BTreeMap<String, (Arc<ExecPod>, AbortHandle)>,
}

/// Follows the command in pods, until the events are no longer read.
pub(super) async fn run(
    client: Client,
    command: PodCommand,
    pods: Vec<Arc<ExecPod>>,
    events: mpsc::Sender<PodEvent>,
) {
    let mut followed = Followed {
        client,
        command: Arc::new(command),
        events,
        connecting: Arc::new(Semaphore::new(CONCURRENT)),
        began: Instant::now(),
        pods: BTreeMap::new(),
    };
    for pod in pods {
        followed.add(pod, None).await;
    }
    let mut is_listed = true;
    while !followed.events.is_closed() {
        sleep(LIST_INTERVAL).await;
        match pods::list(&followed.client, &followed.command).await {
            Ok(pods) => {
                is_listed = true;
                followed.update(pods).await;
            }
            Err(error) => {
                // Said once: the commands go on as long as their connections do.
                if std::mem::replace(&mut is_listed, false) {
                    _ = followed.events.send(PodEvent::NotFound(error)).await;
                }
            }
        }
    }
}

impl Followed {
    async fn update(&mut self, pods: Vec<Arc<ExecPod>>) {
        let now: HashSet<&str> = pods.iter().map(|pod| &*pod.uid).collect();
        let gone: Vec<String> = self.pods.keys().filter(|uid| !now.contains(uid.as_str())).cloned().collect();
        for uid in gone {
            if let Some((pod, task)) = self.pods.remove(&uid) {
                task.abort();
                _ = self.events.send(PodEvent::Gone(pod)).await;
            }
        }
        // A pod whose container doesn't run yet is known once it does.
        let new = pods.into_iter().filter(|pod| pod.not_running.is_none());
        for pod in new.filter(|pod| !self.pods.contains_key(&pod.uid)).collect::<Vec<_>>() {
            _ = self.events.send(PodEvent::Appeared(Arc::clone(&pod))).await;
            self.add(pod, Some(self.began)).await;
        }
    }

    /// Starts the command in a pod. Of a pod that appeared later, what it printed since the beginning is wanted.
    async fn add(&mut self, pod: Arc<ExecPod>, since: Option<Instant>) {
        if self.pods.len() >= MAX_FOLLOWED {
            let nothing = tokio::spawn(async {}).abort_handle();
            self.pods.insert(pod.uid.clone(), (Arc::clone(&pod), nothing));
            _ = self.events.send(PodEvent::Ended(pod, Err(ExecError::TooMany(MAX_FOLLOWED)))).await;
            return;
        }
        if let Some(why) = &pod.not_running {
            let error = Err(ExecError::NotRunning(why.clone()));
            _ = self.events.send(PodEvent::Ended(pod, error)).await;
            return;
        }
        let task = tokio::spawn(repeat(
            self.client.clone(),
            Arc::clone(&self.command),
            Arc::clone(&pod),
            self.events.clone(),
            Arc::clone(&self.connecting),
            since,
        ));
        self.pods.insert(pod.uid.clone(), (pod, task.abort_handle()));
    }
}

/// Runs the command again and again.
async fn repeat(
    client: Client,
    command: Arc<PodCommand>,
    pod: Arc<ExecPod>,
    events: mpsc::Sender<PodEvent>,
    connecting: Arc<Semaphore>,
    mut since: Option<Instant>,
) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    while !events.is_closed() {
        let Ok(place) = connecting.acquire().await else { return };
        let words = (command.words)(since.map(|since| since.elapsed()));
        let begin = Instant::now();
        let mut has_printed = false;
        let started = || drop(place);
        let ended = process::run(&client, &pod, &command, &words, &events, started, &mut has_printed).await;
        // If nothing was received, the same is asked for again.
        if has_printed {
            // Everything up to its end was received, or nearly: the words ask for somewhat more.
            since = Some(Instant::now() - command.idle_timeout.min(begin.elapsed()));
        }
        if begin.elapsed() > LONG {
            backoff.reset();
        }
        if events.send(PodEvent::Ended(Arc::clone(&pod), ended)).await.is_err() {
            return;
        }
        sleep(backoff.next(None)).await;
    }
}
