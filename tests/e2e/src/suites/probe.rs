//! `palisade test --probe`: connections of assertions from the cluster's own pods, as a user with the rights that the
//! documentation names opens them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{control_plane::Identity, programs::root};
use serde_json::{Value, json};

use crate::{
    Cluster, palisade,
    pods::{self, PORT},
    progress::say,
    stage, suites,
};

const NAME: &str = "probed";
const USER: &str = "prober";
/// A pod of each label on each node.
const PODS: [(&str, &str, &str); 4] =
    [("web-1", "n1", "web"), ("web-2", "n2", "web"), ("db-1", "n1", "db"), ("other-1", "n2", "other")];

/// What holds, with packets of both protocols. Nothing listens at the port of UDP: the kernel of the pod says so.
const HOLDS: &str = "\
schema: palisade.test/v1
assertions:
- name: web reaches db
  from: {namespace: probed, pods: {app: web}}
  to: {namespace: probed, pods: {app: db}}
  ports: [8080, 8081/UDP]
  expect: allow
- name: only web reaches db
  from: {namespace: probed, pods: {app: web}}
  to: {namespace: probed, pods: {app: db}}
  ports: [8080]
  expect: only
";

/// What fails, by the engine and by packets.
const FAILS: &str = "\
schema: palisade.test/v1
assertions:
- name: other reaches db
  from: probed/other-1
  to: probed/db-1
  ports: [8080]
  expect: allow
";

/// Runs the suite.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    let prober = user(cluster)?;
    pods::apply(cluster, &objects())?;
    pods::wait_ready(cluster, NAME)?;
    let holds = written("holds.yaml", HOLDS)?;

    refused(cluster, &prober, &holds)?;
    pods::apply(cluster, &rights())?;
    let before = cluster.get(&["endpointslices", "-n", NAME, "-l", "kubernetes.io/service-name=db"])?;
    let output = eventually_allowed(cluster, &prober, &holds)?;
    ensure!(code(&output) == 0, "assertions hold: {}", text(&output));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        answer["results"][1]["messages"].to_string().contains("--probe-namespace leaves out"),
        "the name server could send, too: {answer:#}"
    );
    for result in answer["results"].as_array().context("no results")? {
        let said = result["messages"].to_string();
        ensure!(
            result["status"] == "holds" && said.contains("tried, 0 break it") && !said.contains("unclear"),
            "{result:#}"
        );
    }
    let tried = answer["results"][0]["messages"][0].as_str().unwrap_or_default().to_owned();
    say(&format!("two assertions hold, with packets from ephemeral containers ({tried})"));

    let output = test(cluster, &prober, &written("fails.yaml", FAILS)?, &[])?;
    ensure!(code(&output) == 1 && text(&output).contains("no answer"), "{}", text(&output));
    ensure!(!text(&output).contains("disagree"), "packets and engine agree: {}", text(&output));
    untouched(cluster, &before)?;
    disagrees(cluster, &prober, &holds)?;
    without_image(cluster, &prober, &holds)?;
    cluster.delete_namespaces(&[NAME])
}

fn objects() -> Vec<Value> {
    let only_web = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "db", "namespace": NAME},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": NAME},
        "spec": {"selector": {"app": "db"}, "ports": [{"port": PORT, "protocol": "TCP"}]},
    });
    let mut namespace = pods::namespace(NAME);
    // What the container may do is within the strictest standard, which is only warned about here: the servers are not.
    namespace["metadata"]["labels"] = json!({"pod-security.kubernetes.io/warn": "restricted"});
    let servers = PODS.map(|(name, node, app)| pods::server(NAME, name, node, &[("app", app)]));
    [vec![namespace, only_web, service], servers.to_vec()].concat()
}

