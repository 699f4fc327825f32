//! `palisade agent`: the node agent as a process.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches, Id};
use palisade_agent::{
    config::{self, Config},
    daemon::{self, Once, Restored},
    socket::Explained,
};
use palisade_manifest::Loaded;
use palisade_policy::Cluster;

use crate::{
    can::{Spec, answer, json, question, render},
    exit::Outcome,
    node,
    output::{self, Encoding, Format},
    reasons,
    verdict::Conclusion,
};

pub(crate) const HELP: &str = "\
Every setting can be given as a flag, as an environment variable or in the settings file. Flags override the environment, which overrides the file.

The rules remain active when the agent exits, for any reason; `--remove` removes them.

Examples:
  palisade agent                                    on a cluster node, as the DaemonSet runs it
  palisade agent --source dir:/etc/palisade/policies --node-name n1
  palisade agent --dry-run --node-name n1           print what it would program; needs no root
  palisade agent --once --source dir:manifests      program the kernel and exit
  palisade agent --restore                          close the pods of a node that has just booted
  palisade agent --remove                           remove the rules and all other traces
  palisade agent --print-config                     print the effective settings

Exit codes: 0 stopped or done, 2 error.";

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    mode: Mode,
    /// YAML file with settings [default: /etc/palisade/agent.yaml, if it exists]
    #[arg(long, env = "PALISADE_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Output format of --dry-run
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Modes other than running as a daemon.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Mode {
    /// Print this node's plan and its nftables rules; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Program the kernel from the current state of the source, and exit
    #[arg(long)]
    once: bool,
    /// After a restart of the node: deny new connections of its pods until an agent has programmed their policies, and exit
    #[arg(long)]
    restore: bool,
    /// Remove the rules and all other traces, and exit
    #[arg(long)]
    remove: bool,
    /// Print the effective settings, and exit
    #[arg(long)]
    print_config: bool,
}

/// The settings given by flags and environment variables. [`Config::read`] needs to know which of them were given.
#[derive(Clone, Debug)]
struct Settings(ArgMatches);

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        Config::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Config::augment_args_for_update(command)
    }

    fn group_id() -> Option<Id> {
        Config::group_id()
    }
}

/// Runs the agent, or does what the mode requests.
pub(crate) fn run(arguments: &Agent) -> Result<Outcome> {
    let config = Config::read(&arguments.settings.0, arguments.config.as_deref())?;
    if arguments.mode.print_config {
        let text = config.to_yaml().map_err(anyhow::Error::msg).context("can't print the settings")?;
        output::print(&text).context("can't write")?;
        return Ok(Outcome::Yes);
    }
    palisade_agent::log::start(config.log_format, config.log_level);
    if arguments.mode.dry_run {
        let planned = daemon::dry_run(&config)?;
        let text = match arguments.output.encoding() {
            None => node::plan_text(&planned.view, &planned.nftables)?,
            Some(encoding) => node::plan_document(&planned.view, &planned.nftables, encoding)?,
        };
        output::print(&text).context("can't write the plan")?;
    } else if arguments.mode.once {
        match daemon::once(&config)? {
            Once::Done => {}
            Once::Refused => bail!("the kernel rejected a part of the plan; see the log"),
            Once::NotReviewed => bail!(
                "the rules are active, but established connections that they deny were not revoked; see the log"
            ),
        }
    } else if arguments.mode.restore {
        let text = match daemon::restore(&config)? {
            Restored::Closed(pods) => {
                format!("new connections of pods are denied until an agent is ready: {pods}\n")
            }
            Restored::HasRules => "table inet palisade is in place, nothing was changed\n".to_owned(),
            Restored::NoState => "no agent has kept a state here, nothing was changed\n".to_owned(),
        };
        output::print(&text).context("can't write")?;
    } else if arguments.mode.remove {
        let removed = daemon::remove(&config)?;
        let table =
            if removed.table { "removed table inet palisade" } else { "there is no table inet palisade" };
        let freed = match removed.connections {
            0 => String::new(),
            n => format!("; restored connections: {n}"),
        };
        let cni = if removed.cni { "; removed palisade-cni from the CNI configuration" } else { "" };
        output::print(&format!("{table}{freed}{cni}\n")).context("can't write")?;
        if let Some(why) = removed.left {
            bail!("some connections are still marked as revoked, which an agent would drop again: {why}");
        }
    } else {
        daemon::run(&config, Arc::new(explain), Arc::new(reasons::lines))?;
    }
    Ok(Outcome::Yes)
}

/// The default path of the settings file, as the help states it.
const _: () = assert!(matches!(config::DEFAULT_FILE.as_bytes(), b"/etc/palisade/agent.yaml"));

/// Decides a connection for `palisade node explain`, as `palisade can` does.
fn explain(cluster: &Cluster, source: &str, destination: &str, namespace: &str) -> Result<Explained, String> {
    let parse = |what: &str, text: &str| text.parse::<Spec>().with_context(|| format!("{what} `{text}`"));
    let explained = || -> Result<Explained> {
        let (source, destination) = (parse("source", source)?, parse("destination", destination)?);
        let question = question::resolve(cluster, &source, &destination, namespace, None)?;
        let answer = answer::answer(cluster, question);
        // An agent has read everything, and objects of a cluster are in no file.
        let loaded = Loaded {
            cluster: Cluster { policies: cluster.policies.clone(), ..Cluster::default() },
            ..Loaded::default()
        };
        Ok(Explained {
            allowed: answer.verdict == Conclusion::Allowed,
            text: render::text(&answer, answer.verdict),
            json: serde_json::from_str(&json::document(
                &answer,
                answer.verdict,
                &loaded,
                &[],
                Encoding::Json,
            )?)?,
        })
    };
    explained().map_err(|error| format!("{error:#}"))
}
