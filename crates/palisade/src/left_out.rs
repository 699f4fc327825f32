//! What this build can't do because a feature of the crate was left out, or because only Linux can: the verbs are known all the
//! same, so that their use is answered with how to get them.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::{Args, Command};

use crate::exit::Outcome;

/// What a feature of the crate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The verbs of a node.
    Agent,
    /// The verb `lab`.
    Lab,
    /// Reading running clusters.
    Live,
    /// The verb `ui`.
    Ui,
}

impl Part {
    fn feature(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Lab => "lab",
            Self::Live => "live",
            Self::Ui => "ui",
        }
    }

    fn only_on_linux(self) -> bool {
        matches!(self, Self::Agent | Self::Lab)
    }

    /// Whether this build has it.
    fn is_here(self) -> bool {
        let linux = cfg!(target_os = "linux") || !self.only_on_linux();
        linux
            && match self {
                Self::Agent => cfg!(feature = "agent"),
                Self::Lab => cfg!(feature = "lab"),
                Self::Live => cfg!(feature = "live"),
                Self::Ui => cfg!(feature = "ui"),
            }
    }
}

/// The verbs that need a part.
const VERBS: [(&str, Part); 9] = [
    ("agent", Part::Agent),
    ("cni", Part::Agent),
    ("doctor", Part::Agent),
    ("flows", Part::Live),
    ("lab", Part::Lab),
    ("node", Part::Agent),
    ("snapshot", Part::Live),
    ("status", Part::Live),
    ("ui", Part::Ui),
];

/// Whatever follows a verb that this build leaves out.
#[derive(Debug, Args)]
pub(crate) struct Words {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Whether a word is a verb that this build leaves out.
pub(crate) fn is_verb(word: &str) -> bool {
    VERBS.iter().any(|(verb, part)| *verb == word && !part.is_here())
}

/// Returns the command line without the verbs that this build leaves out: scripts of shells offer hidden ones too.
pub(crate) fn visible(command: &Command) -> Command {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    Command::new("palisade").args(command.get_arguments().cloned()).subcommands(verbs)
}

/// The answer to a verb that this build leaves out.
///
/// # Errors
/// Always, if it does.
pub(crate) fn verb(word: &str) -> Result<Outcome> {
    match VERBS.iter().find(|(verb, _)| *verb == word) {
        Some((_, part)) if part.only_on_linux() && !cfg!(target_os = "linux") => {
            bail!("`palisade {word}` requires Linux")
        }
        Some((_, part)) => bail!("this build has no `palisade {word}`: {}", cure(*part)),
        None => bail!("unknown verb `{word}`; see `palisade --help`"),
    }
}

/// How to get a part.
fn cure(part: Part) -> String {
    format!(
        "it was built without the feature `{}`; `cargo install --locked --path crates/palisade` builds everything",
        part.feature()
    )
}

/// The error of reading a running cluster in a build without a client. `or` is what to do instead.
#[cfg(not(feature = "live"))]
pub(crate) fn no_client(or: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "this build has no Kubernetes client and can't read a running cluster: {}; {or}",
        cure(Part::Live)
    )
}

/// The error of asking a lab for records of flows in a build without the agent, whose code makes them. `option` is how it was asked.
#[cfg(all(target_os = "linux", feature = "lab", not(feature = "agent")))]
pub(crate) fn no_records(option: &str) -> anyhow::Error {
    anyhow::anyhow!("this build makes no records of flows, which `{option}` requires: {}", cure(Part::Agent))
}

/// The end of the program's help.
pub(crate) fn help() -> String {
    let mut help = "Verbs by task:\n".to_owned();
    for (task, verbs) in TASKS {
        let here: Vec<&str> = verbs.iter().copied().filter(|verb| !is_verb(verb)).collect();
        if !here.is_empty() {
            help += &format!("  {task:<22}  {}\n", here.join(", "));
        }
    }
    help += HELP;
    let missing: Vec<&str> =
        VERBS.iter().filter(|(_, part)| !part.is_here()).map(|(verb, _)| *verb).collect();
    if !missing.is_empty() {
        let client = if Part::Live.is_here() { "" } else { ", and no Kubernetes client" };
        help += &format!("\n\nNot in this build: {}{client}.", missing.join(", "));
    }
    help
}

/// What verbs are for. A verb of a shell, and one that only programs call, has no task.
const TASKS: [(&str, &[&str]); 5] = [
    (
        "understand policies",
        &["overview", "can", "explain", "connections", "describe", "report", "ui", "snapshot"],
    ),
    ("review a change", &["diff", "lint", "test", "review"]),
    ("try with real packets", &["lab"]),
    ("use recorded traffic", &["flows", "replay", "suggest"]),
    ("enforce policies", &["doctor", "agent", "node", "status"]),
];

const HELP: &str = "
Start with `palisade overview`, for the cluster of the kubeconfig's current context, or with -f for manifests. `palisade VERB --help` ends with examples.

Exit codes: 0 yes (allowed, identical, done), 1 no (denied, different), 2 error.
Color is used on terminals only, and never if NO_COLOR is set; --color overrides that.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn verbs_are_hidden_exactly_if_this_build_leaves_them_out() {
        let command = Arguments::command();
        for verb in command.get_subcommands() {
            assert_eq!(verb.is_hide_set(), is_verb(verb.get_name()), "{}", verb.get_name());
        }
        assert!(VERBS.iter().all(|(verb, _)| command.find_subcommand(verb).is_some()));
    }

    #[test]
    fn a_verb_that_is_left_out_says_how_to_get_it() {
        for (word, part) in VERBS.iter().filter(|(_, part)| !part.is_here()) {
            let words = ["palisade", word, "--help", "-x", "y", "--", "z"];
            assert!(Arguments::command().try_get_matches_from(words).is_ok(), "{word}");
            let error = verb(word).unwrap_err().to_string();
            let reason = if part.only_on_linux() && !cfg!(target_os = "linux") {
                "requires Linux"
            } else {
                part.feature()
            };
            assert!(error.contains(word) && error.contains(reason), "{error}");
        }
    }
}
