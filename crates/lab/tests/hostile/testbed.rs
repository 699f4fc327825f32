//! A small cluster with agents: pods on two nodes, and the outside.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use libtest_mimic::Failed;
use palisade_lab::{Lab, Layout, LayoutOptions, Place, Sandbox, enforce::NoEnforcement, with_causes};
use palisade_netns::rtnetlink::Netlink;
use palisade_policy::{
    Change, Cluster, Family, Labels, Name, Namespace, ObjectKey, Pod, Protocol, Selector, Service,
    ServicePort, TargetPort,
};
use palisade_testkit::running_pod;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{self, Agent, NAMESPACE, REVISION};

/// The node under test.
pub(crate) const NEAR: &str = "n1";
/// The other node.
pub(crate) const FAR: &str = "n2";

/// The pods of each node. Each is labeled `app=<its name>`.
const PODS: [(&str, &[&str]); 2] =
    [(NEAR, &["srv", "bad", "open", "iso", "client", "both"]), (FAR, &["far-srv", "far-bad", "far-client"])];

/// The port of the service of `srv`.
pub(crate) const SERVICE_PORT: u16 = 8000;
/// The port of the pod `srv` behind the service.
const TARGET_PORT: u16 = 7000;

/// How pods are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodNetwork {
    /// Each pod has a veth pair and a route.
    Routed,
    /// All pods of a node are on a bridge, with br_netfilter.
    Bridged,
}

/// A lab whose agents are separate processes.
pub(crate) struct Testbed {
    // Dropped first: agents end before the namespaces in which they run.
    agents: BTreeMap<Name, Agent>,
    pub(crate) lab: Lab,
    folder: TempDir,
    policies: BTreeMap<String, Value>,
    hidden: Vec<String>,
    revision: usize,
    labels: BTreeMap<String, String>,
    /// Annotations of pods, and of the namespace of all pods, whose name is empty.
    annotations: BTreeMap<String, BTreeMap<String, String>>,
    /// Two pods that have each other's addresses in the manifests.
    exchanged: Option<[String; 2]>,
}

/// Returns the key of a pod.
pub(crate) fn key(pod: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, pod)
}

/// Returns the place with this name: `outside`, a node, or a pod.
pub(crate) fn place(name: &str) -> Place {
    match name {
        "outside" => Place::Outside,
        NEAR | FAR => Place::Node(name.into()),
        pod => Place::Pod(key(pod)),
    }
}

fn pod(name: &str, node: &str) -> Pod {
    Pod { node: Some(node.into()), ..running_pod(NAMESPACE, name) }
}

/// Returns a service of the pods labeled `app=<app>`, which the lab translates as kube-proxy does.
fn service(app: &str) -> Service {
    Service {
        selector: Some(Selector::of_labels([("app", app)])),
        ports: vec![ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: SERVICE_PORT,
            target: TargetPort::Number(TARGET_PORT),
            node_port: None,
        }],
        ..Service::new(key(app))
    }
}

impl Testbed {
    /// Builds the network, without agents and policies.
    pub(crate) fn build(sandbox: &Sandbox, kind: PodNetwork) -> Result<Self, Failed> {
        let mut cluster = Cluster::default();
        cluster.apply(Change::SetNamespace(Namespace::new(NAMESPACE, &Labels::default())));
        for (node, pods) in PODS {
            pods.iter().for_each(|name| cluster.apply(Change::SetPod(pod(name, node))));
        }
        cluster.apply(Change::SetService(service("srv")));
        let options = LayoutOptions { bridged: kind == PodNetwork::Bridged, ..LayoutOptions::default() };
        let layout = Layout::of(&cluster, &options).map_err(|e| with_causes(&e))?;
        let nothing = Arc::new(|_: &Name| Box::new(NoEnforcement) as Box<dyn palisade_lab::Enforce>);
        let lab = Lab::build(sandbox, layout, nothing).map_err(|e| with_causes(&e))?;
        let folder = tempfile::Builder::new().prefix("palisade-hostile").tempdir()?;
        fs::create_dir(folder.path().join("manifests"))?;
        let mut testbed = Self {
            agents: BTreeMap::new(),
            lab,
            folder,
            policies: BTreeMap::new(),
            hidden: Vec::new(),
            revision: 0,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            exchanged: None,
        };
        testbed.write()?;
        Ok(testbed)
    }

