//! A whole cluster, and what its kernel does held against what the engine says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use kube::Client;
use palisade_lab::{
    Lab, Layout, LayoutOptions, Place, Sandbox,
    enforce::{Enforce, NoEnforcement},
    namespace::Namespace,
    probe::{self, Outcome, ProbeOptions, Target},
};
use palisade_policy::{Change, Cluster, Endpoint, Labels, Name, Node, ObjectKey, Protocol};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{self, Agent},
    control_plane::{ControlPlane, Identity},
    eventually,
    kubelet::{Kubelet, SharedLab, lock},
    process::last_lines,
    programs::{Programs, root},
    truth,
};

/// The lab's nodes.
pub const NODES: [&str; 2] = ["w1", "w2"];
/// The CustomResourceDefinitions of every cluster-wide kind.
pub const CRDS: [&str; 3] = [
    "clusternetworkpolicies.v1alpha2.experimental",
    "adminnetworkpolicies.v1alpha1.experimental",
    "baselineadminnetworkpolicies.v1alpha1.experimental",
];
/// What the agents are called in the cluster: namespace and service account.
pub const ACCOUNT: (&str, &str) = ("palisade-system", "palisade-agent");

/// How long agents may take to follow a change before probes that disagree are a failure. Generous: the machine compiles
/// other things meanwhile.
const FOLLOW_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// How long an agent may take from its start to its first whole snapshot in the kernel.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

/// A control plane, two nodes, and their agents.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: who asks goes before who answers, and all before the namespaces in which they live.
    agents: BTreeMap<Name, Agent>,
    kubelet: Kubelet,
    control: ControlPlane,
    lab: SharedLab,
    programs: Programs,
    folder: TempDir,
}

