//! The API server accepts what operators install: the plain manifests, and what the chart renders.

use std::process::Command;

use anyhow::{Result, ensure};
use palisade_cluster_tests::{
    World,
    agent::AgentOptions,
    eventually,
    programs::root,
    world::{ACCOUNT, NODES, READY_WITHIN, describe},
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("deploy::the_plain_manifests_are_accepted", plain),
    ("deploy::the_chart_is_accepted", chart),
    ("deploy::the_rights_are_those_that_the_agent_uses", rights),
    ("deploy::a_ready_agent_removes_the_startup_taint_and_may_do_no_more_to_nodes", startup_taint),
];

/// Kinds of the Prometheus operator, which this cluster does not define.
const FOREIGN: &str = "apiVersion: monitoring.coreos.com/";

fn dry_run(world: &mut World, what: &str, text: &str) -> Result<()> {
    let documents: Vec<&str> = text.split("\n---\n").filter(|d| !d.contains(FOREIGN)).collect();
    let input = documents.join("\n---\n");
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = world.control().kubectl_output(&arguments, &input)?;
    ensure!(output.status.success(), "{what}: {}", describe(&output));
    let accepted = String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.contains("dry run")).count();
    let expected = input.lines().filter(|l| l.starts_with("kind: ")).count();
    ensure!(
        accepted == expected && accepted > 3,
        "{what}: {accepted} of {expected} objects: {}",
        describe(&output)
    );
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!warnings.contains("Warning"), "{what}: {warnings}");
    Ok(())
}

fn plain(world: &mut World) -> Result<()> {
    // A dry run creates no namespace, and the other objects need one.
    world.kubectl(&format!("create namespace {}", ACCOUNT.0))?;
    for file in ["palisade.yaml", "palisade-from-boot.yaml", "remove.yaml"] {
        let path = root().join("deploy/manifests").join(file);
        let output = world.control().kubectl_output(
            &["apply", "--dry-run=server", "--validate=strict", "-f", &path.display().to_string()],
            "",
        )?;
        let text = describe(&output);
        // The namespace was created without the annotation of `kubectl apply`.
        let warned = text.lines().any(|l| l.contains("Warning") && !l.contains("last-applied-configuration"));
        ensure!(output.status.success() && !warned, "{file}: {text}");
    }
    // Without a dry run: everything at once, in an empty cluster.
    world.reset()?;
    world.install()?;
    world.kubectl(&format!("get daemonset -n {} {}", ACCOUNT.0, ACCOUNT.1)).map(|_| ())
}

fn chart(world: &mut World) -> Result<()> {
    world.kubectl(&format!("create namespace {}", ACCOUNT.0))?;
    let mut cases = vec![Vec::new(), vec!["--set=removeRules=true".to_owned()]];
    for folder in std::fs::read_dir(root().join("deploy/tests"))? {
        let values = folder?.path().join("values.yaml");
        if values.exists() {
            cases.push(vec![format!("--values={}", values.display())]);
        }
    }
    ensure!(cases.len() > 2, "no cases in deploy/tests");
    for case in cases {
        let mut helm = Command::new(world.programs().control_plane("helm"));
        helm.arg("template").arg("palisade").arg(root().join("deploy/helm/palisade"));
        helm.arg(format!("--namespace={}", ACCOUNT.0)).args(&case).env("HOME", world.folder());
        let output = world.control().run_program(helm, "")?;
        ensure!(output.status.success(), "helm {case:?}: {}", describe(&output));
        dry_run(world, &format!("{case:?}"), &String::from_utf8(output.stdout)?)?;
    }
    Ok(())
}

fn rights(world: &mut World) -> Result<()> {
    world.install()?;
    let account = format!("--as=system:serviceaccount:{}:{}", ACCOUNT.0, ACCOUNT.1);
    let mut may = |request: &str| -> Result<bool> {
        let mut arguments = vec!["auth", "can-i"];
        arguments.extend(request.split_whitespace());
        arguments.push(&account);
        Ok(world.control().kubectl_output(&arguments, "")?.status.success())
    };
    for request in [
        "list pods -A",
        "watch namespaces",
        "watch nodes",
        "watch networkpolicies.networking.k8s.io -A",
        "create events.events.k8s.io -A",
        "create leases.coordination.k8s.io -n palisade-system",
        "update leases.coordination.k8s.io/palisade-status-writer -n palisade-system",
    ] {
        ensure!(may(request)?, "the agent may not {request}");
    }
    for request in [
        "list secrets -A",
        "get configmaps -A",
        "create pods -A",
        "delete pods -A",
        "patch pods -A",
        "patch nodes",
        "delete networkpolicies.networking.k8s.io -A",
        "create leases.coordination.k8s.io -n default",
        "update leases.coordination.k8s.io/another -n palisade-system",
    ] {
        ensure!(!may(request)?, "the agent may {request}");
    }
    Ok(())
}

/// Two nodes with the taint and another one, in a cluster with `palisade-from-boot.yaml`. On the second node the agent is not told to remove it.
fn startup_taint(world: &mut World) -> Result<()> {
    world.install_manifest("palisade-from-boot.yaml")?;
    for node in NODES {
        world.kubectl(&format!(
            "taint node {node} palisade.dev/agent-not-ready=true:NoSchedule example.org/other=x:NoSchedule"
        ))?;
    }
    let taints = |world: &World, node: &str| {
        world.kubectl(&format!("get node {node} -o jsonpath={{.spec.taints[*].key}}"))
    };
    let kubeconfig = world.agent_kubeconfig()?;
    for (node, more) in [(NODES[0], vec!["--startup-taint=remove".to_owned()]), (NODES[1], Vec::new())] {
        let options = AgentOptions { kubeconfig: kubeconfig.clone(), more, ..AgentOptions::default() };
        world.start_agent(node, &options)?.wait_ready(READY_WITHIN)?;
    }
    eventually("the taint is removed", READY_WITHIN, || {
        let found = taints(world, NODES[0])?;
        Ok(if found.contains("agent-not-ready") { Err(found) } else { Ok(()) })
    })?;
    // The API server has given the new node a taint of its own (not-ready).
    let left = taints(world, NODES[0])?;
    ensure!(left.split_whitespace().any(|key| key == "example.org/other"), "other taints stay: {left}");
    ensure!(
        taints(world, NODES[1])?.contains("palisade.dev/agent-not-ready"),
        "without the setting it stays"
    );
    let log = world.agent(NODES[0])?.log();
    ensure!(log.contains("removed the startup taint"), "{log}");
    let account = format!("--as=system:serviceaccount:{}:{}", ACCOUNT.0, ACCOUNT.1);
    for (verb, allowed) in
        [("get", true), ("patch", true), ("update", false), ("delete", false), ("create", false)]
    {
        let output = world.control().kubectl_output(&["auth", "can-i", verb, "nodes", &account], "")?;
        ensure!(output.status.success() == allowed, "{verb} nodes: {}", describe(&output));
    }
    for node in NODES {
        world.kubectl(&format!("taint node {node} example.org/other-"))?;
    }
    world.kubectl(&format!("taint node {} palisade.dev/agent-not-ready-", NODES[1])).map(|_| ())
}
