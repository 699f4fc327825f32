//! The `palisade` command line: parses arguments, runs a verb, renders its result.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _, FromArgMatches as _};

mod addresses;
#[cfg(all(target_os = "linux", feature = "agent"))]
mod agent;
#[cfg(all(target_os = "linux", feature = "agent"))]
mod agent_socket;
#[cfg(feature = "live")]
mod agents;
mod arguments;
mod assertions;
mod audited;
mod can;
mod cluster;
#[cfg(all(target_os = "linux", feature = "agent"))]
mod cni;
#[cfg(feature = "live")]
mod columns;
mod complete;
mod completion_scripts;
mod configuration;
mod connection_ends;
mod connections;
mod describe;
mod diagram;
mod dial;
mod diff;
#[cfg(all(target_os = "linux", feature = "agent"))]
mod doctor;
mod entrances;
mod escape;
mod exit;
mod explain;
mod fields;
#[cfg(feature = "live")]
mod flows;
mod future_pods;
mod inputs;
mod junit;
#[cfg(all(target_os = "linux", feature = "lab"))]
mod lab;
mod left_out;
mod line_ends;
mod lint;
mod man;
mod matrix;
#[cfg(all(target_os = "linux", feature = "agent"))]
mod node;
mod output;
mod overview;
mod page;
mod plugin;
mod reasons;
mod replay;
mod report;
mod review;
#[cfg(feature = "live")]
mod snapshot;
#[cfg(feature = "live")]
mod status;
mod suggest;
mod tips;
mod traffic;
#[cfg(feature = "ui")]
mod ui;
mod unified;
mod verdict;

use arguments::{Arguments, Verb};
use exit::Outcome;
use plugin::Invocation;

fn main() -> ExitCode {
    // No thread may start before a lab verb has entered its namespaces: see `lab`.
    let called = Invocation::now();
    if called == Invocation::Completion {
        let words: Vec<String> = std::env::args().skip(1).collect();
        _ = plugin::complete(&Arguments::command(), &words);
        return ExitCode::SUCCESS;
    }
    #[cfg(all(target_os = "linux", feature = "agent"))]
    if called == Invocation::Cni {
        return cni::run().map_or_else(|error| failed(&error), Into::into);
    }
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == completion_scripts::ASK) {
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        _ = plugin::complete(&Arguments::command(), &words);
        return ExitCode::SUCCESS;
    }
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == dial::WORD) {
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        return dial::run(&words).map_or_else(|error| failed(&error), Into::into);
    }
    let mut command = Arguments::command();
    if called == Invocation::Plugin {
        command = plugin::renamed(command);
    }
    let matches = match configuration::matches(&mut command) {
        Ok(matches) => matches,
        Err(error) => return failed(&error),
    };
    let arguments =
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    arguments.color.apply();
    match run(arguments.verb) {
        Ok(outcome) => outcome.into(),
        Err(error) => failed(&error),
    }
}

/// Prints an error that ends the program.
fn failed(error: &anyhow::Error) -> ExitCode {
    let heading = output::styled(output::Style::Bad, "error:");
    output::note(&format!("{heading} {error:#}\n"));
    ExitCode::from(exit::ERROR)
}

fn run(verb: Verb) -> Result<Outcome> {
    match verb {
        #[cfg(all(target_os = "linux", feature = "agent"))]
        Verb::Agent(arguments) => agent::run(&arguments),
        #[cfg(not(all(target_os = "linux", feature = "agent")))]
        Verb::Agent(_) => left_out::verb("agent"),
        #[cfg(all(target_os = "linux", feature = "agent"))]
        Verb::Cni => cni::run(),
        #[cfg(not(all(target_os = "linux", feature = "agent")))]
        Verb::Cni(_) => left_out::verb("cni"),
        Verb::Can(arguments) => can::run(&arguments),
        Verb::Connections(arguments) => connections::run(&arguments),
        Verb::Describe(arguments) => describe::run(&arguments),
        Verb::Diff(arguments) => diff::run(&arguments),
        #[cfg(all(target_os = "linux", feature = "agent"))]
        Verb::Doctor(arguments) => doctor::run(&arguments),
        #[cfg(not(all(target_os = "linux", feature = "agent")))]
        Verb::Doctor(_) => left_out::verb("doctor"),
        Verb::Explain(arguments) => explain::run(&arguments),
        #[cfg(feature = "live")]
        Verb::Flows(arguments) => flows::run(&arguments),
        #[cfg(not(feature = "live"))]
        Verb::Flows(_) => left_out::verb("flows"),
        #[cfg(all(target_os = "linux", feature = "lab"))]
        Verb::Lab(arguments) => lab::run(&arguments.verb),
        #[cfg(not(all(target_os = "linux", feature = "lab")))]
        Verb::Lab(_) => left_out::verb("lab"),
        Verb::Lint(arguments) => lint::run(&arguments),
        Verb::Overview(arguments) => overview::run(&arguments),
        Verb::Replay(arguments) => replay::run(arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Review(arguments) => review::run(&arguments),
        #[cfg(feature = "live")]
        Verb::Snapshot(arguments) => snapshot::run(&arguments),
        #[cfg(not(feature = "live"))]
        Verb::Snapshot(_) => left_out::verb("snapshot"),
        Verb::Suggest(arguments) => suggest::run(arguments),
        #[cfg(feature = "live")]
        Verb::Status(arguments) => status::run(&arguments),
        #[cfg(not(feature = "live"))]
        Verb::Status(_) => left_out::verb("status"),
        Verb::Test(arguments) => assertions::run(arguments),
        #[cfg(feature = "ui")]
        Verb::Ui(arguments) => ui::run(*arguments),
        #[cfg(not(feature = "ui"))]
        Verb::Ui(_) => left_out::verb("ui"),
        Verb::Completions(arguments) => completions(&Arguments::command(), arguments.shell),
        Verb::Man(arguments) => man::run(&arguments, Arguments::command()),
        #[cfg(all(target_os = "linux", feature = "agent"))]
        Verb::Node(arguments) => node::run(&arguments),
        #[cfg(not(all(target_os = "linux", feature = "agent")))]
        Verb::Node(_) => left_out::verb("node"),
    }
}

fn completions(command: &Command, shell: clap_complete::Shell) -> Result<Outcome> {
    if let Some(script) = completion_scripts::script(shell) {
        output::print(script).context("can't write the completions")?;
        return Ok(Outcome::Yes);
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut left_out::visible(command), "palisade", &mut script);
    let script = String::from_utf8(script).context("the completions are not UTF-8")?;
    output::print(&script).context("can't write the completions")?;
    Ok(Outcome::Yes)
}
