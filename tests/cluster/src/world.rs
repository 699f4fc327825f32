//! A whole cluster, and the comparison of its kernels with the engine.

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
    agent::{Agent, AgentOptions},
    control_plane::{Company, ControlPlane, Identity},
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
/// The namespace and the service account of the agents.
pub const ACCOUNT: (&str, &str) = ("palisade-system", "palisade-agent");

/// How long agents may take to program a change before probes that disagree are a failure. Generous, since the machine may be busy
/// compiling.
const CONVERGE_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// How long an agent may take from its start until its first snapshot is programmed.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

/// A control plane, two nodes, and their agents.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: clients before servers, and all before their namespaces.
    agents: BTreeMap<Name, Agent>,
    kubelet: Kubelet,
    control: ControlPlane,
    lab: SharedLab,
    programs: Programs,
    folder: TempDir,
}

impl World {
    /// Builds the lab, starts the control plane outside of its nodes, and registers the nodes. No agent runs yet.
    ///
    /// # Errors
    /// If a program is missing, or something doesn't start.
    pub fn new(sandbox: &Sandbox) -> Result<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("palisade-cluster-tests.").tempdir()?;
        let mut cluster = Cluster::default();
        for name in NODES {
            let node = Node {
                name: name.into(),
                labels: Labels::default(),
                addresses: Vec::new(),
                pod_cidrs: Vec::new(),
            };
            cluster.apply(Change::SetNode(node));
        }
        let layout = Layout::of(&cluster, &LayoutOptions::default())?;
        let outside = *layout.outside.first().context("the lab has no outside address")?;
        let no_enforcement = Arc::new(|_: &Name| Box::new(NoEnforcement) as Box<dyn Enforce>);
        let lab = Lab::build(sandbox, layout, no_enforcement)?;
        let namespace = lab.namespace(&Place::Outside).context("the lab has no outside")?;
        let (namespace, kubelet) = (namespace.try_clone()?, namespace.try_clone()?);
        let control = ControlPlane::start(namespace, outside, folder.path(), &programs, Company::None)?;
        let lab = Arc::new(Mutex::new(lab));
        let kubelet = Kubelet::start(lab.clone(), kubelet, control.admin().to_owned())?;
        let world = Self { agents: BTreeMap::new(), kubelet, control, lab, programs, folder };
        eventually("both nodes are registered", SETTLE_WITHIN, || {
            let nodes = world.truth()?.nodes.len();
            Ok(if nodes == NODES.len() {
                Ok(())
            } else {
                Err(format!("{nodes} are registered; {:?}", world.kubelet.errors()))
            })
        })?;
        Ok(world)
    }

    /// The control plane.
    pub fn control(&mut self) -> &mut ControlPlane {
        &mut self.control
    }

    /// The programs and files.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A folder for files of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Locks the lab.
    pub fn lab(&self) -> std::sync::MutexGuard<'_, Lab> {
        lock(&self.lab)
    }

    /// The namespace of a place of the lab.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn namespace(&self, place: &Place) -> Result<Namespace> {
        let lab = self.lab();
        let namespace = lab.namespace(place).with_context(|| format!("the lab has no {place}"))?;
        Ok(namespace.try_clone()?)
    }

    /// The first address of a pod, as the lab has it.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn address(&self, pod: &str) -> Result<IpAddr> {
        let lab = self.lab();
        let place = lab.layout().pods.get(&key(pod)).with_context(|| format!("the lab has no pod {pod}"))?;
        place.addresses.first().copied().with_context(|| format!("{pod} has no address"))
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.control.kubectl(&["apply", "-f", "-"], manifests).map(|_| ())
    }

    /// Runs `kubectl` with these arguments, separated by spaces.
    ///
    /// # Errors
    /// If it fails.
    pub fn kubectl(&self, arguments: &str) -> Result<String> {
        self.control.kubectl(&arguments.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Installs these CustomResourceDefinitions, and waits until they are served.
    ///
    /// # Errors
    /// If the API server refuses them.
    pub fn install_crds(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let file = self.programs.crd(name).display().to_string();
            self.control.kubectl(&["apply", "--server-side", "-f", &file], "")?;
            let plural = name.split('.').next().unwrap_or_default();
            self.kubectl(&format!("wait --for=condition=established crd/{plural}.policy.networking.k8s.io"))?;
        }
        Ok(())
    }

    /// Installs the published manifest: namespace, service account, rights and settings of the agents. Its DaemonSet creates no pods
    /// without its controller; the tests start the agents.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn install(&self) -> Result<()> {
        self.install_manifest("palisade.yaml")
    }

    /// As [`Self::install`], with another of the published manifests.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn install_manifest(&self, file: &str) -> Result<()> {
        let manifest = root().join("deploy/manifests").join(file).display().to_string();
        self.control.kubectl(&["apply", "-f", &manifest], "").map(|_| ())
    }

    /// Writes a kubeconfig of the agents' service account, with a token in a file.
    ///
    /// # Errors
    /// If the account doesn't exist.
    pub fn agent_kubeconfig(&self) -> Result<PathBuf> {
        let token = self.control.token(ACCOUNT.0, ACCOUNT.1)?;
        self.control.kubeconfig("agent", &Identity::TokenFile(token), None)
    }

    /// Installs the manifest, starts the agents of both nodes, and waits until they are ready.
    ///
    /// # Errors
    /// If an agent doesn't become ready.
    pub fn start_agents(&mut self) -> Result<()> {
        self.install()?;
        let kubeconfig = self.agent_kubeconfig()?;
        for node in NODES {
            let options = AgentOptions { kubeconfig: kubeconfig.clone(), ..AgentOptions::default() };
            self.start_agent(node, &options)?;
        }
        for node in NODES {
            self.agent(node)?.wait_ready(READY_WITHIN)?;
        }
        Ok(())
    }

    /// Starts the agent of a node, replacing a running one, without waiting for it.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn start_agent(&mut self, node: &str, options: &AgentOptions) -> Result<&mut Agent> {
        self.agents.remove(node);
        let agent = self.new_agent(node, options)?;
        Ok(self.agents.entry(node.into()).or_insert(agent))
    }

    /// Starts another agent on a node.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn new_agent(&self, node: &str, options: &AgentOptions) -> Result<Agent> {
        let namespace = self.namespace(&Place::Node(node.into()))?;
        Agent::start(self.programs.palisade(), &node.into(), namespace, self.folder.path(), options)
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// If none was started.
    pub fn agent(&mut self, node: &str) -> Result<&mut Agent> {
        self.agents.get_mut(node).with_context(|| format!("no agent was started on {node}"))
    }

    /// Kills the agent of a node.
    pub fn kill_agent(&mut self, node: &str) {
        self.agents.remove(node);
    }

    /// Runs `palisade` with these arguments in a place, as a cluster administrator.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn palisade(&self, place: &Place, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.programs.palisade());
        command.args(arguments).env("KUBECONFIG", self.control.admin()).env("HOME", self.folder());
        Ok(self.namespace(place)?.run(|| command.output())??)
    }

    /// Runs `palisade node verify` on each node with an agent.
    ///
    /// # Errors
    /// If the kernel differs from the plan, with the output.
    pub fn verify(&self) -> Result<()> {
        for (node, agent) in &self.agents {
            let socket = agent.socket().display().to_string();
            let output =
                self.palisade(&Place::Node(node.clone()), &["node", "--socket", &socket, "verify"])?;
            ensure!(output.status.success(), "node verify on {node}: {}", describe(&output));
        }
        Ok(())
    }

    /// Returns the cluster as the API server has it, with the lab's nodes.
    ///
    /// # Errors
    /// If the API server doesn't respond.
    pub fn truth(&self) -> Result<Cluster> {
        let nodes: BTreeSet<Name> = NODES.into_iter().map(Name::from).collect();
        self.control.request(async |client| truth::read(&client, &nodes).await)
    }

    /// Waits until the lab has the same pods as the API server, and all have their addresses.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn settle(&self) -> Result<Cluster> {
        eventually("every pod has a network namespace and an address", SETTLE_WITHIN, || {
            let cluster = self.truth()?;
            let lab = self.lab();
            let in_lab = &lab.layout().cluster.pods;
            let unsettled = cluster
                .pods
                .values()
                .find(|p| {
                    p.addresses.is_empty() || in_lab.get(&p.key).is_none_or(|h| h.addresses != p.addresses)
                })
                .map(|p| p.key.to_string())
                .or_else(|| in_lab.keys().find(|k| !cluster.pods.contains_key(k)).map(ToString::to_string));
            Ok(match unsettled {
                None => Ok(cluster),
                Some(pod) => Err(format!("{pod}; {}", self.kubelet.errors().join("; "))),
            })
        })
    }

    /// Probes all connections until kernel and engine agree.
    ///
    /// # Errors
    /// If they still disagree after the time that agents may take.
    pub fn must_agree(&self) -> Result<ProbeResults> {
        self.must_agree_within(CONVERGE_WITHIN)
    }

    /// As [`Self::must_agree`], where agents may take longer than usual, such as to notice a new definition.
    ///
    /// # Errors
    /// If kernel and engine still disagree after that time.
    pub fn must_agree_within(&self, limit: Duration) -> Result<ProbeResults> {
        let cluster = self.settle()?;
        let mut lab = self.lab();
        lab.update(&cluster)?;
        let start = Instant::now();
        let quick = ProbeOptions { retries: Vec::new(), ..ProbeOptions::default() };
        let plan = probe::Plan::of(lab.layout(), &quick);
        ensure!(!plan.probes.is_empty(), "nothing to probe");
        while start.elapsed() < limit {
            let report = probe::run(&lab, &plan, &quick, |_, _| {})?;
            if report.agrees() {
                return Ok(ProbeResults(report));
            }
        }
        let report = probe::run(&lab, &plan, &ProbeOptions::default(), |_, _| {})?;
        if report.agrees() {
            return Ok(ProbeResults(report));
        }
        let lines: Vec<String> = report.mismatches.iter().take(12).map(probe::Mismatch::summary).collect();
        let (bad, all) = (report.counts.mismatches, report.counts.probed);
        bail!("{bad} of {all} disagree:\n  {}", lines.join("\n  "))
    }

    /// Returns the last lines of all logs, to explain a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        let agents = self.agents.iter().map(|(n, a)| format!("agent of {n}:\n{}", last_lines(&a.log(), 25)));
        let others = [
            format!("API server:\n{}", self.control.log()),
            format!("kubelet: {}", self.kubelet.errors().join("; ")),
        ];
        agents.chain(others).collect::<Vec<_>>().join("\n")
    }

    /// Removes everything that a test may have created: agents and their tables in the kernel, objects, definitions.
    ///
    /// # Errors
    /// If something can't be removed.
    pub fn reset(&mut self) -> Result<()> {
        self.agents.clear();
        for file in std::fs::read_dir(self.folder())? {
            let path = file?.path();
            let is_agent_log = |n: &std::ffi::OsStr| n.to_string_lossy().starts_with("agent-");
            if path.extension().is_some_and(|e| e == "log") && path.file_name().is_some_and(is_agent_log) {
                std::fs::remove_file(path)?;
            }
        }
        self.control.request(async |client| clear(&client).await)?;
        // A pod that is still being deleted must not be mistaken for a later one with the same name.
        eventually("every pod is deleted", SETTLE_WITHIN, || {
            let pods = self.control.request(async |client| names(&client, "/api/v1/pods").await)?;
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

/// Describes the exit status and the output of a program.
#[must_use]
pub fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Parses `NAMESPACE/NAME`.
#[must_use]
pub fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ObjectKey::new(namespace, name)
}

/// The results of probes for which kernel and engine agree.
#[derive(Debug)]
pub struct ProbeResults(pub probe::Report);

impl ProbeResults {
    /// Whether TCP connections from pod to pod on this port were established.
    ///
    /// # Errors
    /// If none was probed, or the results differ by address.
    pub fn is_open(&self, from: &str, to: &str, port: u16) -> Result<bool> {
        let (from, to) = (key(from), key(to));
        let is_pod = |e: &Endpoint, pod: &ObjectKey| matches!(e, Endpoint::Pod { key, .. } if key == pod);
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
                let sources =
                    self.0.probes.iter().map(|t| format!("{:?}", t.probe.source)).collect::<BTreeSet<_>>();
                bail!("{from} → {to}:{port} was not probed; the sources of probes are {sources:?}")
            }
            _ => bail!("{from} → {to}:{port} is open at some addresses and not at others"),
        }
    }

    /// Fails unless TCP connections from pod to pod on this port are open, or closed, as expected.
    ///
    /// # Errors
    /// If they are not.
    pub fn expect(&self, open: bool, from: &str, to: &str, port: u16) -> Result<()> {
        ensure!(
            self.is_open(from, to, port)? == open,
            "{from} → {to}:{port} is {}",
            if open { "closed" } else { "open" }
        );
        Ok(())
    }
}

/// The namespaces that the API server creates.
const OWN_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The collections of objects that tests create in any namespace.
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

/// Deletes an empty namespace, and removes its finalizer, since this cluster has no namespace controller.
///
/// # Errors
/// If the API server refuses it.
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

/// Deletes an object without a grace period. Otherwise a pod could still exist when the next test creates one with the same name.
async fn delete(client: &Client, path: &str) -> Result<()> {
    let request = Request::delete(format!("{path}?gracePeriodSeconds=0")).body(Vec::new())?;
    match client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|_| ()).with_context(|| path.to_owned())?),
    }
}

/// Returns the namespaces and names of the objects of a collection.
async fn names(client: &Client, path: &str) -> Result<Vec<(String, String)>> {
    let list: Value = client.request(Request::get(path).body(Vec::new())?).await?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().map(|i| (text(&i["metadata"]["namespace"]), text(&i["metadata"]["name"]))).collect())
}
