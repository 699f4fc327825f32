//! The flows and the status of all agents, as a user with the Role that is shipped reads them through the API server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{Process, control_plane::Identity, programs::root};
use serde_json::{Value, json};

use crate::{
    Cluster, palisade,
    pods::{self, PORT},
    progress::say,
    stage, suites,
};

const NAME: &str = "flows";
const PODS: [(&str, &str); 2] = [("server-1", "n1"), ("server-2", "n2")];
/// The user with the Role, and one without.
const READER: &str = "flow-reader";
const STRANGER: &str = "stranger";

/// Runs the suite.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    let reader = user(cluster, READER)?;
    let stranger = user(cluster, STRANGER)?;
    grant(cluster)?;
    pods::apply(cluster, &objects())?;
    pods::wait_ready(cluster, NAME)?;

    // Each server is denied to the other, on its own node.
    attempt_all(cluster)?;
    let flows = eventually(cluster, "flows of both nodes", |cluster| {
        let output = run_as(cluster, &reader, &["flows", "-o", "json", "-n", NAME])?;
        let records = records(&output)?;
        let nodes = |node: &str| records.iter().any(|record| record["node"] == node);
        Ok((code(&output) == 0 && nodes("n1") && nodes("n2")).then_some(records).ok_or_else(|| text(&output)))
    })?;
    in_order(&flows)?;
    for record in &flows {
        let policy = &record["policies"][0];
        ensure!(record["verdict"] == "dropped" && policy["name"] == "closed", "not by the policy: {record}");
    }
    say(&format!("{} flows of two nodes, in order, by the Role that is shipped", flows.len()));
    let one = run_as(cluster, &reader, &["flows", "-o", "json", "--node", "n2", "-n", NAME])?;
    ensure!(code(&one) == 0 && records(&one)?.iter().all(|r| r["node"] == "n2"), "{}", text(&one));

    status(cluster, &reader)?;
    refused(cluster, &stranger)?;
    followed(cluster, &reader)?;
    cluster.delete_namespaces(&[NAME])
}

fn objects() -> Vec<Value> {
    let closed = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": NAME},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    let servers = PODS.map(|(name, node)| pods::server(NAME, name, node, &[("app", "server")]));
    [vec![pods::namespace(NAME), closed], servers.to_vec()].concat()
}

/// Writes the kubeconfig of a new user without rights.
fn user(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let certificate = cluster.control().authority().user(name, "flow-tests")?;
    cluster.control().kubeconfig(name, &Identity::Certificate(certificate), None)
}

/// Applies the Role that is shipped, and binds it as docs/install.md says.
fn grant(cluster: &Cluster) -> Result<()> {
    let path = root().join("deploy/manifests/flow-reader.yaml");
    cluster.apply(&fs::read_to_string(&path).with_context(|| path.display().to_string())?)?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "flow-readers", "namespace": palisade::NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "palisade-flow-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": READER}],
    });
    cluster.apply(&binding.to_string())
}

/// Connects from each server to the other, which is denied.
fn attempt_all(cluster: &Cluster) -> Result<()> {
    for [from, to] in [[0, 1], [1, 0]] {
        attempt(cluster, PODS[from].0, PODS[to].0)?;
    }
    Ok(())
}

fn attempt(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let address = pods::addresses(cluster, NAME, to)?[0];
    let target = format!("{address}:{PORT}");
    let connect = ["-n", NAME, "exec", from, "--", "/agnhost", "connect", &target, "--timeout=1s"];
    ensure!(cluster.kubectl(&connect).is_err(), "{from} reaches {to}, which a policy denies");
    Ok(())
}

fn command(cluster: &Cluster, kubeconfig: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(cluster.programs().palisade());
    command.args(words).arg("--kubeconfig").arg(kubeconfig);
    command
}

fn run_as(cluster: &Cluster, kubeconfig: &Path, words: &[&str]) -> Result<Output> {
    cluster.output(command(cluster, kubeconfig, words), "")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("exit code {}: {}", code(output), text.concat())
}

