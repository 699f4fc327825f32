//! The files of a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};
use palisade_manifest::{DirectoryFile, Input, LoadOptions, is_read};

use super::Place;

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Its path, as git prints it or as messages name it.
    pub(super) name: String,
    pub(super) id: String,
    /// Whether it is a symbolic link.
    pub(super) link: bool,
}

/// Returns the files that a `git ls-tree -r -z` lists.
pub(super) fn entries(place: &Place, words: &[&str]) -> Result<Vec<Entry>> {
    let listed = place.read(&[&["ls-tree", "-r", "-z"], words].concat())?;
    let mut entries = Vec::new();
    for entry in listed.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        let entry = String::from_utf8_lossy(entry);
        let Some((facts, name)) = entry.split_once('\t') else {
            bail!("unexpected output of `git ls-tree`: `{entry}`")
        };
        let mut facts = facts.split(' ');
        let (Some(mode), Some("blob"), Some(id)) = (facts.next(), facts.next(), facts.next()) else {
            continue;
        };
        entries.push(Entry { name: name.to_owned(), id: id.to_owned(), link: mode == "120000" });
    }
    Ok(entries)
}

/// Returns the submodules below a path in a commit, with the commits that they are at. Their files are in other repositories.
pub(super) fn submodules(place: &Place, commit: &str) -> Result<BTreeMap<String, String>> {
    let words = ["ls-tree", "-r", "-z", commit];
    let words = [&words[..], &place.inside.as_ref().map_or(vec![], |inside| vec!["--", inside])].concat();
    let listed = place.read(&words)?;
    let entries = listed.split(|b| *b == 0).filter_map(|entry| {
        let entry = String::from_utf8_lossy(entry);
        let (facts, name) = entry.split_once('\t')?;
        let id = facts.strip_prefix("160000 commit ")?;
        Some((name.to_owned(), id.to_owned()))
    });
    Ok(entries.collect())
}

/// The manifests of a commit.
pub(super) struct Manifests {
    pub(super) inputs: Vec<Input>,
    /// The symbolic links among them that lead to no file of the commit.
    pub(super) links: BTreeSet<String>,
}

/// Returns the manifests below a path in a commit, selected as [`Input::Path`] selects them from a directory.
pub(super) fn manifests(place: &Place, commit: &str, revision: &str) -> Result<Manifests> {
    let words = [&[commit][..], &place.inside.as_ref().map_or(vec![], |inside| vec!["--", inside])].concat();
    let mut selected = Vec::new();
    let mut named = false;
    for entry in entries(place, &words)? {
        let Entry { name, id, link } = entry;
        let below = place.inside.as_deref().and_then(|inside| name.strip_prefix(inside)).unwrap_or(&name);
        // The given file itself is read regardless of its name.
        named |= below.is_empty();
        if !below.is_empty() && !is_read(Path::new(below.trim_start_matches('/'))) {
            continue;
        }
        selected.push(Entry { name, id, link });
    }
    let mut links = follow(place, commit, &mut selected)?;
    let shown = |name: &str| place.dir.join(name).display().to_string();
    links = links.iter().map(|name| shown(name)).collect();
    selected.iter_mut().for_each(|entry| entry.name = format!("{revision}:{}", shown(&entry.name)));
    selected.sort();
    let mut files = Vec::new();
    // A file that is too large is reported as such by its first bytes. The rest need not be held.
    let most = LoadOptions::default().max_file_bytes.saturating_add(1);
    blobs(place, &selected, most, |entry, bytes| {
        files.push(DirectoryFile { path: entry.name.clone(), bytes });
        Ok(())
    })?;
    if !named {
        let inputs = if files.is_empty() { Vec::new() } else { vec![Input::Directory(files)] };
        return Ok(Manifests { inputs, links });
    }
    let text = |file: DirectoryFile| {
        let DirectoryFile { path: name, bytes } = file;
        let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
        Ok(Input::Text { name, text })
    };
    Ok(Manifests { inputs: files.into_iter().map(text).collect::<Result<_>>()?, links })
}

/// Gives symbolic links the files of the commit to which they lead. Takes out the others, and returns their names: what they
/// lead to is not in the commit, or no file.
fn follow(place: &Place, commit: &str, entries: &mut Vec<Entry>) -> Result<BTreeSet<String>> {
    let mut unread = BTreeSet::new();
    if !entries.iter().any(|entry| entry.link) {
        return Ok(unread);
    }
    let prefix = place.read(&["rev-parse", "--show-prefix"])?;
    let prefix = String::from_utf8_lossy(&prefix).trim_end_matches('\n').to_owned();
    let mut git = CatFile::start(place, &["--batch-check", "--follow-symlinks"])?;
    let mut kept = Vec::new();
    for mut entry in std::mem::take(entries) {
        if entry.link {
            // A question is a line.
            let found = if entry.name.contains('\n') {
                None
            } else {
                git.ask(&format!("{commit}:{prefix}{}", entry.name))?;
                target(&mut git.answer)?
            };
            let Some(id) = found else {
                unread.insert(entry.name);
                continue;
            };
            entry.id = id;
        }
        kept.push(entry);
    }
    *entries = kept;
    git.end()?;
    Ok(unread)
}

