//! A cluster that runs: how other processes find it, and run commands in it.
//!
//! It has no file on disk. Its first process is found in `/proc`: the first of a process namespace, with the mark of a run in its
//! environment.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use palisade_cluster_tests::confined::INNER;

use crate::{Cluster, namespaces::Namespaces, programs, stage};

/// The name of a run's first process, as the kernel shortens it.
const PROGRAM: &str = "palisade-e2e";

/// What `up` prints.
///
/// # Errors
/// If `/proc` can't be read.
pub fn describe(cluster: &Cluster) -> Result<String> {
    let id = std::env::var(ID).context("the run doesn't know its id")?;
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|n| format!("{} {:?}", n.name(), n.addresses())).collect();
    Ok(format!(
        "cluster {id}: {}\nKUBECONFIG={} in its namespaces; from another terminal:\n  palisade-e2e exec --cluster {id} kubectl get pods -A",
        nodes.join(", "),
        cluster.control().admin().display()
    ))
}

/// The id of the outer process, by which a cluster is named, in the environment of its processes.
pub const ID: &str = "PALISADE_E2E_ID";

/// The first processes of all running clusters: (cluster, process).
fn all() -> Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // A process may end at any time.
        let Ok(environment) = fs::read(format!("/proc/{id}/environ")) else { continue };
        let Ok(status) = fs::read_to_string(format!("/proc/{id}/status")) else { continue };
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        let is_first = field("NSpid:").split_whitespace().last() == Some("1");
        let variables: Vec<&[u8]> = environment.split(|b| *b == 0).collect();
        let has = |text: String| variables.contains(&text.as_bytes());
        let cluster = variables.iter().find_map(|v| {
            let value = v.strip_prefix(format!("{ID}=").as_bytes())?;
            std::str::from_utf8(value).ok()?.parse::<u32>().ok()
        });
        let is_node = fs::read(format!("/proc/{id}/cmdline"))
            .is_ok_and(|c| c.split(|b| *b == 0).nth(1) == Some(crate::node::VERB.as_bytes()));
        if let Some(cluster) = cluster
            .filter(|_| is_first && !is_node && field("Name:").trim() == PROGRAM && has(format!("{INNER}=1")))
        {
            found.push((cluster, id));
        }
    }
    Ok(found)
}

/// Runs a command in the namespaces of a cluster's control plane, and returns its exit code.
///
/// # Errors
/// If there is no such cluster, or the command can't be started.
pub fn exec(cluster: Option<u32>, command: &[OsString]) -> Result<ExitCode> {
    let running = all()?;
    let list: Vec<String> = running.iter().map(|(c, _)| c.to_string()).collect();
    let process = match (cluster, &running[..]) {
        (Some(cluster), _) => {
            running.iter().find(|(c, _)| *c == cluster).map(|(_, p)| *p).with_context(|| {
                format!(
                    "no cluster {cluster} runs; running: {}",
                    if list.is_empty() { "none".into() } else { list.join(", ") }
                )
            })?
        }
        (None, [(_, process)]) => *process,
        (None, []) => bail!("no cluster runs: start one with `palisade-e2e up`"),
        (None, _) => bail!("several clusters run: name one with --cluster: {}", list.join(", ")),
    };
    let (program, arguments) = command.split_first().context("no command")?;
    let mut run = Command::new(program);
    run.args(arguments).current_dir(std::env::current_dir()?);
    run.env("PATH", programs::path()).env("KUBECONFIG", stage::folder("control/admin.kubeconfig"));
    let mut child =
        Namespaces::of(process)?.spawn(run).with_context(|| format!("cannot start {}", program.display()))?;
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
