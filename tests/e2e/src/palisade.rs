//! Palisade in the cluster, installed and removed as docs/install.md says.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use palisade_cluster_tests::programs::root;

use crate::{Cluster, images::PALISADE, progress::part};

/// The namespace and the DaemonSet.
pub const NAMESPACE: &str = "palisade-system";
const DAEMONSET: &str = "daemonset/palisade-agent";

/// How it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `kubectl apply` of the plain manifests.
    Manifests,
    /// The chart.
    Helm,
}

fn manifest(name: &str) -> Result<String> {
    let path = root().join("deploy/manifests").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Whether the DaemonSet exists.
///
/// # Errors
/// If the API server doesn't respond.
pub fn is_installed(cluster: &Cluster) -> Result<bool> {
    let found = cluster.kubectl(&["get", "-n", NAMESPACE, "--ignore-not-found", "-o", "name", DAEMONSET])?;
    Ok(!found.trim().is_empty())
}

/// Installs it, and waits until the agents of both nodes are ready.
///
/// # Errors
/// If they don't become ready.
pub fn install(cluster: &Cluster, method: Method) -> Result<()> {
    part("installing Palisade", || {
        match method {
            Method::Manifests => cluster.apply(&manifest("palisade.yaml")?)?,
            Method::Helm => install_chart(cluster, &[])?,
        }
        rolled_out(cluster)
    })
}

/// Installs the chart with other values than its own, and waits until the agents of both nodes are ready.
///
/// # Errors
/// If they don't become ready.
pub fn install_with(cluster: &Cluster, values: &[&str]) -> Result<()> {
    part("installing Palisade", || {
        install_chart(cluster, values)?;
        rolled_out(cluster)
    })
}

fn install_chart(cluster: &Cluster, values: &[&str]) -> Result<()> {
    let set = values.join(",");
    let words: &[&str] = if values.is_empty() { &[] } else { &["--set-string", &set] };
    helm(cluster, &[&["install", "palisade", CHART, "--create-namespace"], words].concat())?;
    // As docs/install.md has it.
    let label = "pod-security.kubernetes.io/enforce=privileged";
    cluster.kubectl(&["label", "namespace", NAMESPACE, label])?;
    Ok(())
}

/// How many nodes have the plugin in their CNI configuration.
///
/// # Errors
/// If a folder can't be read.
pub fn plugins(cluster: &Cluster) -> Result<usize> {
    let mut found = 0;
    for node in cluster.nodes() {
        let folder = node.path("/run/cni/net.d");
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
        found += usize::from(texts.into_iter().any(|text| text.contains("palisade-cni")));
    }
    Ok(found)
}

/// The tags under which the nodes have the image: an upgrade is from one to the other.
pub const TAGS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "next"];

/// Changes the image's tag to one of [`TAGS`], without waiting: a rolling upgrade.
///
/// # Errors
/// If it is refused.
pub fn begin_upgrade(cluster: &Cluster, method: Method, tag: &str) -> Result<()> {
    for node in cluster.nodes() {
        let next = PALISADE.replace(TAGS[0], TAGS[1]);
        node.ctr(&["images", "tag", "--force", PALISADE, &next])?;
    }
    match method {
        Method::Manifests => {
            let image = |tag: &str| format!("image: palisade:{tag}\n");
            let text = manifest("palisade.yaml")?;
            ensure!(text.contains(&image(TAGS[0])), "the manifest has no {}", image(TAGS[0]).trim());
            cluster.apply(&text.replace(&image(TAGS[0]), &image(tag)))
        }
        Method::Helm => {
            let tag = format!("image.tag={tag}");
            helm(cluster, &["upgrade", "palisade", CHART, "--reset-then-reuse-values", "--set", &tag])
        }
    }
}

/// Waits until every agent is of the current template, and ready.
///
/// # Errors
/// If it takes too long.
pub fn rolled_out(cluster: &Cluster) -> Result<()> {
    let rolled_out = cluster.rolled_out(NAMESPACE, DAEMONSET);
    rolled_out.map_err(|e| e.context(format!("the agents are not ready\n{}", agents_logs(cluster))))
}

/// Restarts the agents, and waits until they are ready: they then know every definition that the API server has, which running ones
/// look for about every half minute.
///
/// # Errors
/// If it takes too long.
pub fn restart(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", DAEMONSET])?;
    rolled_out(cluster)
}

