//! `kubectl palisade`: the program as a plugin of kubectl.
//!
//! Invoked as `kubectl-palisade`, its help shows `kubectl palisade`. Invoked as `kubectl_complete-palisade`, it completes the
//! command line for kubectl: one candidate per line, then a line with the shell's completion directive.

use std::{env, ffi::OsString, path::Path};

use clap::Command;

use crate::{
    complete::{self, Wanted},
    output,
};

/// The name by which the program was invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Its own name, or any other.
    Palisade,
    /// A plugin of kubectl.
    Plugin,
    /// The CNI plugin, as the agent installs it.
    Cni,
    /// kubectl's completion of a plugin's command line.
    Completion,
}

impl Invocation {
    /// Reads it from the first word of the command line.
    pub(crate) fn now() -> Self {
        env::args_os().next().map_or(Self::Palisade, |word| Self::of(&word))
    }

    fn of(word: &OsString) -> Self {
        let name = Path::new(word).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match name.strip_suffix(".exe").unwrap_or(&name) {
            // kubectl replaces dashes in the name of a plugin by underscores.
            "kubectl-palisade" | "kubectl_palisade" => Self::Plugin,
            "palisade-cni" => Self::Cni,
            "kubectl_complete-palisade" => Self::Completion,
            _ => Self::Palisade,
        }
    }
}

/// Renames the command line for use as a plugin.
pub(crate) fn renamed(command: Command) -> Command {
    let command = command.name("kubectl palisade").bin_name("kubectl palisade");
    with_examples(command)
}

/// Rewrites the examples.
fn with_examples(mut command: Command) -> Command {
    let text = |help: Option<&clap::builder::StyledStr>| help.map(|h| in_kubectl(&h.to_string()));
    if let Some(help) = text(command.get_after_help()) {
        command = command.after_help(help);
    }
    if let Some(help) = text(command.get_after_long_help()) {
        command = command.after_long_help(help);
    }
    command.mut_subcommands(with_examples)
}

/// Replaces `palisade` by `kubectl palisade` in commands: at the beginning of an indented line, after a pipe, or in
/// backquotes.
fn in_kubectl(text: &str) -> String {
    ["\n  ", "| ", "`"].iter().fold(text.to_owned(), |text, before| {
        text.replace(&format!("{before}palisade "), &format!("{before}kubectl palisade "))
    })
}

/// Only the candidates complete a word (cobra's `ShellCompDirectiveNoFileComp`).
const NO_FILES: u8 = 4;
/// Files may complete a word too (cobra's `ShellCompDirectiveDefault`).
const FILES_TOO: u8 = 0;

/// Prints the candidates for the last of `words`.
pub(crate) fn complete(command: &Command, words: &[String]) -> std::io::Result<()> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (&**last, before));
    let mut verb = command;
    for word in before {
        verb = verb.find_subcommand(word).unwrap_or(verb);
    }
    let mut out = String::new();
    let mut offer = |word: &str, about: Option<&clap::builder::StyledStr>| {
        if word.starts_with(last) {
            let about = about.map(|a| format!("\t{}", a.to_string().lines().next().unwrap_or_default()));
            out += &format!("{word}{}\n", about.unwrap_or_default());
        }
    };
    let options = || verb.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set());
    // The value of the option before it.
    let option = before.last().and_then(|word| {
        options().find(|a| {
            let short = a.get_short().is_some_and(|s| *word == format!("-{s}"));
            a.get_action().takes_values()
                && (short || a.get_long().is_some_and(|l| *word == format!("--{l}")))
        })
    });
    let mut directive = FILES_TOO;
    if let Some(option) = option {
        for value in option.get_possible_values().iter().filter(|v| !v.is_hide_set()) {
            offer(value.get_name(), value.get_help());
            directive = NO_FILES;
        }
        if let Some(wanted) = Wanted::after(before) {
            complete::names(before, last, wanted).iter().for_each(|name| offer(name, None));
            directive = NO_FILES;
        }
    } else if last.starts_with('-') {
        for option in options() {
            if let Some(long) = option.get_long() {
                offer(&format!("--{long}"), option.get_help());
            }
        }
        directive = NO_FILES;
    } else if verb.has_subcommands() {
        for inner in verb.get_subcommands().filter(|c| !c.is_hide_set()) {
            offer(inner.get_name(), inner.get_about());
        }
        directive = NO_FILES;
    } else if let Some(wanted) = Wanted::after(before) {
        complete::names(before, last, wanted).iter().for_each(|name| offer(name, None));
        directive = NO_FILES;
    }
    out += &format!(":{directive}\n");
    output::print(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (word, called) in [
            ("palisade", Invocation::Palisade),
            ("/usr/bin/kubectl-palisade", Invocation::Plugin),
            ("kubectl_palisade", Invocation::Plugin),
            ("/opt/cni/bin/palisade-cni", Invocation::Cni),
            ("kubectl-palisade.exe", Invocation::Plugin),
            ("./kubectl_complete-palisade", Invocation::Completion),
            ("", Invocation::Palisade),
        ] {
            assert_eq!(Invocation::of(&word.into()), called, "{word}");
        }
    }

    #[test]
    fn examples_are_rewritten_and_prose_is_not() {
        let text = "Examples:\n  palisade can a b\n  kubectl get x | palisade can - \nas `palisade can` does; a palisade is";
        assert_eq!(
            in_kubectl(text),
            "Examples:\n  kubectl palisade can a b\n  kubectl get x | kubectl palisade can - \nas `kubectl palisade can` \
             does; a palisade is"
        );
    }
}
