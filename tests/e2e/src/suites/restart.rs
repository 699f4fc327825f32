//! The agents restarted under traffic: open connections that are allowed survive, denied ones stay denied at every moment.

use anyhow::Result;

use crate::{
    Cluster, palisade,
    suites::{self, guarded::Guarded},
};

/// Runs the suite. Palisade is installed afterwards.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    let guarded = Guarded::create(cluster)?;
    guarded.enforced(cluster, "before the restart")?;

    let traffic = guarded.traffic()?;
    cluster.kubectl(&["-n", palisade::NAMESPACE, "rollout", "restart", "daemonset/palisade-agent"])?;
    palisade::rolled_out(cluster)?;
    traffic.stop("a rolling restart")?;
    guarded.enforced(cluster, "after the restart")?;

    // Without time to do anything: as a crash, or the kernel's killer of processes that take too much memory.
    let traffic = guarded.traffic()?;
    let pods = "--selector=app.kubernetes.io/component=agent";
    cluster.kubectl(&["-n", palisade::NAMESPACE, "delete", "pods", pods, "--grace-period=0", "--force"])?;
    palisade::rolled_out(cluster)?;
    traffic.stop("a crash of all agents")?;
    guarded.enforced(cluster, "after the crash")?;
    palisade::verify(cluster)?;
    guarded.delete(cluster)
}
