//! Reads manifests from a revision of a git repository, with the user's `git`.
//!
//! `git` is started only for `--git`: reading its object store directly would mean
//! supporting its formats, alternates and partial clones. Only commands that read objects are run; these start no hooks or
//! filters.

mod export;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use palisade_manifest::{DirectoryFile, Input, Note};

use crate::{connection_ends::abbreviated, escape};

/// A path, as a directory in which git can run and the path below it. `None`: the directory itself.
struct Place {
    dir: PathBuf,
    inside: Option<String>,
}

impl Place {
    /// Splits a path, which need not exist in the working tree.
    fn of(path: &str) -> Self {
        let full = Path::new(path);
        let mut dir = full;
        while !dir.is_dir() {
            dir = match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
        }
        let inside = full.strip_prefix(dir).ok().filter(|_| dir != full);
        let inside = if dir == Path::new(".") && full != dir { Some(full) } else { inside };
        let inside = inside.map(|p| p.to_string_lossy().into_owned());
        Self { dir: dir.to_owned(), inside }
    }

    fn git(&self) -> Command {
        let mut command = Command::new("git");
        // Its messages are parsed, so they must not be translated; it must take no locks.
        command.arg("-C").arg(&self.dir).env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a git command and returns its output.
    fn read(&self, words: &[&str]) -> Result<Vec<u8>> {
        let output = self
            .git()
            .args(words)
            .output()
            .context("can't run `git`, which --git requires; install it, or compare two directories")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("no message").trim_start_matches("fatal: ");
            bail!("git failed: {said}");
        }
        Ok(output.stdout)
    }
}

/// Renders what is at a path on disk and has another name in messages.
pub(crate) type Render<'r> = &'r dyn Fn(&str, &str) -> Result<Input>;

/// What a path is on one side of a range.
pub(crate) struct RangeSide {
    /// Nothing, if there is nothing at the path.
    pub(crate) inputs: Vec<Input>,
    /// The revision. `None`: the files as they are now.
    pub(crate) revision: Option<String>,
    /// The submodules of a revision, with their commits.
    submodules: BTreeMap<String, String>,
    /// The symbolic links of a revision that lead to no file of it.
    links: BTreeSet<String>,
    path: String,
}

impl RangeSide {
    /// Its name in messages: `main:deploy`.
    pub(crate) fn name(&self) -> String {
        match &self.revision {
            Some(revision) => format!("{revision}:{}", self.path),
            None => self.path.clone(),
        }
    }
}

/// Gives the files of both sides the same names, without revisions, so that what is in both is recognized.
pub(crate) fn without_revisions(sides: [RangeSide; 2]) -> [Vec<Input>; 2] {
    // The files of a directory that is on disk are called as its path is written.
    let on_disk = sides.iter().any(|side| side.revision.is_none());
    sides.map(|side| {
        let RangeSide { inputs, revision, .. } = side;
        let short = |name: String| {
            let prefix = revision.as_ref().map(|revision| format!("{revision}:"));
            let rest = prefix.as_ref().and_then(|prefix| name.strip_prefix(&**prefix)).unwrap_or(&name);
            let rest = if on_disk { rest } else { rest.strip_prefix("./").unwrap_or(rest) };
            rest.to_owned()
        };
        let file = |DirectoryFile { path, bytes }| DirectoryFile { path: short(path), bytes };
        let renamed = inputs.into_iter().map(|input| match input {
            Input::Text { name, text } => Input::Text { name: short(name), text },
            Input::Directory(files) => Input::Directory(files.into_iter().map(file).collect()),
            other => other,
        });
        renamed.collect()
    })
}

/// What a range has that git does not.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    submodules: BTreeSet<String>,
    links: BTreeSet<String>,
}

impl Unread {
    /// Adds what can't be read at a path.
    pub(crate) fn add(&mut self, sides: &[RangeSide; 2]) {
        self.submodules.extend(changed_submodules(sides));
        self.links.extend(sides.iter().flat_map(|side| side.links.iter().cloned()));
    }

    /// Returns what to say of it; nothing if everything could be read.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let note = |code, names: &BTreeSet<String>, text: &str| {
            let names: Vec<&String> = names.iter().collect();
            let shown = abbreviated(&names, |name| escape::plain(name).into_owned());
            (!names.is_empty()).then(|| Note::new(code, format!("{text}: {shown}")))
        };
        let submodules = "submodules change in the range, and their files are not read";
        let links = "symbolic links that lead to no file of the revision are not read";
        let notes = [
            note("submodules-not-read", &self.submodules, submodules),
            note("links-not-read", &self.links, links),
        ];
        notes.into_iter().flatten().collect()
    }
}

