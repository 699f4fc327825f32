//! Checks the entries of the file against the options of the verbs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, Command};

use super::{
    FILE_ID,
    file::{Entry, Value},
};
use crate::left_out;

/// Options that start programs, which the file may not do.
const PROGRAMS: &[&str] = &["kustomize", "helm", "values", "set", "release-name", "render-timeout", "git"];

/// Options that name a cluster, which the file may not do.
const CLUSTERS: &[&str] = &["context", "kubeconfig", "live"];

/// Options that make no sense in the file.
const ITSELF: &[&str] =
    &["config", "no-config", "help", "version", "fix", "diff", "write-baseline", "init", "schema", "watch"];

/// Options that hide something, and what.
const HIDING: &[(&str, &str)] = &[
    ("allow-incomplete", "an answer from incomplete input is not an error"),
    ("keep-going", "invalid documents are skipped"),
    ("raw", "kustomizations and charts are read as they are"),
    ("quiet", "no answer and no warnings are printed"),
];

/// A verb that does what another one does, too, and so has the settings of that one's table for options that both have.
/// Those of its own table take precedence.
const INCLUDES: &[(&str, &str)] = &[("review", "lint")];

/// Options whose values are paths, relative to the file's directory.
const PATHS: &[&str] = &["paths", "file", "tests"];

/// Keys that are called otherwise than their option.
const KEYS: &[(&str, &str)] = &[("paths", "file"), ("families", "family")];

/// A setting for an option of the verb.
pub(super) struct Setting {
    /// The argument's name in clap.
    pub(super) id: String,
    /// Whether the option is one of all verbs.
    pub(super) global: bool,
    pub(super) key: String,
    pub(super) values: Vec<String>,
    /// `palisade.toml:3`
    pub(super) place: String,
}

impl Setting {
    /// Whether it is the list of inputs.
    pub(super) fn is_paths(&self) -> bool {
        self.key == "paths" || self.key == "file"
    }

    /// Whether it hides something that a user should know.
    pub(super) fn hides(&self) -> bool {
        HIDING.iter().any(|(key, _)| *key == self.key)
    }

    /// What it hides.
    pub(super) fn consequence(&self) -> &'static str {
        HIDING.iter().find(|(key, _)| *key == self.key).map_or("", |(_, what)| what)
    }
}

/// Returns the settings for a verb: those of its table, and those of all verbs. Every entry of the file is checked.
///
/// # Errors
/// When an entry is for no verb or option, has a wrong value, or is not allowed.
pub(super) fn of_verb(
    command: &Command,
    verbs: &[String],
    entries: Vec<Entry>,
    file: &Path,
) -> Result<Vec<Setting>> {
    let all = configurable(command);
    let mut settings: Vec<(usize, Setting)> = Vec::new();
    for entry in entries {
        // The options of a verb that this build leaves out are not known.
        if entry.verbs.first().is_some_and(|verb| left_out::is_verb(verb)) {
            continue;
        }
        let tables = entry.verbs.len();
        if tables > 0 && !all.iter().any(|(path, _)| path.starts_with(&entry.verbs)) {
            let known: Vec<String> = all.iter().map(|(path, _)| path.join(".")).collect();
            bail!(
                "{}: there is no table [{}]; there are {}",
                entry.place,
                entry.verbs.join("."),
                known.join(", ")
            );
        }
        if entry.key.is_empty() {
            continue;
        }
        is_allowed(&entry)?;
        let fitting: Vec<&(Vec<String>, &Command)> =
            all.iter().filter(|(path, _)| path.starts_with(&entry.verbs)).collect();
        let args: Vec<(&[String], &Arg)> =
            fitting.iter().filter_map(|(path, verb)| Some((&path[..], option(verb, &entry.key)?))).collect();
        let global = option(command, &entry.key).filter(|_| tables == 0);
        let Some(arg) = args.first().map(|(_, arg)| *arg).or(global) else {
            bail!(
                "{}: unknown key `{}`{}",
                entry.place,
                entry.key,
                suggestion(command, &fitting, &entry.key)
            );
        };
        let values = values(arg, &entry, file)?;
        let own = args.iter().find(|(path, _)| *path == verbs).map(|(_, arg)| *arg);
        let is_included = INCLUDES.iter().any(|(verb, other)| verbs == [*verb] && entry.verbs == [*other]);
        let own = own.or_else(|| {
            let verb = is_included.then(|| all.iter().find(|(path, _)| *path == verbs)).flatten();
            verb.and_then(|(_, verb)| option(verb, &entry.key))
        });
        if let Some(arg) = own.or(global) {
            let setting = Setting {
                id: arg.get_id().to_string(),
                global: own.is_none(),
                key: entry.key,
                values,
                place: entry.place,
            };
            // The table of another verb comes before the verb's own.
            settings.push((2 * tables - usize::from(is_included), setting));
        }
    }
    // The settings of a verb's own table come last, and take precedence.
    settings.sort_by_key(|(tables, _)| *tables);
    let mut out: Vec<Setting> = Vec::new();
    for (_, setting) in settings {
        out.retain(|other| other.id != setting.id);
        out.push(setting);
    }
    Ok(out)
}