fn records(output: &Output) -> Result<Vec<Value>> {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn in_order(records: &[Value]) -> Result<()> {
    // Times of one length compare as text.
    let times: Vec<&str> = records.iter().filter_map(|record| record["time"].as_str()?.get(..19)).collect();
    ensure!(times.is_sorted(), "not in the order of time: {times:?}");
    Ok(())
}

fn status(cluster: &mut Cluster, reader: &Path) -> Result<()> {
    let status = run_as(cluster, reader, &["status", "-o", "json"])?;
    ensure!(code(&status) == 0, "{}", text(&status));
    let answer: Value = serde_json::from_slice(&status.stdout)?;
    let agents = answer["agents"].as_array().context("no agents")?;
    let names: Vec<&Value> = agents.iter().map(|agent| &agent["node"]).collect();
    ensure!(names == ["n1", "n2"] && answer["complete"] == true, "{answer:#}");
    for agent in agents {
        ensure!(agent["ready"] == true && agent["status"]["held_by"] == json!(["nri"]), "{agent:#}");
        let drops = agent["status"]["drops_last_minute"].as_u64();
        ensure!(drops.is_some_and(|drops| drops > 0), "no drops in the last minute: {agent:#}");
    }
    let table = run_as(cluster, reader, &["status"])?;
    say(&format!("status of both agents:\n{}", String::from_utf8_lossy(&table.stdout)));
    Ok(())
}

/// A user without the Role gets an error, and not an empty answer.
fn refused(cluster: &mut Cluster, stranger: &Path) -> Result<()> {
    for verb in ["flows", "status"] {
        let output = run_as(cluster, stranger, &[verb])?;
        ensure!(code(&output) == 2 && text(&output).contains("403 Forbidden"), "{}", text(&output));
    }
    // Who may list agents and not run commands in them is told so for each node.
    let lists = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "lists-agents", "namespace": palisade::NAMESPACE},
        "rules": [{"apiGroups": ["", "apps"], "resources": ["pods", "daemonsets"], "verbs": ["list"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "lists-agents", "namespace": palisade::NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lists-agents"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": STRANGER}],
    });
    pods::apply(cluster, &[lists, binding])?;
    let output = eventually(cluster, "agents can be listed", |cluster| {
        let output = run_as(cluster, stranger, &["status"])?;
        let is_listed = text(&output).contains("could not be queried");
        Ok(is_listed.then_some(()).ok_or_else(|| text(&output)).map(|()| output))
    })?;
    ensure!(
        code(&output) == 2 && text(&output).matches("pods/exec").count() >= 2,
        "both nodes are named with the missing right: {}",
        text(&output)
    );
    say("without pods/exec, both nodes are named with the missing right, and the exit code is 2");
    Ok(())
}

/// Follows the flows while an agent is replaced, and leaves no process behind.
fn followed(cluster: &mut Cluster, reader: &Path) -> Result<()> {
    let follow = command(cluster, reader, &["flows", "-f", "--last", "0", "-n", NAME]);
    let folder = stage::folder("control");
    let log = |process: &Process| process.log();
    let process = Process::start("flows-f", cluster.control().namespace(), follow, &folder)?;
    eventually(cluster, "the heading of flows", |_| {
        Ok(log(&process).contains("VERDICT").then_some(()).ok_or_else(|| log(&process)))
    })?;
    until_seen(cluster, &process, "server-2", 1)?;
    until_seen(cluster, &process, "server-1", 1)?;

    let agents = ["pods", "-n", palisade::NAMESPACE, "--field-selector=spec.nodeName=n2"];
    let agents = cluster.get(&[&agents[..], &["-l", "app.kubernetes.io/component=agent"]].concat())?;
    let name = agents["items"][0]["metadata"]["name"].as_str().context("no agent on n2")?;
    cluster.kubectl(&["-n", palisade::NAMESPACE, "delete", "pod", name])?;
    palisade::rolled_out(cluster)?;
    eventually(cluster, "the new agent is followed", |_| {
        let text = log(&process);
        let found =
            text.contains("node n2: its agent is gone") && text.contains("node n2: its agent has started");
        Ok(found.then_some(()).ok_or(text))
    })?;
    until_seen(cluster, &process, "server-2", 2)?;
    ensure!(remote_processes()? > 0, "no process in the agents' containers is found");
    drop(process);
    eventually(cluster, "no process is left in the agents' containers", |_| {
        let left = remote_processes()?;
        Ok((left == 0).then_some(()).ok_or_else(|| format!("{left} are left")))
    })?;
    say("flows were followed over the replacement of an agent, and no process is left in a container");
    Ok(())
}

/// Attempts connections to a server until its flow was shown so many times since the last restart of its agent.
fn until_seen(cluster: &mut Cluster, process: &Process, to: &str, times: usize) -> Result<()> {
    let from = PODS.map(|(name, _)| name).into_iter().find(|name| *name != to).unwrap_or_default();
    let shown = |text: &str| text.lines().filter(|line| line.contains(&format!("{NAME}/{to} "))).count();
    let before = if times > 1 { shown(&process.log()) } else { 0 };
    eventually(cluster, &format!("a flow to {to} is shown"), |cluster| {
        attempt(cluster, from, to)?;
        let text = process.log();
        Ok((shown(&text) > before).then_some(()).ok_or(text))
    })
}

fn eventually<T>(
    cluster: &mut Cluster,
    what: &str,
    attempt: impl FnMut(&Cluster) -> Result<Result<T, String>>,
) -> Result<T> {
    cluster.eventually(what, attempt)
}

/// How many processes write flows for another machine.
fn remote_processes() -> Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        let words = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        found += usize::from(String::from_utf8_lossy(&words).contains("--output=pages"));
    }
    Ok(found)
}