    /// Returns the address of a place.
    pub(crate) fn address(&self, name: &str, family: Family) -> Result<IpAddr, Failed> {
        let layout = self.lab.layout();
        let addresses = match place(name) {
            Place::Pod(key) => &layout.pods.get(&key).ok_or_else(|| format!("no pod {name}"))?.addresses,
            Place::Node(node) => &layout.nodes[&node],
            Place::Outside => &layout.outside,
        };
        let found = addresses.iter().copied().find(|a| Family::of(*a) == family);
        found.ok_or_else(|| format!("{name} has no {family:?} address").into())
    }

    /// Returns the address of the service of `srv`.
    pub(crate) fn service(&self, family: Family) -> Result<IpAddr, Failed> {
        let services = &self.lab.layout().cluster.services;
        let addresses = &services.get(&key("srv")).ok_or("no service")?.addresses;
        let found = addresses.iter().copied().find(|a| Family::of(*a) == family);
        found.ok_or_else(|| "the service has no address".into())
    }

    /// Runs `f` in the namespace of a place.
    pub(crate) fn within<T: Send>(&self, name: &str, f: impl FnOnce() -> T + Send) -> Result<T, Failed> {
        self.lab.run_in(&place(name), f).map_err(|e| with_causes(&e).into())
    }

    /// Returns the directory of the manifests and of the agents' files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts an agent and waits until it is ready.
    pub(crate) fn start(&mut self, node: &str) -> Result<&mut Agent, Failed> {
        self.launch(node)?.await_ready()?;
        self.agent(node)
    }

    /// Starts an agent, without waiting until it is ready.
    pub(crate) fn launch(&mut self, node: &str) -> Result<&mut Agent, Failed> {
        let agent = Agent::start(&self.lab, self.folder.path(), &node.into())?;
        self.agents.insert(node.into(), agent);
        self.agent(node)
    }

    /// Returns the agent of a node.
    pub(crate) fn agent(&mut self, node: &str) -> Result<&mut Agent, Failed> {
        self.agents.get_mut(node).ok_or_else(|| format!("no agent runs on {node}").into())
    }

    /// Kills an agent with SIGKILL.
    pub(crate) fn kill(&mut self, node: &str) {
        self.agents.remove(node);
    }

    /// Runs `palisade agent --remove`.
    pub(crate) fn remove(&mut self, node: &str) -> Result<(), Failed> {
        self.kill(node);
        agent::remove(&self.lab, self.folder.path(), &node.into())
    }

    /// Sets policies and waits until every running agent has programmed them.
    pub(crate) fn apply(&mut self, policies: &[Value]) -> Result<(), Failed> {
        self.write_policies(policies)?;
        self.await_agents()
    }

    /// Waits until every running agent has programmed the current revision.
    pub(crate) fn await_agents(&mut self) -> Result<(), Failed> {
        let revision = self.revision;
        self.agents.values_mut().try_for_each(|agent| agent.await_revision(revision))
    }

    /// Sets policies without waiting for the agents.
    pub(crate) fn write_policies(&mut self, policies: &[Value]) -> Result<(), Failed> {
        for policy in policies {
            let name = policy["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            self.policies.insert(name, policy.clone());
        }
        self.write()
    }

    /// Leaves a policy out of the next revision.
    pub(crate) fn forget(&mut self, name: &str) {
        self.policies.remove(name);
    }

    /// Deletes a policy and waits until every running agent has applied it.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), Failed> {
        self.policies.remove(name);
        self.write()?;
        self.await_agents()
    }

    /// Removes a pod from the manifests, or adds it again. Its network namespace stays.
    pub(crate) fn hide(&mut self, pod: &str, hidden: bool) -> Result<(), Failed> {
        self.hidden.retain(|h| h != pod);
        if hidden {
            self.hidden.push(pod.to_owned());
        }
        self.write()?;
        self.await_agents()
    }

    /// Sets a label of the namespace of all pods, and waits until every running agent has applied it.
    pub(crate) fn label_namespace(&mut self, key: &str, value: &str) -> Result<(), Failed> {
        self.labels.insert(key.to_owned(), value.to_owned());
        self.write()?;
        self.await_agents()
    }

