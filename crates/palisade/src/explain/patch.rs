//! Renders edits as one unified diff for each file.
//!
//! The edits of a file are made one after the other. After each one the text is read, and must have exactly the edited
//! objects; otherwise the edit is left to be made by hand. A new policy is appended to the file of a policy of its
//! namespace, or gets a file of its own if the user named the directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use palisade_analysis::{
    diff::changed_policies,
    edit::{Edit, applied},
};
use palisade_manifest::{Input, LoadOptions, Loaded, load};
use palisade_policy::{Cluster, Direction, Name, NamespaceMatch, Policy};

use super::{
    manifest, splice,
    suggestion::{EditTarget, FilePatch},
};
use crate::{line_ends, unified};

/// The files that edits change.
pub(crate) struct Patches<'a> {
    place: EditTarget<'a>,
    files: BTreeMap<String, PatchedFile>,
}

struct PatchedFile {
    /// As it is on disk; empty for a new file.
    before: String,
    /// With `\n` at the end of each line.
    after: String,
    is_new: bool,
}

impl<'a> Patches<'a> {
    pub(crate) fn new(place: EditTarget<'a>) -> Self {
        Self { place, files: BTreeMap::new() }
    }

    /// Makes an edit. Returns whether it could be made.
    pub(crate) fn add(&mut self, edit: &Edit) -> bool {
        match edit {
            Edit::NewPolicy(policy) => self.add_policy(edit, policy),
            Edit::Labels { namespace, workload, .. } => {
                let key = (namespace.clone(), workload.clone());
                let declared = self.place.loaded.workload_labels.get(&key);
                let origin = declared.and_then(|d| d.template_origin.as_ref()).filter(|o| o.line().is_some());
                origin.is_some_and(|origin| self.change(&origin.file, edit))
            }
            _ => {
                let origin = edit.origin().filter(|origin| origin.line().is_some());
                origin.is_some_and(|origin| self.change(&origin.file, edit))
            }
        }
    }

    /// Returns the patches, by file.
    pub(crate) fn finish(self) -> Vec<FilePatch> {
        let patch = |(file, patched): (String, PatchedFile)| {
            let file = unified::shown(&file);
            let before = (!patched.is_new).then_some(&*patched.before);
            let after = line_ends::kept(&patched.before, &patched.after);
            let patch = unified::diff(&file, before, &after);
            (patched.before != after).then_some(FilePatch { file, patch })
        };
        self.files.into_iter().filter_map(patch).collect()
    }

    fn change(&mut self, file: &str, edit: &Edit) -> bool {
        let Some((on_disk, text)) = self.text(file) else { return false };
        let before = self.read(file, &text);
        let expected = applied(&before.cluster, edit);
        let found = splice::candidates(&text, &before, edit);
        let Some(after) = found.into_iter().find(|after| self.has(file, &before, after, &expected)) else {
            return false;
        };
        self.set(file, on_disk, after, false);
        true
    }

    fn add_policy(&mut self, edit: &Edit, policy: &Policy) -> bool {
        let new = manifest::text(edit);
        let Some(neighbor) = self.neighbor(policy) else { return false };
        if let Some(file) = self.own_file(&neighbor, policy) {
            let read = self.read(&file, &new);
            let expected = applied(&Cluster::default(), edit);
            let fits = !read.has_errors() && changed_policies(&read.cluster, &expected).is_empty();
            if fits {
                self.set(&file, String::new(), new, true);
            }
            return fits;
        }
        // Nothing can be appended to a JSON object.
        let Some((on_disk, text)) = self.text(&neighbor).filter(|_| is_yaml(&neighbor)) else { return false };
        let before = self.read(&neighbor, &text);
        let expected = applied(&before.cluster, edit);
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        let separator = if text.trim_end().ends_with("---") { "" } else { "---\n" };
        let after = format!("{text}{end}{separator}{new}");
        let fits = self.has(&neighbor, &before, &after, &expected);
        if fits {
            self.set(&neighbor, on_disk, after, false);
        }
        fits
    }

    fn set(&mut self, file: &str, before: String, after: String, is_new: bool) {
        match self.files.get_mut(file) {
            Some(known) => known.after = after,
            None => drop(self.files.insert(file.to_owned(), PatchedFile { before, after, is_new })),
        }
    }

