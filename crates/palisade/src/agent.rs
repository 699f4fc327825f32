//! `palisade agent`: the node agent as a process.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches, Id};
use palisade_agent::{
    config::{self, Config},
    daemon::{self, Once},
    socket::Explained,
};
use palisade_policy::Cluster;

use crate::{
    can::{Spec, answer, question, render},
    exit::Outcome,
    node,
    output::{self, Format},
};

pub(crate) const HELP: &str = "\
Every setting is a flag, an environment variable and a key of the file alike; a flag wins over the environment, that over the file.

The rules stay in force when the agent ends, however it ends; `--remove` takes them away.

Examples:
  palisade agent                                    on a node of a cluster, as a DaemonSet does
  palisade agent --source dir:/etc/palisade/policies --node-name n1
  palisade agent --dry-run --node-name n1           what it would program; needs no root
  palisade agent --once --source dir:manifests      program the kernel and end
  palisade agent --remove                           take every trace away
  palisade agent --print-config                     the settings, from wherever they come

Exit codes: 0 it was ended or is done, 2 error.";

/// What `agent` takes.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    mode: Mode,
    /// A file of settings, as YAML [default: /etc/palisade/agent.yaml, if it exists]
    #[arg(long, env = "PALISADE_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The form of what --dry-run prints
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
}

/// What to do instead of running.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Mode {
    /// Print this node's plan and the nftables text that it means; touch nothing
    #[arg(long)]
    dry_run: bool,
    /// Program the kernel with what the source says now, and end
    #[arg(long)]
    once: bool,
    /// Take away the rules and every other trace, and end
    #[arg(long)]
    remove: bool,
    /// Print the settings, and end
    #[arg(long)]
    print_config: bool,
}

/// The settings in flags and in the environment, as [`Config::read`] takes them: with the information which were given.
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
        let text = match arguments.output {
            Format::Text => node::plan_text(&planned.view, &planned.nftables)?,
            Format::Json => node::plan_json(&planned.view, &planned.nftables)?,
        };
        output::print(&text).context("can't write the plan")?;
    } else if arguments.mode.once {
        match daemon::once(&config)? {
            Once::Done => {}
            Once::Refused => bail!("the kernel did not take the whole plan; the log says what it refused"),
            Once::NotReviewed => bail!(
                "the rules are in force, but open connections that they deny were not cut; the log says why"
            ),
        }
    } else if arguments.mode.remove {
        let removed = daemon::remove(&config)?;
        let table = if removed.table { "the table inet palisade is gone" } else { "there was no table" };
        let freed = match removed.connections {
            0 => String::new(),
            n => format!("; cut connections that may go on: {n}"),
        };
        output::print(&format!("{table}{freed}\n")).context("can't write")?;
        if let Some(why) = removed.left {
            bail!("marks of cut connections are left, which count again if the agent comes back: {why}");
        }
    } else {
        daemon::run(&config, Arc::new(explain))?;
    }
    Ok(Outcome::Yes)
}

/// The default place of the settings, which the help promises.
const _: () = assert!(matches!(config::DEFAULT_FILE.as_bytes(), b"/etc/palisade/agent.yaml"));

/// Decides a connection for `palisade node explain`, as `palisade can` does.
fn explain(cluster: &Cluster, source: &str, destination: &str, namespace: &str) -> Result<Explained, String> {
    let parse = |what: &str, text: &str| text.parse::<Spec>().with_context(|| format!("{what} `{text}`"));
    let explained = || -> Result<Explained> {
        let (source, destination) = (parse("source", source)?, parse("destination", destination)?);
        let question = question::resolve(cluster, &source, &destination, namespace)?;
        let answer = answer::answer(cluster, question);
        Ok(Explained {
            allowed: answer.verdict.is_allow(),
            text: render::text(&answer),
            json: serde_json::from_str(&render::json(&answer, &[])?)?,
        })
    };
    explained().map_err(|error| format!("{error:#}"))
}