/// The rights that docs/assertions.md names, and those to read the cluster.
fn rights() -> Vec<Value> {
    let binding = |kind: &str, name: &str, namespace: Option<&str>, role: [&str; 2]| {
        let mut binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role[0], "name": role[1]},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
        });
        if let Some(namespace) = namespace {
            binding["metadata"]["namespace"] = json!(namespace);
        }
        binding
    };
    let role = |name: &str, namespace: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
            "rules": rules,
        })
    };
    vec![
        role(
            "palisade-prober",
            NAME,
            json!([
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch"]},
            ]),
        ),
        binding("RoleBinding", "palisade-probers", Some(NAME), ["Role", "palisade-prober"]),
        role(
            "palisade-image",
            palisade::NAMESPACE,
            json!([{"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["list"]}]),
        ),
        binding("RoleBinding", "palisade-image", Some(palisade::NAMESPACE), ["Role", "palisade-image"]),
    ]
}

/// Writes the kubeconfig of a user who may read the cluster and change nothing, by the ClusterRole that is shipped.
fn user(cluster: &Cluster) -> Result<PathBuf> {
    let certificate = cluster.control().authority().user(USER, "probe-tests")?;
    let path = root().join("deploy/manifests/explainer.yaml");
    cluster.apply(&fs::read_to_string(&path).with_context(|| path.display().to_string())?)?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "probe-tests-explainer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "palisade-explainer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    pods::apply(cluster, &[binding])?;
    cluster.control().kubeconfig(USER, &Identity::Certificate(certificate), None)
}

fn written(name: &str, text: &str) -> Result<PathBuf> {
    let path = stage::folder("control").join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn test(cluster: &Cluster, kubeconfig: &Path, file: &Path, rest: &[&str]) -> Result<Output> {
    let mut command = Command::new(cluster.programs().palisade());
    command.arg("test").arg(file).args(["--live", "--probe", "-o", "json"]).args(rest);
    command.args(["--probe-namespace", NAME]).arg("--kubeconfig").arg(kubeconfig);
    cluster.output(command, "")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("exit code {}: {}", code(output), text.concat())
}

/// Without the rights nothing is started, and they are named.
fn refused(cluster: &mut Cluster, prober: &Path, file: &Path) -> Result<()> {
    let output = cluster.eventually("the user may read the cluster", |cluster| {
        let output = test(cluster, prober, file, &[])?;
        Ok(text(&output).contains("nothing was started").then_some(output).ok_or_else(String::new))
    })?;
    let right = format!("patch pods/ephemeralcontainers in {NAME}");
    ensure!(code(&output) == 2 && text(&output).contains(&right), "{}", text(&output));
    ensure!(containers(cluster)?.is_empty(), "a container was started");
    say("without the right to it nothing is started, and the right is named");
    Ok(())
}

/// The authorizer takes a moment to see a new Role.
fn eventually_allowed(cluster: &mut Cluster, prober: &Path, file: &Path) -> Result<Output> {
    cluster.eventually("the user has the rights", |cluster| {
        let output = test(cluster, prober, file, &[])?;
        let is_refused = ["nothing was started", "is not known"].iter().any(|s| text(&output).contains(s));
        Ok(if is_refused { Err(text(&output)) } else { Ok(output) })
    })
}

/// The ephemeral containers of all pods, with their states.
fn containers(cluster: &Cluster) -> Result<Vec<Value>> {
    let pods = cluster.get(&["pods", "-n", NAME])?;
    let pods = pods["items"].as_array().context("no list of pods")?.clone();
    let statuses = pods
        .iter()
        .flat_map(|pod| pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default());
    Ok(statuses.collect())
}

/// All containers have ended, the pods are ready and were not restarted, and the Service leads to the same addresses.
fn untouched(cluster: &Cluster, before: &Value) -> Result<()> {
    let all = containers(cluster)?;
    ensure!(!all.is_empty(), "no container was started");
    for container in &all {
        ensure!(container["state"]["terminated"]["exitCode"] == 0, "it runs or has failed: {container:#}");
    }
    let pods = cluster.get(&["pods", "-n", NAME])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    ensure!(pods.len() == PODS.len(), "{} pods", pods.len());
    for pod in pods {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["ready"] == true && status["restartCount"] == 0, "{status:#}");
    }
    let after = cluster.get(&["endpointslices", "-n", NAME, "-l", "kubernetes.io/service-name=db"])?;
    let endpoints = |slices: &Value| slices["items"][0]["endpoints"].clone();
    ensure!(endpoints(before) == endpoints(&after), "endpoints changed: {before:#} {after:#}");
    say(&format!("{} containers have ended by themselves; pods and endpoints are as before", all.len()));
    Ok(())
}

/// What packets say counts, also against the engine: the agents are gone, and with them the rules.
fn disagrees(cluster: &mut Cluster, prober: &Path, file: &Path) -> Result<()> {
    palisade::remove(cluster, palisade::Method::Manifests)?;
    let output = test(cluster, prober, file, &["--probe-image", crate::images::PALISADE])?;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    let only = &answer["results"][1];
    ensure!(
        code(&output) == 1
            && answer["results"][0]["status"] == "holds"
            && only["status"] == "fails"
            && only["messages"].to_string().contains("packets and engine disagree"),
        "without enforcement, only packets tell: {answer:#}"
    );
    say("where policies are not enforced, packets and engine disagree, and the assertion fails");
    Ok(())
}

/// An image that can't be started is said, and is not taken for a denial. The nodes have no registry, whose time-outs are long, so it
/// is one that the kubelet refuses.
fn without_image(cluster: &Cluster, prober: &Path, file: &Path) -> Result<()> {
    let rest = ["--probe-image", "No/Image", "--probe-timeout", "60s"];
    let output = test(cluster, prober, file, &rest)?;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    ensure!(
        code(&output) == 2
            && answer["results"][0]["status"] == "undecided"
            && answer["results"][0]["messages"].to_string().contains("could not be started"),
        "{answer:#}"
    );
    say("an image that is not there is said, and the result is undecided");
    Ok(())
}
