//! What operators install: the API server takes it, as the chart renders it and as plain manifests.

use std::process::Command;

use anyhow::{Result, ensure};
use palisade_cluster_tests::{
    World,
    programs::root,
    world::{ACCOUNT, in_words},
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("deploy::the_plain_manifests_are_taken", plain),
    ("deploy::the_chart_is_taken", chart),
    ("deploy::the_rights_are_what_the_agent_uses_and_no_more", rights),
];

/// Kinds of the Prometheus operator, whose definitions this cluster hasn't got.
const FOREIGN: &str = "apiVersion: monitoring.coreos.com/";

fn dry_run(world: &mut World, what: &str, text: &str) -> Result<()> {
    let documents: Vec<&str> = text.split("\n---\n").filter(|d| !d.contains(FOREIGN)).collect();
    let input = documents.join("\n---\n");
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = world.control().kubectl_output(&arguments, &input)?;
    ensure!(output.status.success(), "{what}: {}", in_words(&output));
    let taken = String::from_utf8_lossy(&output.stdout).lines().filter(|l| l.contains("dry run")).count();
    let wanted = input.lines().filter(|l| l.starts_with("kind: ")).count();
    ensure!(taken == wanted && taken > 3, "{what}: {taken} of {wanted} objects: {}", in_words(&output));
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!warnings.contains("Warning"), "{what}: {warnings}");
    Ok(())
}

fn plain(world: &mut World) -> Result<()> {
    // A dry run makes no namespace, and the other objects need one.
    world.kubectl(&format!("create namespace {}", ACCOUNT.0))?;
    for file in ["palisade.yaml", "remove.yaml"] {
        let path = root().join("deploy/manifests").join(file);
        let output = world.control().kubectl_output(
            &["apply", "--dry-run=server", "--validate=strict", "-f", &path.display().to_string()],
            "",
        )?;
        let text = in_words(&output);
        // The namespace is there without kubectl's note of what it applied last.
        let warned = text.lines().any(|l| l.contains("Warning") && !l.contains("last-applied-configuration"));
        ensure!(output.status.success() && !warned, "{file}: {text}");
    }
    // And for good: everything in one go, in a cluster that has nothing of it.
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
        ensure!(output.status.success(), "helm {case:?}: {}", in_words(&output));
        dry_run(world, &format!("{case:?}"), &String::from_utf8(output.stdout)?)?;
    }
    Ok(())
}

fn rights(world: &mut World) -> Result<()> {
    world.install()?;
    let account = format!("--as=system:serviceaccount:{}:{}", ACCOUNT.0, ACCOUNT.1);
    let mut may = |words: &str| -> Result<bool> {
        let mut arguments = vec!["auth", "can-i"];
        arguments.extend(words.split_whitespace());
        arguments.push(&account);
        Ok(world.control().kubectl_output(&arguments, "")?.status.success())
    };
    for words in [
        "list pods -A",
        "watch namespaces",
        "watch nodes",
        "watch networkpolicies.networking.k8s.io -A",
        "create events.events.k8s.io -A",
        "create leases.coordination.k8s.io -n palisade-system",
        "update leases.coordination.k8s.io/palisade-status-writer -n palisade-system",
    ] {
        ensure!(may(words)?, "the agent may not {words}");
    }
    for words in [
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
        ensure!(!may(words)?, "the agent may {words}");
    }
    Ok(())
}
