//! `palisade man`: manual pages, generated from the definitions behind `--help`.

use std::{fs, io, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Command};

use crate::{exit::Outcome, left_out, output};

pub(crate) const HELP: &str = "\
Examples:
  palisade man can | man -l -
  palisade man lab run > palisade-lab-run.1
  palisade man --dir ~/.local/share/man/man1";

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The verb, such as `can` or `lab run` [default: the program itself]
    #[arg(value_name = "VERB", conflicts_with = "dir")]
    verb: Vec<String>,
    /// Write the pages of all verbs to this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes manual pages of `palisade`, the whole command line.
pub(crate) fn run(arguments: &Man, mut palisade: Command) -> Result<Outcome> {
    // Sets the names of inner verbs as on the command line: `palisade lab run`.
    palisade.build();
    match &arguments.dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
            for (name, text) in pages(&palisade).context("can't generate the manual pages")? {
                let path = dir.join(name);
                fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
            }
        }
        None => {
            let mut command = &palisade;
            if let Some(word) = arguments.verb.first().filter(|word| left_out::is_verb(word)) {
                return left_out::verb(word);
            }
            for word in &arguments.verb {
                let Some(inner) = command.find_subcommand(word) else {
                    bail!("unknown verb `{word}`; see `palisade --help`");
                };
                command = inner;
            }
            let text = page(command).context("can't generate the manual page")?;
            output::stream(|out| out.write_all(&text)).context("can't write the manual page")?;
        }
    }
    Ok(Outcome::Yes)
}

/// Returns the page's name: `palisade-lab-run`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let source = concat!("palisade ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).manual("Palisade").source(source).render(&mut out)?;
    Ok(out)
}

/// Returns the pages of a verb and of its inner verbs, with their file names.
fn pages(command: &Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = vec![(format!("{}.1", name(command)), page(command)?)];
    for inner in command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
        all.extend(pages(inner)?);
    }
    Ok(all)
}
