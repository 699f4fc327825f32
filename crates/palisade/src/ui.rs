//! `palisade ui`: a web application about policies and connections, for the user of this machine.
//!
//! ```text
//! files, cluster ─► follow (a thread) ─► Shown: a World with its report, or what is wrong ─► api ─► server ─► browser
//!                                                                                                    ▲
//!                                                                                  access ───────────┘ host, origin, token
//! ```
//!
//! The pages are in the folder `ui` of the repository. What the server answers is what the verbs print with `-o json`.

mod access;
mod answers;
mod api;
mod assets;
mod body;
mod flows;
mod follow;
mod labels;
mod places;
mod policy_text;
mod query;
mod reply;
mod server;
mod state;
mod token;
mod trial;
mod turns;
mod world;

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::net::TcpListener;

use crate::{cluster, entrances::ControllerArguments, exit::Outcome, inputs::InputArguments, output};
use access::Gate;
use flows::Flows;
use state::Board;
use token::Token;
use world::Source;

pub(crate) const HELP: &str = "\
The pages are served on 127.0.0.1 only. The printed address contains a token, which is new each time; without it, requests are rejected. Nothing is written to files or to a cluster.

Files are read again when they change. If a file is invalid, or the cluster can't be reached, the pages say so and continue to show what was read before. A cluster is read again every 60 seconds (--interval) while a page is open. Standard input and rendered charts are read once.

The page Flows shows the flows that agents recorded: from a file (--flows), or from the agents of the cluster, which are queried as `palisade flows` does while the page is open.

With more than 2,000 workloads, the pages show namespaces instead of workloads.

Examples:
  palisade ui -f examples/shop
  palisade ui                          the cluster of the kubeconfig's current context
  palisade ui -f deploy --live         that cluster with deploy applied to it
  palisade ui -f examples/shop --port 8080
  palisade flows -o json > flows.json && palisade ui -f deploy --flows flows.json

Exit codes: 2 error. It runs until it is interrupted.";

/// Arguments of `ui`.
#[derive(Debug, Args)]
pub(crate) struct UiArguments {
    #[command(flatten)]
    sources: InputArguments,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Namespace of names and manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Include nodes and their host-network pods
    #[arg(long)]
    nodes: bool,
    /// Show recorded flows: what `palisade flows -o json` wrote
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    /// The namespace of the agents whose flows are shown [default: palisade-system]
    #[cfg(feature = "live")]
    #[arg(long, value_name = "NAME", help_heading = cluster::HEADING)]
    namespace_of_agents: Option<String>,
    /// The port to listen on, on 127.0.0.1 [default: one that is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How often a cluster is read again while a page is open
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = cluster::time, help_heading = cluster::HEADING)]
    interval: Duration,
}

#[cfg(feature = "live")]
impl UiArguments {
    /// The agents of the cluster that is shown.
    fn agents(&self) -> crate::agents::AgentsArguments {
        let namespace = self.namespace_of_agents.clone();
        crate::agents::AgentsArguments::of_cluster(&self.sources.cluster, namespace)
    }
}

/// Serves the pages until the process is interrupted.
///
/// # Errors
/// When the input or the flows can't be read at the start, or the port can't be used.
pub(crate) fn run(mut arguments: UiArguments) -> Result<Outcome> {
    // With other verbs, --live applies manifests; without any, the cluster alone is meant.
    if arguments.sources.files.is_empty() && arguments.sources.render.is_empty() {
        arguments.sources.live = false;
    }
    let port = arguments.port.unwrap_or(0);
    let source = Arc::new(Source::new(arguments));
    let flows = Flows::start(&source)?;
    let first = source.read()?;
    let token = Token::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the server")?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("can't listen on 127.0.0.1:{port}"))?;
        let address = listener.local_addr().context("can't listen on 127.0.0.1")?;
        let url = format!("http://{address}/#token={}", token.text());
        let board = Arc::new(Board::new(first));
        follow::start(Arc::clone(&source), Arc::clone(&board))?;
        output::print(&format!("{url}\n")).context("can't print the address")?;
        output::note("open this address in a browser of this machine; Ctrl-C ends\n");
        let gate = Gate::new(address, token);
        server::serve(listener, Arc::new(api::Api::new(gate, source, board, flows))).await;
        Ok(Outcome::Yes)
    })
}
