//! The suites.

use std::{io::Write, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{Cluster, progress, results, upstream};

/// A suite.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it tests, in one line.
    pub about: &'static str,
    /// Runs it. It leaves the cluster without Palisade and without its objects.
    pub run: fn(&mut Cluster) -> Result<()>,
}

/// Our own, in the order in which `all` would run them.
const SUITES: &[Suite] = &[];

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

/// Installs Palisade.
pub fn install_palisade(cluster: &mut Cluster) -> Result<()> {
    cluster.apply(include_str!("../../../deploy/manifests/palisade.yaml"))?;
    cluster.rolled_out("palisade-system", "daemonset/palisade-agent")
}
