//! `palisade doctor`: whether this machine lets policies work, and what to do where it does not.

mod api;
mod wiring;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_agent::{
    config::DEFAULT_SOCKET,
    doctor::{Check, Status, examine},
};
use serde::Serialize;

use crate::{
    exit::Outcome,
    live,
    output::{self, Format, Style, styled},
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
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = live::time)]
    request_timeout: Duration,
    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Does it.
pub(crate) fn run(arguments: &Doctor) -> Result<Outcome> {
    let node = examine(on_a_path(&arguments.socket));
    let mut checks = node.checks;
    if !arguments.no_probe {
        checks.extend(wiring::checks(&node.bridges, node.forwards));
    }
    if !arguments.offline {
        checks.extend(api::checks(&palisade_api::Access {
            kubeconfig: arguments.kubeconfig.clone(),
            context: arguments.context.clone(),
            timeout: Some(arguments.request_timeout),
        }));
    }
    let text = match arguments.output {
        Format::Text => text(&checks),
        Format::Json => json(&checks)?,
    };
    output::print(&text).context("can't write the answer")?;
    Ok(Outcome::of(checks.iter().all(|check| check.status != Status::Fail)))
}

/// A bare name has no directory.
fn on_a_path(socket: &Path) -> &Path {
    if socket.as_os_str().is_empty() { Path::new(DEFAULT_SOCKET) } else { socket }
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Check { id, status, found, cure } in checks {
        let word = format!("{:<7}", status.as_str());
        let word = match status {
            Status::Ok => styled(Style::Good, &word),
            Status::Fail => styled(Style::Bad, &word),
            Status::Warn | Status::Unknown => styled(Style::Strong, &word),
        };
        _ = writeln!(out, "{word}  {id:<width$}  {}", crate::escape::plain(found));
        if let Some(cure) = cure {
            _ = writeln!(out, "{:9}{:width$}  cure: {}", "", "", crate::escape::plain(cure));
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let counts = [Status::Fail, Status::Warn, Status::Unknown, Status::Ok];
    let counts: Vec<String> = counts.map(|status| format!("{} {status}", count(status))).into();
    _ = writeln!(out, "\n{}", counts.join(", "));
    out
}

fn json(checks: &[Check]) -> Result<String> {
    #[derive(Serialize)]
    struct Answer<'a> {
        schema: &'static str,
        healthy: bool,
        checks: Vec<One<'a>>,
    }
    #[derive(Serialize)]
    struct One<'a> {
        id: &'a str,
        status: &'a str,
        found: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cure: Option<&'a str>,
    }
    impl<'a> One<'a> {
        fn of(Check { id, status, found, cure }: &'a Check) -> Self {
            Self { id, status: status.as_str(), found, cure: cure.as_deref() }
        }
    }
    let answer = Answer {
        schema: "palisade.doctor/v1",
        healthy: checks.iter().all(|check| check.status != Status::Fail),
        checks: checks.iter().map(One::of).collect(),
    };
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}