impl World {
    /// Builds the lab, starts the control plane in its outside, and registers the nodes. No agent runs yet.
    ///
    /// # Errors
    /// When a program is missing, or something doesn't come up.
    pub fn new(sandbox: &Sandbox) -> Result<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("palisade-cluster-tests.").tempdir()?;
        let mut cluster = Cluster::default();
        for name in NODES {
            let node = Node { name: name.into(), labels: Labels::default(), addresses: Vec::new() };
            cluster.apply(Change::SetNode(node));
        }
        let layout = Layout::of(&cluster, &LayoutOptions::default())?;
        let outside = *layout.outside.first().context("the lab has no outside address")?;
        let nothing = Arc::new(|_: &Name| Box::new(NoEnforcement) as Box<dyn Enforce>);
        let lab = Lab::build(sandbox, layout, nothing)?;
        let namespace = lab.namespace(&Place::Outside).context("the lab has no outside")?;
        let (namespace, kubelet) = (namespace.try_clone()?, namespace.try_clone()?);
        let control = ControlPlane::start(namespace, outside, folder.path(), &programs)?;
        let lab = Arc::new(Mutex::new(lab));
        let kubelet = Kubelet::start(lab.clone(), kubelet, control.admin().to_owned())?;
        let world = Self { agents: BTreeMap::new(), kubelet, control, lab, programs, folder };
        eventually("both nodes are registered", SETTLE_WITHIN, || {
            let nodes = world.truth()?.nodes.len();
            Ok(if nodes == NODES.len() {
                Ok(())
            } else {
                Err(format!("{nodes} are; {:?}", world.kubelet.troubles()))
            })
        })?;
        Ok(world)
    }

    /// The control plane.
    pub fn control(&mut self) -> &mut ControlPlane {
        &mut self.control
    }

    /// What is run.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A folder for files of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lab, for oneself.
    pub fn lab(&self) -> std::sync::MutexGuard<'_, Lab> {
        lock(&self.lab)
    }

    /// The namespace of a place of the lab.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn namespace(&self, place: &Place) -> Result<Namespace> {
        let lab = self.lab();
        let namespace = lab.namespace(place).with_context(|| format!("the lab has no {place}"))?;
        Ok(namespace.try_clone()?)
    }

    /// The first address of a pod, as the lab has it.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn address(&self, pod: &str) -> Result<IpAddr> {
        let lab = self.lab();
        let place = lab.layout().pods.get(&key(pod)).with_context(|| format!("the lab has no pod {pod}"))?;
        place.addresses.first().copied().with_context(|| format!("{pod} has no address"))
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// When the API server doesn't accept it.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.control.kubectl(&["apply", "-f", "-"], manifests).map(|_| ())
    }

    /// `kubectl` with these words.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, words: &str) -> Result<String> {
        self.control.kubectl(&words.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Installs these CustomResourceDefinitions, and waits until they are served.
    ///
    /// # Errors
    /// When the API server doesn't accept them.
    pub fn install_crds(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let file = self.programs.crd(name).display().to_string();
            self.control.kubectl(&["apply", "--server-side", "-f", &file], "")?;
            let plural = name.split('.').next().unwrap_or_default();
            self.kubectl(&format!("wait --for=condition=established crd/{plural}.policy.networking.k8s.io"))?;
        }
        Ok(())
    }

    /// Installs what an operator installs: namespace, service account, rights and settings of the agents. The DaemonSet is
    /// there too, and makes no pods without its controller: the tests start the agents themselves.
    ///
    /// # Errors
    /// When the API server doesn't accept it.
    pub fn install(&self) -> Result<()> {
        let manifest = root().join("deploy/manifests/palisade.yaml").display().to_string();
        self.control.kubectl(&["apply", "-f", &manifest], "").map(|_| ())
    }

    /// The kubeconfig of the agents' service account, with a token in a file.
    ///
    /// # Errors
    /// When the account doesn't exist.
    pub fn agent_kubeconfig(&self) -> Result<PathBuf> {
        let token = self.control.token(ACCOUNT.0, ACCOUNT.1)?;
        self.control.kubeconfig("agent", &Identity::TokenFile(token), None)
    }

    /// Installs what the agents need, starts those of both nodes, and waits until they are ready.
    ///
    /// # Errors
    /// When one doesn't become ready.
    pub fn start_agents(&mut self) -> Result<()> {
        self.install()?;
        let kubeconfig = self.agent_kubeconfig()?;
        for node in NODES {
            let options = agent::Options { kubeconfig: kubeconfig.clone(), ..agent::Options::default() };
            self.start_agent(node, &options)?;
        }
        for node in NODES {
            self.agent(node)?.wait_ready(READY_WITHIN)?;
        }
        Ok(())
    }

    /// Starts the agent of a node instead of the one that may run there, and doesn't wait for it.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_agent(&mut self, node: &str, options: &agent::Options) -> Result<&mut Agent> {
        self.agents.remove(node);
        let agent = self.new_agent(node, options)?;
        Ok(self.agents.entry(node.into()).or_insert(agent))
    }

    /// Starts an agent beside the one that may run on the node.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn new_agent(&self, node: &str, options: &agent::Options) -> Result<Agent> {
        let namespace = self.namespace(&Place::Node(node.into()))?;
        Agent::start(self.programs.palisade(), &node.into(), namespace, self.folder.path(), options)
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// When none was started.
    pub fn agent(&mut self, node: &str) -> Result<&mut Agent> {
        self.agents.get_mut(node).with_context(|| format!("no agent was started on {node}"))
    }

    /// Kills the agent of a node.
    pub fn kill_agent(&mut self, node: &str) {
        self.agents.remove(node);
    }

    /// Runs `palisade` with these words at a place, as an operator does who may do everything.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn palisade(&self, place: &Place, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.programs.palisade());
        command.args(words).env("KUBECONFIG", self.control.admin()).env("HOME", self.folder());
        Ok(self.namespace(place)?.run(|| command.output())??)
    }

    /// Fails unless every agent finds its kernel as its plan says.
    ///
    /// # Errors
    /// With what `palisade node verify` prints.
    pub fn verify(&self) -> Result<()> {
        for (node, agent) in &self.agents {
            let socket = agent.socket().display().to_string();
            let output =
                self.palisade(&Place::Node(node.clone()), &["node", "--socket", &socket, "verify"])?;
            ensure!(output.status.success(), "node verify on {node}: {}", in_words(&output));
        }
        Ok(())
    }

    /// What the objects in the API server say, of the lab's nodes.
    ///
    /// # Errors
    /// When the API server doesn't answer.
    pub fn truth(&self) -> Result<Cluster> {
        let nodes: BTreeSet<Name> = NODES.into_iter().map(Name::from).collect();
        self.control.ask(async |client| truth::read(&client, &nodes).await)
    }

    /// Waits until the lab has exactly the pods that the API server has, and the API server knows their addresses.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn settle(&self) -> Result<Cluster> {
        eventually("every pod has its namespace and its address", SETTLE_WITHIN, || {
            let cluster = self.truth()?;
            let lab = self.lab();
            let here = &lab.layout().cluster.pods;
            let unsettled = cluster
                .pods
                .values()
                .find(|p| {
                    p.addresses.is_empty() || here.get(&p.key).is_none_or(|h| h.addresses != p.addresses)
                })
                .map(|p| p.key.to_string())
                .or_else(|| here.keys().find(|k| !cluster.pods.contains_key(k)).map(ToString::to_string));
            Ok(match unsettled {
                None => Ok(cluster),
                Some(pod) => Err(format!("{pod}; {}", self.kubelet.troubles().join("; "))),
            })
        })
    }

    /// Probes everything until kernel and engine agree everywhere.
    ///
    /// # Errors
    /// When they still disagree after the time that agents may take.
    pub fn must_agree(&self) -> Result<Seen> {
        let cluster = self.settle()?;
        let mut lab = self.lab();
        lab.update(&cluster)?;
        let began = Instant::now();
        let quick = ProbeOptions { retries: Vec::new(), ..ProbeOptions::default() };
        let plan = probe::Plan::of(lab.layout(), &quick);
        ensure!(!plan.probes.is_empty(), "nothing to probe");
        while began.elapsed() < FOLLOW_WITHIN {
            let report = probe::run(&lab, &plan, &quick, |_, _| {})?;
            if report.agrees() {
                return Ok(Seen(report));
            }
        }
        let report = probe::run(&lab, &plan, &ProbeOptions::default(), |_, _| {})?;
        if report.agrees() {
            return Ok(Seen(report));
        }
        let lines: Vec<String> = report.mismatches.iter().take(12).map(probe::Mismatch::summary).collect();
        let (bad, all) = (report.counts.mismatches, report.counts.probed);
        bail!("{bad} of {all} disagree:\n  {}", lines.join("\n  "))
    }

    /// What everybody has said last: to explain a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        let agents = self.agents.iter().map(|(n, a)| format!("agent of {n}:\n{}", last_lines(&a.log(), 25)));
        let others = [
            format!("API server:\n{}", self.control.log()),
            format!("kubelet: {}", self.kubelet.troubles().join("; ")),
        ];
        agents.chain(others).collect::<Vec<_>>().join("\n")
    }

    /// Takes everything away that a test may have made: agents and what they left in the kernel, objects, definitions.
    ///
    /// # Errors
    /// When something doesn't go.
    pub fn reset(&mut self) -> Result<()> {
        self.agents.clear();
        for file in std::fs::read_dir(self.folder())? {
            let path = file?.path();
            let is_of_agents = |n: &std::ffi::OsStr| n.to_string_lossy().starts_with("agent-");
            if path.extension().is_some_and(|e| e == "log") && path.file_name().is_some_and(is_of_agents) {
                std::fs::remove_file(path)?;
            }
        }
        self.control.ask(async |client| clear(&client).await)?;
        // A pod that is still on its way out must not be taken for one of the same name that comes next.
        eventually("every pod is gone", SETTLE_WITHIN, || {
            let pods = self.control.ask(async |client| names(&client, "/api/v1/pods").await)?;
            Ok(if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) })
        })?;
        let cluster = self.settle()?;
        self.lab().update(&cluster)?;
        for node in NODES {
            self.namespace(&Place::Node(node.into()))?.run(|| -> Result<()> {
                palisade_nft::remove(&mut palisade_nft::Kernel::open()?)?;
                Ok(())
            })??;
        }
        Ok(())
    }
}

