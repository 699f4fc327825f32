//! `palisade lab probe`: opens a real connection.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use super::control::{self, LabName, ProbeAnswer, Reply, Request};
use crate::{
    cluster::time,
    exit::Outcome,
    output::{self, Format, Style, styled},
};

pub(crate) const HELP: &str = "\
SRC and DST have the syntax of `palisade can`. External addresses must be among those of the lab. In a lab with --zones, SRC asks the lab's DNS servers for the name of a host, and connects to each address in the answer.

Examples:
  palisade lab probe -n shop frontend backend:8080
  palisade lab probe shop/backend 198.51.100.7:443/TCP
  palisade lab probe billing/invoices api.payments.example:443        (with --zones)
  palisade lab probe -n shop backend database:5432 --timeout 1s       (one attempt)

Exit codes: 0 answered, 1 not answered or not as the engine expects, 2 error.";

/// Arguments of `lab probe`.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// Source of the connection
    #[arg(value_name = "SRC")]
    source: String,
    /// Destination
    #[arg(value_name = "DST:PORT[/PROTO]")]
    destination: String,
    /// Namespace of names without one
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// How long a connection waits for an answer, at most a minute [default: 400ms, and again with 1500ms and 4s if the outcome is not the expected one]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    #[command(flatten)]
    lab: LabName,
}

/// The longest timeout: the lab answers one request after the other.
const LONGEST: Duration = Duration::from_mins(1);

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = time(text)?;
    if timeout <= LONGEST { Ok(timeout) } else { Err("the timeout must be at most a minute".to_owned()) }
}

#[derive(Serialize)]
struct JsonProbes<'a> {
    schema: &'static str,
    probes: &'a [ProbeAnswer],
}

/// Probes the connection and prints the outcome.
pub(crate) fn run(arguments: &Probe) -> Result<Outcome> {
    let request = Request::Probe {
        source: arguments.source.clone(),
        destination: arguments.destination.clone(),
        namespace: arguments.namespace.clone(),
        timeout: arguments.timeout.map(|timeout| timeout.as_millis() as u64),
    };
    let Reply::ProbeAnswer(probes) = control::ask(&mut control::connect(&arguments.lab.name)?, &request)?
    else {
        bail!("unexpected reply: the lab is of another version");
    };
    let text = match arguments.output.encoding() {
        None => probes.iter().map(text).collect(),
        Some(encoding) => {
            encoding.encode(&JsonProbes { schema: "palisade.lab-probe/v1", probes: &probes })?
        }
    };
    output::print(&text).context("can't write the answer")?;
    Ok(Outcome::of(probes.iter().all(|p| p.answered && p.agrees)))
}

fn text(probe: &ProbeAnswer) -> String {
    let style = if probe.answered { Style::Good } else { Style::Bad };
    let mut out = format!(
        "{}  {} → {}  {}; expected: {}\n",
        styled(style, &probe.outcome),
        probe.source,
        probe.destination,
        probe.on,
        probe.expected
    );
    for reason in &probe.reasons {
        out.push_str(&format!("  {reason}\n"));
    }
    if !probe.agrees {
        out.push_str(&format!("  {}\n", styled(Style::Bad, "kernel and engine disagree")));
    }
    out
}
