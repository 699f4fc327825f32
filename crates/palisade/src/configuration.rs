//! `palisade.toml`: settings of a repository for the options of the command line.
//!
//! A setting becomes the default value of the option of the same name, so that the command line and the environment
//! take precedence, and a new option needs nothing here.
//!
//! ```text
//!  command line ──lenient parse──► verb, first input ──search upwards──► palisade.toml
//!                                                                            │ settings
//!  command line ──parse──► arguments ◄── command with other defaults ◄───────┘
//! ```
//!
//! The file comes with a repository, which need not be trusted: it can't start programs or name a cluster, and
//! what it hides is said.

mod file;
mod search;
mod settings;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Args, Command, parser::ValueSource};

use crate::{
    output::{self, Style, styled},
    tips,
};
use settings::Setting;

/// The name in clap of the option that selects the file, which marks the verbs that have settings. The agent has an option
/// `--config` of its own.
const FILE_ID: &str = "palisade_toml";

/// The options that select the file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArguments {
    /// File with settings for options that are not given [default: palisade.toml in the directory of the first input, or in the nearest directory above it]
    #[arg(id = FILE_ID, long = "config", value_name = "FILE", conflicts_with = "no_config")]
    config: Option<PathBuf>,
    /// Ignore palisade.toml
    #[arg(long)]
    no_config: bool,
}

/// Parses the command line with the settings of `palisade.toml`. Help and wrong command lines end the process.
///
/// # Errors
/// When the file can't be read, or has a setting that does not exist, is wrong or is not allowed, and when help can't be
/// written.
pub(crate) fn matches(command: &mut Command) -> Result<ArgMatches> {
    let mut named = Vec::new();
    // Help and versions are left to the real parse.
    if let Ok(lenient) = command.clone().ignore_errors(true).try_get_matches() {
        let (verbs, leaf) = verbs(&lenient);
        named.clone_from(&verbs);
        if let Some(file) = search::file(leaf)? {
            let settings = file::read(&file)?;
            let settings = settings::of_verb(command, &verbs, settings, &file)?;
            apply(command, &verbs, leaf, &settings);
        }
    }
    command.try_get_matches_from_mut(std::env::args_os()).or_else(|mut error| {
        if error.use_stderr() {
            tips::add(&mut error, command, &named);
            error.exit();
        }
        // clap ignores that help can't be written.
        output::print(&error.render().ansi().to_string()).context("can't write the help")?;
        std::process::exit(0)
    })
}

/// The verb of a command line, with its inner verb, and their arguments.
fn verbs(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut verbs, mut leaf) = (Vec::new(), matches);
    while let Some((verb, inner)) = leaf.subcommand() {
        verbs.push(verb.to_owned());
        leaf = inner;
    }
    (verbs, leaf)
}

/// Whether the command line itself has an argument.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    let source = matches.try_contains_id(id).is_ok().then(|| matches.value_source(id)).flatten();
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// Makes the settings the defaults of a verb, and says which of them hide something.
fn apply(command: &mut Command, verbs: &[String], leaf: &ArgMatches, settings: &[Setting]) {
    for setting in settings {
        let Setting { id, global, values, place, key, .. } = setting;
        if is_given(leaf, id) || (setting.is_paths() && has_other_inputs(leaf)) {
            continue;
        }
        let owned = std::mem::take(command);
        *command = with_default(owned, if *global { &[] } else { verbs }, id, values);
        if setting.is_paths() {
            note(&format!("reading {}, as {place} says", values.join(", ")));
        } else if setting.hides() && values.iter().any(|v| v != "false") {
            note(&format!("{place} sets {key}: {}", setting.consequence()));
        }
    }
}

/// Whether the command line has inputs that stand in place of the file's paths.
fn has_other_inputs(leaf: &ArgMatches) -> bool {
    let given = |id| is_given(leaf, id);
    given("kustomize") || given("helm") || ((given("context") || given("kubeconfig")) && !given("live"))
}

/// Returns the command with other default values of an argument of a verb.
fn with_default(command: Command, verbs: &[String], id: &str, values: &[String]) -> Command {
    match verbs.split_first() {
        Some((verb, inner)) => command.mut_subcommand(verb, |verb| with_default(verb, inner, id, values)),
        None => {
            // clap keeps defaults for the life of the process.
            let values: Vec<&'static str> = values.iter().map(|value| &*value.clone().leak()).collect();
            command.mut_arg(id, |arg| arg.required(false).default_values(values))
        }
    }
}

fn note(text: &str) {
    output::note(&format!("{} {text}\n", styled(Style::Strong, "note:")));
}
