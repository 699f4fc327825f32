//! What to type instead of a wrong command line, where clap can't know it.

use std::{
    error::Error as _,
    num::{IntErrorKind, ParseIntError},
};

use clap::{
    Arg, Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Adds a tip to the error of a command line, if there is one. `verbs` are the verb and its inner verb.
pub(crate) fn add(error: &mut Error, command: &Command, verbs: &[String]) {
    if let Some(message) = not_a_number(error) {
        *error = Error::raw(error.kind(), message).with_cmd(command);
        return;
    }
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => unexpected_word(error, command, verbs),
        ErrorKind::MissingRequiredArgument if verbs == ["suggest"] => {
            Some("--from-services needs no records: it reads what manifests show".to_owned())
        }
        _ => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// What is wrong with a value that has to be a whole number. The standard library speaks of digits and strings.
fn not_a_number(error: &Error) -> Option<String> {
    let why = match error.source()?.downcast_ref::<ParseIntError>()?.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "the number is too large",
        _ => "not a whole number",
    };
    let [Some(ContextValue::String(argument)), Some(ContextValue::String(value))] =
        [error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue)]
    else {
        return None;
    };
    // As clap ends its own.
    Some(format!("invalid value '{value}' for '{argument}': {why}\n\nFor more information, try '--help'.\n"))
}

/// A word that the verb doesn't take: one too many, or `-f` where the manifests have no option.
fn unexpected_word(error: &Error, command: &Command, verbs: &[String]) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let verb = verbs.iter().try_fold(command, |command, verb| command.find_subcommand(verb))?;
    if word == "-f" || word == "--file" {
        let is_paths = |argument: &Arg| {
            argument.get_value_names().is_some_and(|names| names.iter().any(|name| name == "PATH"))
        };
        let takes_paths = verb.get_positionals().any(is_paths);
        return takes_paths
            .then(|| format!("manifests are given without {word}: 'palisade {} PATH'", verbs.join(" ")));
    }
    if word.starts_with('-') {
        return None;
    }
    let takes = |name: &str| verb.get_arguments().any(|argument| argument.get_long() == Some(name));
    let is_port = word.split('/').next().is_some_and(|port| port.parse::<u16>().is_ok());
    if is_port && verb.get_positionals().count() == 2 {
        return Some(format!("the port is part of the destination: DST:{word}"));
    }
    takes("file").then(|| format!("manifests are given with -f: '-f {word}'"))
}
