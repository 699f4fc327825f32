//! The suites.

mod access;
mod first_packet;
mod flows;
mod guarded;
mod install;
mod liveness;
mod probe;
mod restart;

use std::{io::Write, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{Cluster, palisade, progress, results, upstream};

/// A suite.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it tests, in one line.
    pub about: &'static str,
    /// Runs it. Whether Palisade is installed before and after it is its own business ([`install_palisade`]); its objects are gone.
    pub run: fn(&mut Cluster) -> Result<()>,
}

/// Our own, in the order in which `all` would run them.
const SUITES: [Suite; 10] = [
    Suite {
        name: "install",
        about: "Palisade installed, upgraded under traffic and removed, by Helm and by manifests",
        run: install::run,
    },
    Suite {
        name: "first-packet",
        about: "pods that start under a policy: what their first packets meet",
        run: first_packet::run,
    },
    Suite { name: "first-packet-churn", about: "the same with 200 pods", run: first_packet::run_in_churn },
    Suite {
        name: "first-packet-cni",
        about: "the same with 200 pods and without NRI, through the CNI plugin that the agents install",
        run: first_packet::run_with_plugin,
    },
    Suite {
        name: "first-packet-restarts",
        about: "the same through both, while the agents are killed, stopped, restarted and upgraded",
        run: first_packet::run_with_restarts,
    },
    Suite { name: "liveness", about: "isolated pods, which their kubelets still reach", run: liveness::run },
    Suite {
        name: "flows",
        about: "flows and status of all agents through the API server, with the Role that is shipped",
        run: flows::run,
    },
    Suite {
        name: "probe",
        about: "assertions with connections from ephemeral containers in the cluster's pods",
        run: probe::run,
    },
    Suite {
        name: "rolling-restart",
        about: "the agents restarted one by one and killed, under traffic",
        run: restart::run,
    },
    Suite {
        name: "access",
        about: "every way to a Service, with kube-proxy in iptables and in nftables mode",
        run: access::run,
    },
];

/// All of them.
fn all() -> impl Iterator<Item = &'static Suite> {
    SUITES.iter().chain(&upstream::SUITES)
}

/// Their names.
#[must_use]
pub fn names() -> Vec<&'static str> {
    all().map(|suite| suite.name).collect()
}

/// Prints them.
///
/// # Errors
/// If standard output is closed.
pub fn list() -> Result<()> {
    let mut out = std::io::stdout();
    for suite in all() {
        writeln!(out, "{:<24} {}", suite.name, suite.about)?;
    }
    Ok(())
}

/// Finds suites by name.
///
/// # Errors
/// If there is none of that name.
pub fn find(names: &[String]) -> Result<Vec<Suite>> {
    names
        .iter()
        .map(|name| {
            all()
                .find(|s| s.name == name)
                .copied()
                .with_context(|| format!("no suite \"{name}\": see `palisade-e2e list`"))
        })
        .collect()
}

/// Runs suites, all of them even if one fails.
///
/// # Errors
/// If one has failed.
pub fn run(cluster: &mut Cluster, suites: &[Suite]) -> Result<()> {
    let mut failed = Vec::new();
    for suite in suites {
        let start = Instant::now();
        let result = progress::part(suite.name, || (suite.run)(cluster));
        results::complete(suite.name, suite.about, start.elapsed(), &result)?;
        if let Err(e) = result {
            eprintln!("{}: {e:#}\n{}", suite.name, cluster.logs());
            failed.push(suite.name);
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} suites failed: {}", failed.len(), suites.len(), failed.join(", "));
    }
    Ok(())
}

/// Installs Palisade by its manifests where it isn't installed yet.
///
/// # Errors
/// If the agents don't become ready.
pub fn install_palisade(cluster: &mut Cluster) -> Result<()> {
    if palisade::is_installed(cluster)? {
        return palisade::rolled_out(cluster);
    }
    palisade::install(cluster, palisade::Method::Manifests)
}