/// Removes its rules from every node, then itself.
///
/// # Errors
/// If something is refused, or doesn't end.
pub fn remove(cluster: &Cluster, method: Method) -> Result<()> {
    part("removing Palisade", || {
        match method {
            Method::Manifests => {
                cluster.apply(&manifest("remove.yaml")?)?;
                rolled_out(cluster)?;
                let text = manifest("palisade.yaml")?;
                cluster.command("kubectl", &["delete", "--wait=true", "-f", "-"], &text)?;
            }
            Method::Helm => {
                helm(
                    cluster,
                    &["upgrade", "palisade", CHART, "--reset-then-reuse-values", "--set", "removeRules=true"],
                )?;
                rolled_out(cluster)?;
                helm(cluster, &["uninstall", "palisade", "--wait"])?;
                cluster.delete_namespaces(&[NAMESPACE])?;
            }
        }
        Ok(())
    })
}

/// Where the chart is.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/palisade");

fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let arguments = [arguments, &["--namespace", NAMESPACE]].concat();
    cluster.command("helm", &arguments, "").map(|_| ())
}

/// The last lines of every agent, and why its pod does not run, to explain a failure.
#[must_use]
pub fn agents_logs(cluster: &Cluster) -> String {
    let logs =
        ["-n", NAMESPACE, "logs", "--prefix", "--tail=15", "--selector=app.kubernetes.io/component=agent"];
    let events = ["-n", NAMESPACE, "get", "events"];
    [&logs[..], &events[..]].map(|a| cluster.kubectl(a).unwrap_or_else(|e| format!("{e:#}"))).join("\n")
}

/// How long pods waited for their policies before they started, as the agents have counted it. An error if an agent follows neither its
/// container runtime nor its plugin.
///
/// # Errors
/// If an agent can't be asked.
pub fn start_latency(cluster: &Cluster) -> Result<String> {
    let pods = cluster.get(&["pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent"])?;
    let mut out = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:9643/proxy/metrics");
        let text = cluster.kubectl(&["get", "--raw", &path])?;
        ensure!(
            text.lines()
                .any(|line| ["palisade_runtime_connected 1", "palisade_cni_chained 1"].contains(&line)),
            "agent {name} follows neither its container runtime nor its plugin\n{}",
            agents_logs(cluster)
        );
        let of = |part: &'static str| text.lines().filter_map(move |line| line.strip_prefix(part));
        let starts: Vec<&str> =
            of("palisade_pod_starts_total").filter(|line| !line.ends_with(" 0")).collect();
        let number = |part| of(part).next().and_then(|n| n.trim().parse::<f64>().ok()).unwrap_or_default();
        let sum = number("palisade_pod_start_latency_seconds_sum");
        let count = number("palisade_pod_start_latency_seconds_count");
        let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        out.push(format!("{name}: {:.1} ms on average, {}", 1e3 * sum / count.max(1.0), starts.join(" ")));
    }
    Ok(out.join("; "))
}

/// What of Palisade is in the kernel and the files of a node.
///
/// # Errors
/// If it can't be looked at.
pub fn traces(cluster: &Cluster) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in cluster.nodes() {
        let mut nft = std::process::Command::new("nft");
        nft.args(["list", "tables"]);
        let tables = node.run(nft)?;
        found.extend(
            tables.lines().filter(|l| l.contains("palisade")).map(|l| format!("{}: {l}", node.name())),
        );
        let folder = node.path("/run/palisade");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(files.map(|f| format!("{}: /run/palisade/{}", node.name(), f.file_name().display())));
    }
    Ok(found)
}

/// Fails if the agent of a node says that the kernel differs from the plan.
///
/// # Errors
/// With what the agent says.
pub fn verify(cluster: &Cluster) -> Result<()> {
    let pods = cluster.get(&["pods", "-n", NAMESPACE, "--selector=app.kubernetes.io/component=agent"])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    ensure!(pods.len() == cluster.nodes().len(), "{} agents run", pods.len());
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let verify = ["-n", NAMESPACE, "exec", name, "--", "/usr/local/bin/palisade", "node", "verify"];
        if let Err(e) = cluster.kubectl(&verify) {
            bail!("node verify in {name}: {e:#}");
        }
    }
    Ok(())
}