/// Returns the submodules that are not the same on both sides. Their files can't be compared. The working tree is not asked: it
/// may have them, and the revision beside it doesn't.
fn changed_submodules(sides: &[RangeSide; 2]) -> BTreeSet<String> {
    let [before, after] = sides.each_ref().map(|side| &side.submodules);
    let only_one = sides.iter().any(|side| side.revision.is_none());
    let all = before.keys().chain(after.keys());
    all.filter(|name| only_one || before.get(*name) != after.get(*name)).cloned().collect()
}

/// Returns what is at `path` on both sides of `REV..REV`, `REV...REV` or `REV`.
/// With `render`, each revision is written to a temporary directory and rendered there.
///
/// A side that has nothing at the path is empty.
///
/// # Errors
/// When git can't be run, a revision does not exist, or neither side has anything at the path.
pub(crate) fn inputs(revisions: &str, path: &str, render: Option<Render<'_>>) -> Result<[RangeSide; 2]> {
    let place = Place::of(path);
    place.read(&["rev-parse", "--git-dir"]).with_context(|| format!("{path} is not in a git repository"))?;
    let or_head = |rev: &str| if rev.is_empty() { "HEAD".to_owned() } else { rev.to_owned() };
    let side = |rev: &str| -> Result<RangeSide> {
        let commit = commit(&place, rev)?;
        let tree::Manifests { inputs, links } = match render {
            None => tree::manifests(&place, &commit, rev)?,
            Some(render) => {
                let inputs = export::rendered(&place, &commit, &format!("{rev}:{path}"), render)?;
                tree::Manifests { inputs, links: BTreeSet::new() }
            }
        };
        let submodules = tree::submodules(&place, &commit)?;
        Ok(RangeSide { inputs, revision: Some(rev.to_owned()), submodules, links, path: path.to_owned() })
    };
    if let Some((a, b)) = revisions.split_once("...") {
        let (a, b) = (or_head(a), or_head(b));
        let [from, to] = [commit(&place, &a)?, commit(&place, &b)?];
        let base = place
            .read(&["merge-base", &from, &to])
            .with_context(|| format!("{a} and {b} have no common ancestor here; run `{}`", fetch(&place)))?;
        let base = String::from_utf8_lossy(&base).trim().to_owned();
        let shortened = base.get(..12).unwrap_or(&base);
        return on_a_side([side(shortened)?, side(&b)?], path);
    }
    match revisions.split_once("..") {
        Some((a, b)) => on_a_side([side(&or_head(a))?, side(&or_head(b))?], path),
        None => {
            let here = match render {
                _ if !Path::new(path).exists() => None,
                None => Some(Input::of_argument(path)),
                Some(render) => Some(render(path, path)?),
            };
            let here = here.into_iter().collect();
            on_a_side(
                [
                    side(revisions)?,
                    RangeSide {
                        inputs: here,
                        revision: None,
                        submodules: BTreeMap::new(),
                        links: BTreeSet::new(),
                        path: path.to_owned(),
                    },
                ],
                path,
            )
        }
    }
}

/// Returns the files of a name, anywhere in the repository of a path, that are not the same in two revisions.
///
/// # Errors
/// When git can't read them.
pub(crate) fn changed(path: &str, [before, after]: [&str; 2], name: &str) -> Result<Vec<String>> {
    let place = Place::of(path);
    let [a, b] = [commit(&place, before)?, commit(&place, after)?];
    let files = format!(":(top,glob)**/{name}");
    let listed = place.read(&["diff-tree", "-r", "-z", "--name-only", &a, &b, "--", &files])?;
    let names = listed.split(|b| *b == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// Checks that the path exists on a side.
fn on_a_side(sides: [RangeSide; 2], path: &str) -> Result<[RangeSide; 2]> {
    if sides.iter().all(|side| side.inputs.is_empty()) {
        let [a, b] = sides.map(|side| side.name());
        bail!("neither {a} nor {b} has manifests; is `{path}` the right path?");
    }
    Ok(sides)
}

/// Returns the commit of a revision.
fn commit(place: &Place, revision: &str) -> Result<String> {
    let object = format!("{revision}^{{commit}}");
    // git runs in a repository at this point, so only the name can be wrong.
    let Ok(found) = place.read(&["rev-parse", "--verify", "--quiet", "--end-of-options", &object]) else {
        bail!("unknown revision `{revision}`; see `git branch -a` and `git tag`, or run `{}`", fetch(place));
    };
    Ok(String::from_utf8_lossy(&found).trim().to_owned())
}

/// What gets revisions that are missing. A plain fetch leaves a shallow clone, as CI systems make it, as it is.
fn fetch(place: &Place) -> &'static str {
    let shallow = place.read(&["rev-parse", "--is-shallow-repository"]);
    if shallow.is_ok_and(|said| said.starts_with(b"true")) { "git fetch --unshallow" } else { "git fetch" }
}