/// How a program ended and what it printed.
#[must_use]
pub fn in_words(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// The key of `NAMESPACE/NAME`.
#[must_use]
pub fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ObjectKey::new(namespace, name)
}

/// What probes came to; kernel and engine agree about it.
#[derive(Debug)]
pub struct Seen(pub probe::Report);

impl Seen {
    /// Whether TCP connections from pod to pod on this port were made, at all addresses alike.
    ///
    /// # Errors
    /// When none was tried, or they came to different things.
    pub fn is_open(&self, from: &str, to: &str, port: u16) -> Result<bool> {
        let (from, to) = (key(from), key(to));
        let is_pod =
            |e: &Endpoint, wanted: &ObjectKey| matches!(e, Endpoint::Pod { key, .. } if key == wanted);
        let outcomes: BTreeSet<bool> = self
            .0
            .probes
            .iter()
            .filter(|t| {
                let p = &t.probe;
                let direct = matches!(&p.target, Target::Direct(e) if is_pod(e, &to));
                direct && is_pod(&p.source, &from) && p.protocol == Protocol::Tcp && p.port == port
            })
            .map(|t| matches!(t.outcome, Outcome::Connected { .. }))
            .collect();
        match outcomes.into_iter().collect::<Vec<_>>()[..] {
            [one] => Ok(one),
            [] => {
                let tried =
                    self.0.probes.iter().map(|t| format!("{:?}", t.probe.source)).collect::<BTreeSet<_>>();
                bail!("{from} → {to}:{port} was not probed; probed was from {tried:?}")
            }
            _ => bail!("{from} → {to}:{port} is open at some addresses and not at others"),
        }
    }