    /// Sets an annotation of a pod, or of the namespace of all pods if `pod` is empty. Waits until every running agent has applied it.
    pub(crate) fn annotate(&mut self, pod: &str, key: &str, value: &str) -> Result<(), Failed> {
        self.annotations.entry(pod.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self.write()?;
        self.await_agents()
    }

    /// Exchanges the addresses of two pods, in their namespaces and in the manifests, and waits until every running agent has applied it.
    pub(crate) fn exchange_addresses(&mut self, pods: [&str; 2]) -> Result<(), Failed> {
        let layout = self.lab.layout();
        let [one, other] = pods.map(|pod| layout.pods[&key(pod)].addresses.clone());
        for (pod, old, new) in [(pods[0], &one, &other), (pods[1], &other, &one)] {
            self.within(pod, || -> Result<(), Failed> {
                let index = nix::net::if_::if_nametoindex("eth0")?;
                let mut netlink = Netlink::open()?;
                for (old, new) in old.iter().zip(new) {
                    netlink.remove_address(index, *old).address(index, *new, false);
                }
                Ok(netlink.commit()?)
            })??;
        }
        self.exchanged = Some(pods.map(str::to_owned));
        self.write()?;
        self.await_agents()
    }

    /// The pod whose addresses a pod has in the manifests.
    fn exchanged<'a>(&'a self, pod: &'a str) -> &'a str {
        match &self.exchanged {
            Some([one, other]) if one == pod => other,
            Some([one, other]) if other == pod => one,
            _ => pod,
        }
    }

    fn write(&mut self) -> Result<(), Failed> {
        self.revision += 1;
        let layout = self.lab.layout();
        let mut labels = json!({REVISION: self.revision.to_string()});
        for (key, value) in &self.labels {
            labels[key] = json!(value);
        }
        let mut items = vec![json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": labels, "annotations": self.annotations.get("")}})];
        for (name, addresses) in &layout.nodes {
            let addresses: Vec<Value> =
                addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
            let status = json!({"addresses": addresses});
            items.push(
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": **name}, "status": status}),
            );
        }
        for (key, at) in layout.pods.iter().filter(|(key, _)| !self.hidden.iter().any(|h| **h == *key.name)) {
            let addresses = &layout.pods[&self::key(self.exchanged(&key.name))].addresses;
            let ips: Vec<Value> = addresses.iter().map(|a| json!({"ip": a})).collect();
            let metadata = json!({"name": *key.name, "namespace": NAMESPACE, "labels": {"app": *key.name},
                "annotations": self.annotations.get(&*key.name)});
            items.push(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {"nodeName": *at.node, "containers": [{"name": "c", "image": "c"}]},
                "status": {"phase": "Running", "podIPs": ips},
            }));
        }
        items.extend(self.policies.values().cloned());
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let path: PathBuf = self.folder.path().join("manifests");
        // Replaced atomically. The agent ignores files whose name starts with a dot.
        fs::write(path.join(".new"), serde_json::to_vec(&list)?)?;
        fs::rename(path.join(".new"), path.join("all.json"))?;
        Ok(())
    }
}

/// Returns a policy that selects the pods labeled `app=<app>`. `spec` has its rules and types.
pub(crate) fn policy(name: &str, app: &str, mut spec: Value) -> Value {
    spec["podSelector"] = json!({"matchLabels": {"app": app}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

/// Returns a policy by which only these pods may connect to `app`.
pub(crate) fn ingress_from(app: &str, from: &[&str]) -> Value {
    let peers: Vec<Value> =
        from.iter().map(|f| json!({"podSelector": {"matchLabels": {"app": f}}})).collect();
    let rules = if peers.is_empty() { json!([]) } else { json!([{"from": peers}]) };
    policy(&format!("to-{app}"), app, json!({"policyTypes": ["Ingress"], "ingress": rules}))
}

/// Returns a policy by which `app` may open no connection.
pub(crate) fn no_egress(app: &str) -> Value {
    policy(&format!("from-{app}"), app, json!({"policyTypes": ["Egress"], "egress": []}))
}

/// Returns the policies of most tests: only the clients may connect to `srv`, `far-srv` and `both`, and `both` and `iso` may
/// open no connection.
pub(crate) fn default_policies() -> Vec<Value> {
    let clients = ["client", "far-client"];
    vec![
        ingress_from("srv", &clients),
        ingress_from("both", &clients),
        no_egress("both"),
        no_egress("iso"),
        ingress_from("far-srv", &clients),
    ]
}