/// The verbs that have settings, with their words.
fn configurable(command: &Command) -> Vec<(Vec<String>, &Command)> {
    let mut all = Vec::new();
    for verb in command.get_subcommands() {
        let name = verb.get_name().to_owned();
        if verb.get_arguments().any(|arg| arg.get_id() == FILE_ID) {
            all.push((vec![name.clone()], verb));
        }
        all.extend(
            configurable(verb).into_iter().map(|(inner, verb)| ([vec![name.clone()], inner].concat(), verb)),
        );
    }
    all
}

/// Returns the argument of a verb that a key is for.
fn option<'c>(verb: &'c Command, key: &str) -> Option<&'c Arg> {
    let name = KEYS.iter().find(|(own, _)| *own == key).map_or(key, |(_, option)| option);
    let mut all = verb.get_arguments();
    all.find(|arg| match arg.get_long() {
        Some(long) => long == name,
        // The lab's paths have no option. Those of `diff` are two things, so they are never the same.
        None => name == "file" && arg.get_id() == "paths" && arg.get_num_args().is_none(),
    })
}

fn is_allowed(entry: &Entry) -> Result<()> {
    let Entry { key, place, .. } = entry;
    if PROGRAMS.contains(&&**key) {
        bail!(
            "{place}: {key} starts programs, which a file that comes with a repository must not do; give it on the command line"
        );
    }
    if CLUSTERS.contains(&&**key) {
        bail!(
            "{place}: {key} names a cluster, which a file that comes with a repository must not do; give it on the command line"
        );
    }
    if ITSELF.contains(&&**key) {
        bail!("{place}: {key} can be given on the command line only");
    }
    Ok(())
}

fn suggestion(command: &Command, verbs: &[&(Vec<String>, &Command)], key: &str) -> String {
    let longs = verbs.iter().flat_map(|(_, verb)| verb.get_arguments()).chain(command.get_arguments());
    let mut known: Vec<&str> = longs.filter_map(Arg::get_long).chain(["paths"]).collect();
    known.retain(|k| !PROGRAMS.contains(k) && !CLUSTERS.contains(k) && !ITSELF.contains(k));
    known.sort_unstable();
    known.dedup();
    let near = known.iter().map(|k| (strsim::osa_distance(key, k), *k)).min();
    match near.filter(|(edits, near)| *edits <= near.len().div_ceil(4)) {
        Some((_, near)) => format!("; did you mean `{near}`?"),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// Returns the values of an entry as words of the command line, after the option's own checks.
fn values(arg: &Arg, entry: &Entry, file: &Path) -> Result<Vec<String>> {
    let Entry { key, value, place, .. } = entry;
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let takes_many = matches!(arg.get_action(), ArgAction::Append);
    let words = match value {
        Value::Bool(on) if is_flag => return Ok(vec![on.to_string()]),
        Value::Bool(_) => bail!("{place}: {key} takes a value, not true or false"),
        _ if is_flag => bail!("{place}: {key} is true or false"),
        Value::Many(_) if !takes_many => bail!("{place}: {key} takes one value, not a list"),
        Value::Many(words) => words.clone(),
        Value::One(word) => vec![word.clone()],
    };
    // Without the arguments that it requires or excludes, which a default doesn't count for.
    let alone = Arg::new("value").long("value");
    let alone = alone.value_parser(arg.get_value_parser().clone()).action(arg.get_action().clone());
    let parser = Command::new("palisade").no_binary_name(true).disable_help_flag(true).arg(alone);
    for word in &words {
        if let Err(error) = parser.clone().try_get_matches_from([format!("--value={word}")]) {
            let text = error.to_string();
            let text: Vec<&str> =
                text.split("\n\nFor more").next().unwrap_or(&text).lines().map(str::trim).collect();
            let text = text.join(" ");
            let text = text.trim_start_matches("error: ").replace("'--value <value>'", key);
            bail!("{place}: {}", text.trim());
        }
    }
    if PATHS.contains(&&**key) {
        return Ok(words.iter().map(|path| relative_to(file, path)).collect());
    }
    Ok(words)
}

/// Returns a path of the file, which is relative to the file's directory.
fn relative_to(file: &Path, path: &str) -> String {
    let dir = file.parent().unwrap_or(Path::new(""));
    let joined: PathBuf = dir.join(path);
    joined.display().to_string()
}
