//! Reads manifests from a revision of a git repository, with the user's `git`.
//!
//! `git` is the only program that Palisade starts, and only for `--git`: reading its object store directly would mean
//! supporting its formats, alternates and partial clones. Only commands that read objects are run; these start no hooks or
//! filters.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use palisade_manifest::Input;

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

/// Returns the manifests at `path` on both sides of `REV..REV`, `REV...REV` or `REV`, with their names in messages.
///
/// A side that has nothing at the path is empty.
///
/// # Errors
/// When git can't be run, a revision does not exist, or neither side has anything at the path.
pub(crate) fn inputs(revisions: &str, path: &str) -> Result<[(Vec<Input>, String); 2]> {
    let place = Place::of(path);
    place.read(&["rev-parse", "--git-dir"]).with_context(|| format!("{path} is not in a git repository"))?;
    let or_head = |rev: &str| if rev.is_empty() { "HEAD".to_owned() } else { rev.to_owned() };
    let side = |rev: &str| -> Result<(Vec<Input>, String)> {
        let commit = commit(&place, rev)?;
        Ok((manifests(&place, &commit, rev)?, format!("{rev}:{path}")))
    };
    if let Some((a, b)) = revisions.split_once("...") {
        let (a, b) = (or_head(a), or_head(b));
        let [from, to] = [commit(&place, &a)?, commit(&place, &b)?];
        let base = place
            .read(&["merge-base", &from, &to])
            .with_context(|| format!("{a} and {b} have no common ancestor"))?;
        let base = String::from_utf8_lossy(&base).trim().to_owned();
        let shortened = base.get(..12).unwrap_or(&base);
        return on_a_side([side(shortened)?, side(&b)?], path);
    }
    match revisions.split_once("..") {
        Some((a, b)) => on_a_side([side(&or_head(a))?, side(&or_head(b))?], path),
        None => {
            let here = Some(Input::of_argument(path)).filter(|_| Path::new(path).exists());
            on_a_side([side(revisions)?, (here.into_iter().collect(), path.to_owned())], path)
        }
    }
}

/// Checks that the path exists on a side.
fn on_a_side(sides: [(Vec<Input>, String); 2], path: &str) -> Result<[(Vec<Input>, String); 2]> {
    if sides.iter().all(|(inputs, _)| inputs.is_empty()) {
        let [(_, a), (_, b)] = &sides;
        bail!("neither {a} nor {b} has manifests; is `{path}` the right path?");
    }
    Ok(sides)
}

/// Returns the commit of a revision.
fn commit(place: &Place, revision: &str) -> Result<String> {
    let object = format!("{revision}^{{commit}}");
    // git runs in a repository at this point, so only the name can be wrong.
    let Ok(found) = place.read(&["rev-parse", "--verify", "--quiet", "--end-of-options", &object]) else {
        bail!("unknown revision `{revision}`; see `git branch -a` and `git tag`, or run `git fetch`");
    };
    Ok(String::from_utf8_lossy(&found).trim().to_owned())
}

/// Returns the manifests below a path in a commit, selected as [`Input::Path`] selects them from a directory.
fn manifests(place: &Place, commit: &str, revision: &str) -> Result<Vec<Input>> {
    let mut words = vec!["ls-tree", "-r", "-z", commit];
    if let Some(inside) = &place.inside {
        words.extend(["--", inside]);
    }
    let listed = place.read(&words)?;
    let mut selected = Vec::new();
    for entry in listed.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        let entry = String::from_utf8_lossy(entry);
        let Some((facts, name)) = entry.split_once('\t') else {
            bail!("unexpected output of `git ls-tree`: `{entry}`")
        };
        let mut facts = facts.split(' ');
        let (Some(mode), Some("blob"), Some(id)) = (facts.next(), facts.next(), facts.next()) else {
            continue;
        };
        let below = place.inside.as_deref().and_then(|inside| name.strip_prefix(inside)).unwrap_or(name);
        // The given file itself is read regardless of its name.
        if !below.is_empty() && !is_manifest(below) {
            continue;
        }
        if mode == "120000" {
            bail!(
                "{revision}:{name} is a symbolic link, which is not supported in a revision; compare directories instead"
            );
        }
        selected.push((format!("{revision}:{}", place.dir.join(name).display()), id.to_owned()));
    }
    selected.sort();
    blobs(place, selected)
}

/// Whether a file below a directory is read as a manifest.
fn is_manifest(below: &str) -> bool {
    let hidden = below.trim_start_matches('/').split('/').any(|part| part.starts_with('.'));
    let extension = Path::new(below).extension();
    !hidden && extension.is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

/// Reads objects with a single git process.
fn blobs(place: &Place, objects: Vec<(String, String)>) -> Result<Vec<Input>> {
    let mut child = place
        .git()
        .args(["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("can't run `git`")?;
    let (Some(mut ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("git has no standard input or output")
    };
    let mut answer = BufReader::new(answer);
    let mut inputs = Vec::with_capacity(objects.len());
    let read = || -> Result<()> {
        for (name, id) in objects {
            writeln!(ask, "{id}").and_then(|()| ask.flush()).context("can't write to git")?;
            let mut head = String::new();
            answer.read_line(&mut head).context("can't read from git")?;
            let size = head.trim_end().rsplit_once(" blob ").or_else(|| head.trim_end().rsplit_once(' '));
            let Some(size) = size.and_then(|(_, size)| size.parse::<u64>().ok()) else {
                bail!("{name} is missing in this clone; run `git fetch`")
            };
            // A line feed follows the content.
            let mut bytes = Vec::new();
            (&mut answer)
                .take(size + 1)
                .read_to_end(&mut bytes)
                .with_context(|| format!("can't read {name}"))?;
            if bytes.pop() != Some(b'\n') || bytes.len() as u64 != size {
                bail!("git returned {name} incompletely");
            }
            let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
            inputs.push(Input::Text { name, text });
        }
        Ok(())
    };
    let done = read();
    // git exits at the end of its input. If reading stopped early, it must not block on its output either.
    drop((ask, answer));
    let ended = child.wait().context("can't wait for git")?;
    done?;
    if !ended.success() {
        bail!("git failed while reading objects");
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_chosen_as_in_a_directory() {
        for (name, read) in [
            ("a.yaml", true),
            ("b/c.yml", true),
            ("/d.json", true),
            ("README.md", false),
            (".hidden/a.yaml", false),
            ("b/.c.yaml", false),
            ("yaml", false),
        ] {
            assert_eq!(is_manifest(name), read, "{name}");
        }
    }
}