/// A running `git cat-file`: questions in lines, and its answers in their order.
struct CatFile {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl CatFile {
    fn start(place: &Place, options: &[&str]) -> Result<Self> {
        let mut child = place
            .git()
            .arg("cat-file")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("can't run `git`")?;
        let (Some(ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("git has no standard input or output")
        };
        Ok(Self { child, ask, answer: BufReader::new(answer) })
    }

    fn ask(&mut self, question: &str) -> Result<()> {
        writeln!(self.ask, "{question}").and_then(|()| self.ask.flush()).context("can't write to git")
    }

    /// Waits for its end, which is that of its input. If reading stopped early, it must not block on its output either.
    fn end(mut self) -> Result<ExitStatus> {
        drop((self.ask, self.answer));
        self.child.wait().context("can't wait for git")
    }
}

/// Reads what `git cat-file --batch-check --follow-symlinks` says: `ID blob SIZE`, or why there is no object, which may be
/// followed by a text.
fn target(answer: &mut impl io::BufRead) -> Result<Option<String>> {
    const WITH_TEXT: [&str; 4] = ["symlink", "dangling", "loop", "notdir"];
    let can_not_read = "can't read from git";
    let mut head = String::new();
    answer.read_line(&mut head).context(can_not_read)?;
    let words: Vec<&str> = head.trim_end().split(' ').collect();
    match words[..] {
        [id, "blob", _] => Ok(Some(id.to_owned())),
        [word, size] if WITH_TEXT.contains(&word) => {
            let size: u64 = size.parse().context("unexpected output of `git cat-file`")?;
            io::copy(&mut answer.take(size.saturating_add(1)), &mut io::sink()).context(can_not_read)?;
            Ok(None)
        }
        [""] => bail!("git failed while reading objects"),
        _ => Ok(None),
    }
}

/// Reads objects with a single git process, and calls `each` with every one: with at most the first `most` bytes.
pub(super) fn blobs(
    place: &Place,
    entries: &[Entry],
    most: u64,
    mut each: impl FnMut(&Entry, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut git = CatFile::start(place, &["--batch"])?;
    let mut read = || -> Result<()> {
        for entry in entries {
            let Entry { name, id, .. } = entry;
            git.ask(id)?;
            let answer = &mut git.answer;
            let mut head = String::new();
            answer.read_line(&mut head).context("can't read from git")?;
            let size = head.trim_end().rsplit_once(" blob ").or_else(|| head.trim_end().rsplit_once(' '));
            let Some(size) = size.and_then(|(_, size)| size.parse::<u64>().ok()) else {
                bail!("{name} is missing in this clone; run `git fetch`")
            };
            let can_not_read = || format!("can't read {name}");
            let held = size.min(most);
            let mut bytes = Vec::new();
            (&mut *answer).take(held).read_to_end(&mut bytes).with_context(can_not_read)?;
            // What is not held, and the line feed that follows the content.
            let rest = (size - held).saturating_add(1);
            let passed =
                io::copy(&mut (&mut *answer).take(rest), &mut io::sink()).with_context(can_not_read)?;
            if bytes.len() as u64 != held || passed != rest {
                bail!("git returned {name} incompletely");
            }
            each(entry, bytes)?;
        }
        Ok(())
    };
    let done = read();
    let ended = git.end()?;
    done?;
    if !ended.success() {
        bail!("git failed while reading objects");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn of_a_large_file_only_as_much_is_held_as_shows_that_it_is_too_large() {
        let limit = LoadOptions::default().max_file_bytes;
        let dir = tempfile::tempdir().expect("a directory");
        let small = "kind: Namespace\n";
        fs::write(dir.path().join("a-large.yaml"), vec![b'#'; limit as usize + 4096]).expect("written");
        fs::write(dir.path().join("b-small.yaml"), small).expect("written");
        let own = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "core.looseCompression=0"];
        for words in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "first"]] {
            let done = Command::new("git").arg("-C").arg(dir.path()).args(own).args(words).status();
            assert!(done.expect("git runs").success(), "{words:?}");
        }
        let place = Place { dir: dir.path().to_owned(), inside: None };
        let Manifests { inputs, .. } = manifests(&place, "HEAD", "HEAD").expect("it is read");
        let [Input::Directory(files)] = &inputs[..] else { panic!("{} inputs", inputs.len()) };
        let lengths: Vec<u64> = files.iter().map(|file| file.bytes.len() as u64).collect();
        // What follows is read from where it begins.
        assert_eq!(lengths, [limit + 1, small.len() as u64]);
        assert_eq!(files[1].bytes, small.as_bytes());
    }
}
