//! Manifests as they are in a revision of a git repository, read by the user's own `git`.
//!
//! It is the one program that Palisade runs, and only because `--git` asks for it: its object store has formats,
//! alternates and partial clones that are its business. Only commands that read objects are run, which start no hooks
//! and no filters.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use palisade_manifest::Input;

/// Where a path lies: a directory in which git can run, and the path seen from there; none for the directory itself.
struct Place {
    dir: PathBuf,
    inside: Option<String>,
}

impl Place {
    /// `path` need not exist any more.
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
        // What it says is read: no translations. Nothing is written: no locks.
        command.arg("-C").arg(&self.dir).env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0");
        command.stdin(Stdio::null());
        command
    }

    /// What a git command prints.
    fn read(&self, words: &[&str]) -> Result<Vec<u8>> {
        let output = self.git().args(words).output().context(
            "can't run `git`, which --git needs; install it, or compare two directories without it",
        )?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("it says nothing").trim_start_matches("fatal: ");
            bail!("git can't do it: {said}");
        }
        Ok(output.stdout)
    }
}

/// The manifests at `path` on both sides of `REV..REV`, `REV...REV` or `REV`, and what messages call them.
///
/// # Errors
/// Where git can't be run, there is no such revision, or nothing is at the path.
pub(crate) fn inputs(revisions: &str, path: &str) -> Result<[(Vec<Input>, String); 2]> {
    let place = Place::of(path);
    place.read(&["rev-parse", "--git-dir"]).with_context(|| format!("{path} is in no git repository"))?;
    let or_head = |rev: &str| if rev.is_empty() { "HEAD".to_owned() } else { rev.to_owned() };
    let side = |rev: &str| -> Result<(Vec<Input>, String)> {
        let commit = commit(&place, rev)?;
        Ok((manifests(&place, &commit, rev, path)?, format!("{rev}:{path}")))
    };
    if let Some((a, b)) = revisions.split_once("...") {
        let (a, b) = (or_head(a), or_head(b));
        let [from, to] = [commit(&place, &a)?, commit(&place, &b)?];
        let base = place
            .read(&["merge-base", &from, &to])
            .with_context(|| format!("{a} and {b} have no common ancestor"))?;
        let base = String::from_utf8_lossy(&base).trim().to_owned();
        let shortened = base.get(..12).unwrap_or(&base);
        return Ok([side(shortened)?, side(&b)?]);
    }
    match revisions.split_once("..") {
        Some((a, b)) => Ok([side(&or_head(a))?, side(&or_head(b))?]),
        None => Ok([side(revisions)?, (vec![Input::of_argument(path)], path.to_owned())]),
    }
}

/// The commit that a revision names.
fn commit(place: &Place, revision: &str) -> Result<String> {
    let wanted = format!("{revision}^{{commit}}");
    // That git runs, and in a repository, is known by now: only the name can be wrong.
    let Ok(found) = place.read(&["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]) else {
        bail!(
            "there is no revision `{revision}`; `git branch -a` and `git tag` list what there is, `git fetch` gets more"
        );
    };
    Ok(String::from_utf8_lossy(&found).trim().to_owned())
}

/// The manifests below a path in a commit, as [`Input::Path`] would choose them from a directory.
fn manifests(place: &Place, commit: &str, revision: &str, path: &str) -> Result<Vec<Input>> {
    let mut words = vec!["ls-tree", "-r", "-z", commit];
    if let Some(inside) = &place.inside {
        words.extend(["--", inside]);
    }
    let listed = place.read(&words)?;
    let mut wanted = Vec::new();
    for entry in listed.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        let entry = String::from_utf8_lossy(entry);
        let Some((facts, name)) = entry.split_once('\t') else {
            bail!("git lists `{entry}`, which is no file")
        };
        let mut facts = facts.split(' ');
        let (Some(mode), Some("blob"), Some(id)) = (facts.next(), facts.next(), facts.next()) else {
            continue;
        };
        let below = place.inside.as_deref().and_then(|inside| name.strip_prefix(inside)).unwrap_or(name);
        // The file that was named itself is read whatever it is called.
        if !below.is_empty() && !is_manifest(below) {
            continue;
        }
        if mode == "120000" {
            bail!(
                "{revision}:{name} is a symbolic link, which can't be followed in a revision; compare directories instead"
            );
        }
        wanted.push((format!("{revision}:{}", place.dir.join(name).display()), id.to_owned()));
    }
    if listed.is_empty() {
        bail!("revision {revision} has nothing at {path}");
    }
    wanted.sort();
    blobs(place, wanted)
}

/// Whether a name below a directory is that of a manifest that is read.
fn is_manifest(below: &str) -> bool {
    let hidden = below.trim_start_matches('/').split('/').any(|part| part.starts_with('.'));
    let extension = Path::new(below).extension();
    !hidden && extension.is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

/// The texts of objects, by one process that is asked for one after the other.
fn blobs(place: &Place, wanted: Vec<(String, String)>) -> Result<Vec<Input>> {
    let mut child = place
        .git()
        .args(["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("can't run `git`")?;
    let (Some(mut ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("git has no input or no output")
    };
    let mut answer = BufReader::new(answer);
    let mut inputs = Vec::with_capacity(wanted.len());
    let read = || -> Result<()> {
        for (name, id) in wanted {
            writeln!(ask, "{id}").and_then(|()| ask.flush()).context("git doesn't listen")?;
            let mut head = String::new();
            answer.read_line(&mut head).context("git doesn't answer")?;
            let size = head.trim_end().rsplit_once(" blob ").or_else(|| head.trim_end().rsplit_once(' '));
            let Some(size) = size.and_then(|(_, size)| size.parse::<u64>().ok()) else {
                bail!("{name} is not in this clone; `git fetch` gets it")
            };
            // A line feed ends the text.
            let mut bytes = Vec::new();
            (&mut answer)
                .take(size + 1)
                .read_to_end(&mut bytes)
                .with_context(|| format!("can't read {name}"))?;
            if bytes.pop() != Some(b'\n') || bytes.len() as u64 != size {
                bail!("git breaks off in the middle of {name}");
            }
            let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
            inputs.push(Input::Text { name, text });
        }
        Ok(())
    };
    let done = read();
    // At the end of its input git ends; one that was cut short must not wait for a reader either.
    drop((ask, answer));
    let ended = child.wait().context("can't wait for git")?;
    done?;
    if !ended.success() {
        bail!("git failed while it read objects");
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
