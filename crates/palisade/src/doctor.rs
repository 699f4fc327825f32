//! `palisade doctor`: checks whether policies can work on this machine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_agent::config::DEFAULT_SOCKET;
use palisade_api::Access;
use palisade_doctor::{Scope, examine, report};

use crate::{
    cluster,
    exit::Outcome,
    output::{self, Format},
};

pub(crate) const HELP: &str = "\
Run it as root on the node, in the node's network namespace. It changes nothing there: kernel features are tried in temporary network namespaces, which are removed when it exits. The self-test connects two of them to the node as pods are connected, and checks whether their packets pass the hook where policies are enforced.

Each check has a stable id; docs/doctor.md lists the ids and how to fix each. API access is checked with your own credentials; the agent uses those of its service account.

Examples:
  palisade doctor
  palisade doctor --offline
  palisade doctor -o json | jq '.checks[] | select(.status == \"fail\")'
  kubectl -n palisade-system exec daemonset/palisade-agent -- palisade doctor

Exit codes: 0 no check failed, 1 a check failed, 2 error.";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Skip the checks of the API server
    #[arg(long)]
    offline: bool,
    /// Skip the self-test, which sends packets
    #[arg(long)]
    no_probe: bool,
    /// Path of the agent's socket
    #[arg(
        long,
        env = "PALISADE_SOCKET",
        value_name = "PATH",
        default_value = DEFAULT_SOCKET,
        hide_env_values = true
    )]
    socket: PathBuf,
    /// The kubeconfig context to use
    #[arg(long, value_name = "NAME", conflicts_with = "offline")]
    context: Option<String>,
    /// The kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", conflicts_with = "offline")]
    kubeconfig: Option<PathBuf>,
    /// Timeout of a single request to the API server
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = cluster::time)]
    request_timeout: Duration,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Runs the checks.
pub(crate) fn run(arguments: &Doctor) -> Result<Outcome> {
    // An empty PALISADE_SOCKET counts as unset.
    let socket = Some(&*arguments.socket).filter(|socket| !socket.as_os_str().is_empty());
    let findings = examine(&Scope {
        socket: socket.unwrap_or(Path::new(DEFAULT_SOCKET)),
        self_test: !arguments.no_probe,
        api: (!arguments.offline).then(|| Access {
            kubeconfig: arguments.kubeconfig.clone(),
            context: arguments.context.clone(),
            timeout: Some(arguments.request_timeout),
        }),
    });
    let text = match arguments.output.encoding() {
        None => report::text(&findings),
        Some(encoding) => encoding.encode(&report::document(&findings))?,
    };
    output::print(&text).context("can't write the report")?;
    Ok(Outcome::of(report::is_healthy(&findings)))
}
