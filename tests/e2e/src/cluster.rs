//! The whole cluster.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use palisade_cluster_tests::{
    ControlPlane, Process, Programs,
    control_plane::{Company, Identity},
    eventually,
    process::last_lines,
    truth,
};
use palisade_netns::namespace::Namespace;
use palisade_policy::Cluster as Objects;
use serde_json::{Value, json};

use crate::{
    images,
    namespaces::on_thread,
    network,
    node::{Node, ProxyMode},
    programs,
    progress::part,
    stage,
};

/// The address of the cluster's name server.
pub const DNS: &str = "10.96.0.10";

/// How long something may take that is quick on an idle machine: this one may be compiling.
pub const SLOW: Duration = Duration::from_secs(600);

/// A running cluster. Dropping it ends all of its programs.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: clients before servers.
    nodes: Vec<Node>,
    _controllers: Vec<Process>,
    control: ControlPlane,
    programs: Programs,
}

impl Cluster {
    /// Starts everything but Palisade, and waits until the nodes are ready and names are resolved.
    ///
    /// # Errors
    /// If something doesn't start, with the end of its log.
    pub fn start(cgroups: &str) -> Result<Self> {
        let programs = Programs::find()?;
        let archive = stage::folder("images.tar");
        let nodes = stage::folder("programs/node");
        part("images", || {
            images::pack(images::Programs { nodes: &nodes, palisade: programs.palisade() }, &archive)
        })?;
        network::build_switch()?;
        let folder = stage::folder("control");
        fs::create_dir_all(&folder)?;
        let namespace = Namespace::current()?;
        // Images are unpacked while the API server starts.
        let (control, nodes) = std::thread::scope(|scope| {
            let archive = &archive;
            let nodes = [1, 2].map(|number| {
                scope.spawn(move || {
                    let mut node = Node::create(number, cgroups)?;
                    node.start_runtime(archive)?;
                    anyhow::Ok(node)
                })
            });
            let address = network::outside(1)[0];
            let control = part("control plane", || {
                ControlPlane::start(namespace, address, &folder, &programs, Company::Controllers)
            });
            let nodes = part("container runtimes and images", || {
                let joined = nodes.map(|n| n.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                joined.into_iter().collect::<Result<Vec<_>>>()
            });
            anyhow::Ok((control?, nodes?))
        })?;
        // Unpacked on both nodes; the archive would only take memory.
        fs::remove_file(&archive)?;
        let controllers = vec![controller_manager(&control, &folder)?, scheduler(&control, &folder)?];
        let mut cluster = Self { nodes, _controllers: controllers, control, programs };
        let started = part("nodes and name server", || cluster.start_nodes());
        started.map_err(|e| e.context(cluster.logs()))?;
        Ok(cluster)
    }

    fn start_nodes(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start_kubelet(&self.control)?;
            node.start_proxy(&self.control, ProxyMode::Iptables)?;
        }
        for (number, name) in (1..).zip(network::NODES) {
            self.eventually(&format!("node {name} is registered"), |c| {
                Ok(c.kubectl(&["get", "node", name]).map_err(|e| format!("{e:#}")))
            })?;
            let networks = network::pods(number).map(|(net, length)| format!("{net}/{length}"));
            let patch = json!({"spec": {"podCIDR": networks[0], "podCIDRs": networks}}).to_string();
            self.kubectl(&["patch", "node", name, "--patch", &patch])?;
        }
        self.apply(include_str!("../manifests/coredns.yaml"))?;
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", &timeout(SLOW)])?;
        self.rolled_out("kube-system", "deployment/coredns")
    }

