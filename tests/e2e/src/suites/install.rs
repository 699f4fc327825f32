//! Palisade installed, upgraded and removed, by Helm and by manifests.

use anyhow::{Context, Result, ensure};

use crate::{
    Cluster,
    palisade::{self, Method, TAGS},
    progress::{part, say},
    suites::guarded::Guarded,
};

/// Runs the suite. Palisade is not installed afterwards.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    if palisade::is_installed(cluster)? {
        palisade::remove(cluster, Method::Manifests)?;
    }
    let guarded = Guarded::create(cluster)?;
    guarded.all_open(cluster, "before the installation").context("nothing enforces policies yet")?;
    for method in [Method::Helm, Method::Manifests] {
        part(&format!("{method:?}"), || round(cluster, &guarded, method))?;
    }
    guarded.delete(cluster)
}

fn round(cluster: &Cluster, guarded: &Guarded, method: Method) -> Result<()> {
    palisade::install(cluster, method)?;
    guarded.enforced(cluster, "installed")?;
    palisade::verify(cluster)?;

    let traffic = guarded.traffic()?;
    palisade::begin_upgrade(cluster, method, TAGS[1])?;
    palisade::rolled_out(cluster)?;
    traffic.stop("the upgrade")?;
    let images =
        ["-n", palisade::NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[*].image}"];
    let images = cluster.kubectl(&images)?;
    ensure!(
        images.split_whitespace().all(|i| i.ends_with(&format!(":{}", TAGS[1]))),
        "after the upgrade agents run the images {images}"
    );
    guarded.enforced(cluster, "upgraded")?;
    palisade::verify(cluster)?;

    palisade::remove(cluster, method)?;
    let traces = palisade::traces(cluster)?;
    ensure!(traces.is_empty(), "left behind: {}", traces.join(", "));
    say("removed: no table, no file is left on a node");
    guarded.all_open(cluster, "after the removal")
}
