//! The lab as kubelet and CNI plugin. It registers its nodes and creates a network namespace for every pod that is bound to one of
//! them, then writes the pod's status. It removes the network of a deleted pod, then the pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use palisade_lab::{Lab, Layout, namespace::Namespace};
use palisade_manifest::Input;
use palisade_policy::{Change, Name, ObjectKey};
use serde_json::json;
use tokio::sync::oneshot;

use crate::{control_plane::client, truth};

/// The annotation with the addresses of a pod, separated by commas. Without it the lab assigns them.
pub const ADDRESSES: &str = "lab.palisade.dev/addresses";
/// The annotation of a pod whose sandbox something else plays: the lab leaves it pending.
pub const PENDING: &str = "lab.palisade.dev/pending";

/// A lab that is shared by threads.
pub type SharedLab = Arc<Mutex<Lab>>;

/// Locks the lab.
pub fn lock(lab: &SharedLab) -> MutexGuard<'_, Lab> {
    // A test that panicked while it held the lock has not changed the lab.
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A short pause after each failure: tests stop and start the API server, and wait for the kubelet.
#[derive(Debug)]
struct ShortBackoff;

impl Iterator for ShortBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

impl Backoff for ShortBackoff {
    fn reset(&mut self) {}
}

/// The kubelet of all nodes of a lab. Dropping it stops it; pods stay as they are.
#[derive(Debug)]
pub struct Kubelet {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Kubelet {
    /// Registers the nodes and then runs their pods. The API server must be reachable from `namespace`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(lab: SharedLab, namespace: Namespace, kubeconfig: PathBuf) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let log = errors.clone();
        let thread = thread::Builder::new().name("kubelet".into()).spawn(move || {
            let work = || -> Result<()> {
                namespace.enter()?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let client = client(&kubeconfig).await?;
                    tokio::select! {
                        result = run(client, lab, &log) => result,
                        _ = stopped => Ok(()),
                    }
                })
            };
            if let Err(e) = work() {
                add_error(&log, format!("the kubelet has ended: {e:#}"));
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), errors })
    }

    /// The errors so far.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.stop.take().map(|s| s.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn add_error(errors: &Mutex<Vec<String>>, error: String) {
    errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
}

async fn run(client: Client, lab: SharedLab, errors: &Mutex<Vec<String>>) -> Result<()> {
    let nodes: BTreeMap<Name, Vec<IpAddr>> = lock(&lab).layout().nodes.clone();
    for (name, addresses) in &nodes {
        register(&client, name, addresses).await?;
    }
    let streams = nodes.keys().map(|name| {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
        let name = name.clone();
        watcher(Api::<Pod>::all(client.clone()), config)
            .backoff(ShortBackoff)
            .map(move |event| (name.clone(), event))
            .boxed()
    });
    let mut events = futures::stream::select_all(streams);
    let listing = nodes.into_keys().collect();
    let mut pods =
        Pods { client: client.clone(), lab, known: BTreeMap::new(), listed: BTreeMap::new(), listing };
    while let Some((node, event)) = events.next().await {
        // Tests stop the API server; the watcher retries.
        let Ok(event) = event else { continue };
        if let Err(e) = pods.handle(&node, event).await {
            add_error(errors, format!("kubelet of {node}: {e:#}"));
        }
    }
    Ok(())
}

/// Registers a node, as a kubelet does it when it starts.
///
/// # Errors
/// If the API server refuses it.
pub async fn register(client: &Client, name: &str, addresses: &[IpAddr]) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let parameters = PatchParams::apply("lab-kubelet").force();
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
    });
    nodes.patch(name, &parameters, &Patch::Apply(&node)).await.context("cannot register a node")?;
    let addresses: Vec<_> =
        addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]);
    let status = json!({"status": {"addresses": addresses, "conditions": ready}});
    // Not by server-side apply, which treats two addresses of one type as duplicates.
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

/// The pods of the lab's nodes, as the API server has them.
struct Pods {
    client: Client,
    lab: SharedLab,
    known: BTreeMap<ObjectKey, Pod>,
    /// The pods that the current list of a node has had so far.
    listed: BTreeMap<Name, BTreeSet<ObjectKey>>,
    /// The nodes whose pods are being listed.
    listing: BTreeSet<Name>,
}