    /// Polls until `attempt` succeeds, for a long time, and fails at once if a program of a node has ended.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn eventually<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&Self) -> Result<Result<T, String>>,
    ) -> Result<T> {
        eventually(what, SLOW, || {
            for node in &mut self.nodes {
                node.check()?;
            }
            let result = attempt(self)?;
            if result.is_err() {
                // Every attempt starts a program.
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(result)
        })
    }

    /// Waits until all pods of a workload are those of its current template, and ready.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn rolled_out(&self, namespace: &str, workload: &str) -> Result<()> {
        self.kubectl(&["-n", namespace, "rollout", "status", workload, &timeout(SLOW)]).map(|_| ())
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by name.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|n| n.name() == name).with_context(|| format!("no node {name}"))
    }

    /// Replaces kube-proxy on every node by one in this mode.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn set_proxy_mode(&mut self, mode: ProxyMode) -> Result<()> {
        self.nodes.iter_mut().try_for_each(|n| n.start_proxy(&self.control, mode))
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The programs and files.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.command("kubectl", &["apply", "-f", "-"], manifests).map(|_| ())
    }

    /// Runs `kubectl`, and returns its standard output.
    ///
    /// # Errors
    /// If it fails, with its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.command("kubectl", arguments, "")
    }

    /// Runs a program of the control plane as the cluster's administrator, and returns its standard output.
    ///
    /// # Errors
    /// If it fails, with its standard error.
    pub fn command(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let start = Instant::now();
        let output = loop {
            let mut command = Command::new(programs::control_program(program));
            command.args(arguments);
            let output = self.output(command, input)?;
            // What kubectl does is the same when it is done again. The other program is helm.
            let again = program == "kubectl" && is_overloaded(&output) && start.elapsed() < SLOW;
            if !again {
                break output;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            bail!("{program} {}: {}\n{}", arguments.join(" "), text(&output.stderr), text(&output.stdout));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs any program in the control plane's namespaces as the cluster's administrator.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn output(&self, mut command: Command, input: &str) -> Result<Output> {
        command.env("KUBECONFIG", self.control.admin()).env("HOME", stage::folder("control"));
        command.env("PATH", programs::path());
        self.control.run_program(command, input)
    }

    /// An object, as the API server has it.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["get", "-o", "json"], arguments].concat();
        Ok(serde_json::from_str(&self.kubectl(&arguments)?)?)
    }

    /// All objects that matter for policies, decoded by the crate that decodes manifests.
    ///
    /// # Errors
    /// If the API server doesn't respond.
    pub fn objects(&self) -> Result<Objects> {
        let nodes = network::NODES.into_iter().map(Into::into).collect();
        self.control.request(async |client| truth::read(&client, &nodes).await)
    }

    /// The network namespace of a pod.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn pod_network(&self, namespace: &str, pod: &str) -> Result<Namespace> {
        let object = self.get(&["pod", "-n", namespace, pod])?;
        let address: IpAddr = object["status"]["podIP"]
            .as_str()
            .with_context(|| format!("pod {namespace}/{pod} has no address"))?
            .parse()?;
        let node = self.node(object["spec"]["nodeName"].as_str().unwrap_or_default())?;
        network_with(node, address)?
            .with_context(|| format!("no network namespace on {} has {address}", node.name()))
    }

    /// Deletes namespaces, and waits until they are gone.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn delete_namespaces(&self, names: &[&str]) -> Result<()> {
        let limit = timeout(SLOW);
        let arguments =
            [&["delete", "namespace", "--ignore-not-found", "--wait=true", limit.as_str()], names].concat();
        self.kubectl(&arguments).map(|_| ())
    }

    /// The ends of all logs, to explain a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        let nodes = self.nodes.iter().map(Node::logs);
        let controllers =
            self._controllers.iter().map(|p| format!("{}:\n{}", p.name(), last_lines(&p.log(), 10)));
        let pods = self.kubectl(&["get", "pods", "-A", "-o", "wide"]).unwrap_or_else(|e| format!("{e:#}"));
        nodes.chain(controllers).chain([pods]).collect::<Vec<_>>().join("\n")
    }
}

/// Whether a program has failed because the machine was too busy for the API server to answer in time.
fn is_overloaded(output: &Output) -> bool {
    const SIGNS: [&str; 6] = [
        "TLS handshake timeout",
        "client connection lost",
        "did not complete within requested timeout",
        "etcdserver: request timed out",
        "etcdserver: leader changed",
        "i/o timeout",
    ];
    let errors = String::from_utf8_lossy(&output.stderr);
    !output.status.success()
        && SIGNS.iter().any(|sign| errors.contains(sign))
        && !errors.contains("exit code")
}

/// Finds the network namespace of a node's pods that has this address.
fn network_with(node: &Node, address: IpAddr) -> Result<Option<Namespace>> {
    for entry in fs::read_dir(node.path("/run/netns"))? {
        let Ok(file) = fs::File::open(entry?.path()) else { continue };
        let found = on_thread(|| {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)?;
            // Only an address of this namespace can be bound.
            UdpSocket::bind((address, 0)).is_ok().then(Namespace::current).transpose()
        });
        // The namespace of a pod that has ended meanwhile can't be entered.
        if let Ok(Some(namespace)) = found {
            return Ok(Some(namespace));
        }
    }
    Ok(None)
}

fn timeout(duration: Duration) -> String {
    format!("--timeout={}s", duration.as_secs())
}

fn controller_manager(control: &ControlPlane, folder: &Path) -> Result<Process> {
    let kubeconfig = kubeconfig(control, "kube-controller-manager")?;
    let flags = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--root-ca-file={}", control.authority().certificate().display()),
        format!("--service-account-private-key-file={}", control.token_key().display()),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        "--allocate-node-cidrs=false".into(),
        "--bind-address=127.0.0.1".into(),
        // A busy machine is no reason to evict pods.
        "--node-monitor-grace-period=10m".into(),
    ];
    start(control, "kube-controller-manager", &flags, folder)
}

fn scheduler(control: &ControlPlane, folder: &Path) -> Result<Process> {
    let kubeconfig = kubeconfig(control, "kube-scheduler")?;
    let flags = [
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
    ];
    start(control, "kube-scheduler", &flags, folder)
}

fn kubeconfig(control: &ControlPlane, name: &str) -> Result<String> {
    let user = control.authority().user(&format!("system:{name}"), "palisade-e2e")?;
    Ok(control.kubeconfig(name, &Identity::Certificate(user), None)?.display().to_string())
}

fn start(control: &ControlPlane, name: &str, flags: &[String], folder: &Path) -> Result<Process> {
    let mut command = Command::new(programs::node_program(name));
    command.args(flags).current_dir(folder);
    Process::start(name, control.namespace(), command, folder)
}

#[expect(unused_imports, reason = "draft")]
use {PathBuf as _, ensure as _};