    /// Fails unless these TCP connections are open or closed as said.
    ///
    /// # Errors
    /// At the first that isn't.
    pub fn expect(&self, open: bool, from: &str, to: &str, port: u16) -> Result<()> {
        ensure!(
            self.is_open(from, to, port)? == open,
            "{from} → {to}:{port} is {}",
            if open { "closed" } else { "open" }
        );
        Ok(())
    }
}

/// Namespaces that the API server makes for itself.
const OWN_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// What tests make, in any namespace.
const NAMESPACED: [&str; 11] = [
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/serviceaccounts",
    "/api/v1/configmaps",
    "/api/v1/events",
    "/apis/apps/v1/daemonsets",
    "/apis/coordination.k8s.io/v1/leases",
    "/apis/events.k8s.io/v1/events",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
];

async fn clear(client: &Client) -> Result<()> {
    for name in names(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await? {
        if name.1.ends_with(".policy.networking.k8s.io") {
            delete(client, &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}", name.1))
                .await?;
        }
    }
    for path in NAMESPACED {
        let (base, plural) = path.rsplit_once('/').unwrap_or_default();
        for (namespace, name) in names(client, path).await? {
            let is_ours =
                !OWN_NAMESPACES.contains(&&*namespace) || plural == "pods" || plural == "networkpolicies";
            if is_ours {
                delete(client, &format!("{base}/namespaces/{namespace}/{plural}/{name}")).await?;
            }
        }
    }
    for (_, name) in names(client, "/api/v1/namespaces").await? {
        if !OWN_NAMESPACES.contains(&&*name) {
            delete_namespace(client, &name).await?;
        }
    }
    for kind in ["clusterroles", "clusterrolebindings"] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{kind}");
        for (_, name) in names(client, &path).await?.into_iter().filter(|(_, n)| n.starts_with("palisade")) {
            delete(client, &format!("{path}/{name}")).await?;
        }
    }
    Ok(())
}

/// Deletes an empty namespace. Its finalizer waits for the namespace controller, which this cluster hasn't got.
///
/// # Errors
/// When the API server refuses.
pub async fn delete_namespace(client: &Client, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{name}");
    delete(client, &path).await?;
    let mut namespace: Value = match client.request(Request::get(&path).body(Vec::new())?).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        other => other?,
    };
    namespace["spec"]["finalizers"] = Value::Array(Vec::new());
    let request = Request::put(format!("{path}/finalize"))
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&namespace)?)?;
    client.request::<Value>(request).await?;
    Ok(())
}

/// At once: a pod that is given time to end is still there when the next test makes one of the same name, and then gone.
async fn delete(client: &Client, path: &str) -> Result<()> {
    let request = Request::delete(format!("{path}?gracePeriodSeconds=0")).body(Vec::new())?;
    match client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|_| ()).with_context(|| path.to_owned())?),
    }
}

/// The namespaces and names of what is at a path.
async fn names(client: &Client, path: &str) -> Result<Vec<(String, String)>> {
    let list: Value = client.request(Request::get(path).body(Vec::new())?).await?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().map(|i| (text(&i["metadata"]["namespace"]), text(&i["metadata"]["name"]))).collect())
}