    /// Returns the text of a file on disk, and as earlier edits left it, with `\n` at the end of each line. `None` if it can't
    /// be patched.
    fn text(&self, file: &str) -> Option<(String, String)> {
        if let Some(known) = self.files.get(file) {
            return Some((known.before.clone(), known.after.clone()));
        }
        // Reading a pipe again would block.
        if !fs::metadata(Path::new(file)).is_ok_and(|m| m.is_file()) {
            return None;
        }
        let on_disk = fs::read_to_string(Path::new(file)).ok()?;
        let text = line_ends::unified(&on_disk);
        // Such characters must not reach a terminal, and a patch without them would not apply.
        let is_odd = |c: char| palisade_manifest::needs_escape(c) && !matches!(c, '\n' | '\t');
        (!text.contains(is_odd)).then_some((on_disk, text))
    }

    fn read(&self, file: &str, text: &str) -> Loaded {
        let default_namespace = self.place.namespace.to_owned();
        let options = LoadOptions { default_namespace, addresses: None, ..LoadOptions::default() };
        let options = self.place.reading.options(options);
        load(&[Input::Text { name: file.to_owned(), text: text.to_owned() }], &options)
    }

    /// Returns whether a text has exactly the expected objects.
    fn has(&self, file: &str, before: &Loaded, after: &str, expected: &Cluster) -> bool {
        let after = self.read(file, after);
        let others = |c: &Cluster| Cluster { policies: BTreeMap::default(), ..c.clone() };
        (!after.has_errors() || before.has_errors())
            && others(&after.cluster) == others(expected)
            && changed_policies(&after.cluster, expected).is_empty()
    }

    /// Returns the file next to which a new policy belongs: that of a policy of the same pods, of the same namespace, or of
    /// any policy, or else of any object. YAML is preferred, since a policy can be appended to it.
    fn neighbor(&self, new: &Policy) -> Option<String> {
        let loaded = self.place.loaded;
        let directions =
            |p: &Policy| Direction::BOTH.into_iter().any(|d| p.rules(d).is_some() && new.rules(d).is_some());
        let rank = |p: &Policy| {
            let namespace = match &new.subject.namespaces {
                NamespaceMatch::Named(name) => p.key.namespace == *name,
                NamespaceMatch::Selected(_) => p.key.kind == new.key.kind,
            };
            (!namespace, !directions(p))
        };
        let mut policies: Vec<(&Policy, &Name)> = loaded
            .cluster
            .policies
            .values()
            .filter_map(|p| Some((&**p, &p.origin.as_ref().filter(|o| o.line().is_some())?.file)))
            .collect();
        policies.sort_by_key(|(policy, _)| rank(policy));
        let objects = loaded.origins.values().filter(|o| o.line().is_some()).map(|o| &o.file);
        let files = || policies.iter().map(|(_, file)| *file).chain(objects.clone());
        let neighbor = files().find(|file| is_yaml(file)).or_else(|| files().find(|file| is_file(file)));
        neighbor.map(ToString::to_string)
    }

    /// Returns a new file for a policy, if the user named the directory of its neighbor and nothing lists its files.
    fn own_file(&self, neighbor: &str, policy: &Policy) -> Option<String> {
        let above = Path::new(neighbor).parent().filter(|p| !p.as_os_str().is_empty());
        let directory = above.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let named = |argument: &String| {
            let argument = Path::new(argument);
            argument.is_dir() && Path::new(neighbor).starts_with(argument)
        };
        let lists = ["kustomization.yaml", "kustomization.yml", "Kustomization", "Chart.yaml"];
        let here = std::iter::successors(Some(&*directory), |d| d.parent()).take(2);
        if !self.place.files.iter().any(named)
            || here.flat_map(|d| lists.map(|l| d.join(l))).any(|l| l.exists())
        {
            return None;
        }
        let name = |n: usize| match n {
            1 => format!("{}.yaml", policy.key.name),
            n => format!("{}-{n}.yaml", policy.key.name),
        };
        let files = (1..100).map(|n| directory.join(name(n)).display().to_string());
        files.into_iter().find(|file| !Path::new(file).exists() && !self.files.contains_key(file))
    }
}

fn is_file(file: &str) -> bool {
    Path::new(file).is_file()
}

fn is_yaml(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|e| e == "yaml" || e == "yml") && is_file(file)
}