impl Pods {
    async fn handle(&mut self, node: &Name, event: Event<Pod>) -> Result<()> {
        match event {
            Event::InitApply(pod) | Event::Apply(pod) if pod.annotations().contains_key(PENDING) => {
                return Ok(());
            }
            Event::Init => {
                self.listed.insert(node.clone(), BTreeSet::new());
                self.listing.insert(node.clone());
                return Ok(());
            }
            Event::InitApply(pod) => {
                let key = key(&pod);
                self.listed.entry(node.clone()).or_default().insert(key.clone());
                self.known.insert(key, pod);
                return Ok(());
            }
            Event::InitDone => {
                let seen = self.listed.remove(node).unwrap_or_default();
                let is_here = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
                self.known.retain(|key, pod| !is_here(pod) || seen.contains(key));
                self.listing.remove(node);
            }
            Event::Apply(pod) => {
                self.known.insert(key(&pod), pod);
            }
            Event::Delete(pod) => {
                self.known.remove(&key(&pod));
            }
        }
        if !self.listing.is_empty() {
            return Ok(());
        }
        self.attach()?;
        let keys: Vec<ObjectKey> = self.known.keys().cloned().collect();
        for key in keys {
            self.update_status(&key).await?;
        }
        Ok(())
    }

    /// Updates the lab to the namespaces of the running pods.
    fn attach(&self) -> Result<()> {
        let mut lab = lock(&self.lab);
        let before = &lab.layout().cluster;
        let mut cluster = before.clone();
        let deleted: Vec<ObjectKey> = before
            .pods
            .keys()
            .filter(|k| self.known.get(*k).is_none_or(|p| p.metadata.deletion_timestamp.is_some()))
            .cloned()
            .collect();
        for key in deleted {
            cluster.apply(Change::RemovePod(key));
        }
        for pod in self.known.values().filter(|p| p.metadata.deletion_timestamp.is_none()) {
            cluster.apply(Change::SetPod(self.decode(pod)?));
        }
        lab.update(&cluster)?;
        Ok(())
    }

    fn decode(&self, pod: &Pod) -> Result<palisade_policy::Pod> {
        let key = key(pod);
        let mut value = serde_json::to_value(pod)?;
        value["apiVersion"] = json!("v1");
        value["kind"] = json!("Pod");
        let input = Input::Text { name: key.to_string(), text: value.to_string() };
        let decoded =
            truth::parse(&[input])?.pods.remove(&key).with_context(|| format!("cannot decode pod {key}"))?;
        let mut decoded = Arc::unwrap_or_clone(decoded);
        if let Some(addresses) = pod.annotations().get(ADDRESSES) {
            decoded.addresses = addresses
                .split(',')
                .map(|a| a.trim().parse())
                .collect::<Result<_, _>>()
                .context(ADDRESSES)?;
        }
        Ok(decoded)
    }

    /// Writes the status of a pod, or removes the pod if it is being deleted.
    async fn update_status(&mut self, key: &ObjectKey) -> Result<()> {
        let Some(pod) = self.known.get(key) else { return Ok(()) };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = pod.uid();
        if pod.metadata.deletion_timestamp.is_some() {
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid, resource_version: None }),
                ..DeleteParams::default()
            };
            return ignore_not_found_and_conflict(api.delete(&key.name, &parameters).await.map(|_| ()));
        }
        let has_address = pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some());
        let addresses = addresses(lock(&self.lab).layout(), key);
        let Some(first) = addresses.first().filter(|_| !has_address) else { return Ok(()) };
        let ips: Vec<_> = addresses.iter().map(|a| json!({"ip": a.to_string()})).collect();
        let conditions: Vec<_> = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"]
            .iter()
            .map(|t| json!({"type": t, "status": "True"}))
            .collect();
        // The uid makes the request fail for another pod with the same name.
        let status = json!({
            "metadata": {"uid": uid},
            "status": {
                "phase": "Running",
                "podIP": first.to_string(),
                "podIPs": ips,
                "conditions": conditions,
            },
        });
        ignore_not_found_and_conflict(
            api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&status)).await.map(|_| ()),
        )
    }
}

/// Returns the addresses that the lab assigned to a pod, or those of its node if it is in the host network.
fn addresses(layout: &Layout, key: &ObjectKey) -> Vec<IpAddr> {
    match layout.pods.get(key) {
        Some(place) => place.addresses.clone(),
        None => layout.cluster.pods.get(key).map(|p| p.addresses.clone()).unwrap_or_default(),
    }
}

fn key(pod: &Pod) -> ObjectKey {
    ObjectKey::new(pod.namespace().unwrap_or_default().as_str(), pod.name_any().as_str())
}

/// A test may have deleted the pod, or replaced it by another one with the same name.
fn ignore_not_found_and_conflict(result: Result<(), kube::Error>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => Ok(other?),
    }
}
