//! `palisade doctor`: checks whether this machine lets policies work.

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
Run it on the node, as root, in the node's own network namespace. It changes nothing there: what has to be tried is tried in temporary namespaces, which vanish with the process. The self-test connects two of them to the node as pods are connected, and looks whether their packets pass where policies act.

Each check has a stable id, listed with its cures in docs/doctor.md. API access is checked with your own credentials; the agent's are those of its service account.

Examples:
  palisade doctor
  palisade doctor --offline
  palisade doctor -o json | jq '.checks[] | select(.status == \"fail\")'
  kubectl -n palisade-system exec daemonset/palisade-agent -- palisade doctor

Exit codes: 0 nothing fails, 1 something does, 2 error.";

/// What `doctor` takes.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Leave the API server out
    #[arg(long)]
    offline: bool,
    /// Send no packets: leave the self-test out
    #[arg(long)]
    no_probe: bool,
    /// Where the agent of this node listens
    #[arg(
        long,
        env = "PALISADE_SOCKET",
        value_name = "PATH",
        default_value = DEFAULT_SOCKET,
        hide_env_values = true
    )]
    socket: PathBuf,
    /// A context of the kubeconfig other than its current one
    #[arg(long, value_name = "NAME", conflicts_with = "offline")]
    context: Option<String>,
    /// The kubeconfig, instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", conflicts_with = "offline")]
    kubeconfig: Option<PathBuf>,
    /// How long one request to the API server may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = cluster::time)]
    request_timeout: Duration,
    /// The form of the answer
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
    let text = match arguments.output {
        Format::Text => report::text(&findings),
        Format::Json => report::json(&findings)?,
    };
    output::print(&text).context("can't write the answer")?;
    Ok(Outcome::of(report::is_healthy(&findings)))
}
