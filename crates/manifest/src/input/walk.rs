//! Finds the files of a directory.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{InputReader, Listed, display};
use crate::{diagnostic::Code, kustomization::is_kustomization, options::LoadOptions};

/// Endings of files that become manifests when a program has processed them, as in `policy.yaml.j2`.
const TEMPLATES: &[&str] = &[
    "tpl", "tmpl", "gotmpl", "template", "j2", "jinja", "jinja2", "erb", "in", "gpg", "age", "enc",
    "jsonnet", "cue",
];

/// Directories of libraries, with thousands of JSON files and no manifests of the user.
const LIBRARIES: &[&str] = &["node_modules"];

/// Returns the files of an [`super::Input::Path`] in the order in which they are read. Directories that can't be listed
/// are left out here, and reported when they are read.
#[must_use]
pub fn files(path: &Path, options: &LoadOptions) -> Vec<PathBuf> {
    let files = InputReader::new(options).list(path);
    files.into_iter().map(|file| file.shown).collect()
}

/// Returns whether a file is read if it is found below a directory, by its path below that directory: manifests
/// (`.yaml`, `.yml`, `.json`) and kustomizations, but nothing whose name, or whose directory's name, begins with a dot.
#[must_use]
pub fn is_read(below: &Path) -> bool {
    let hidden = |part: std::path::Component<'_>| {
        let name = part.as_os_str();
        name.as_encoded_bytes().starts_with(b".") || LIBRARIES.iter().any(|library| name == *library)
    };
    has_extension(below) && !below.components().any(hidden)
}

fn has_extension(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") || is_kustomization(path)
}

fn is_template(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, ""));
    TEMPLATES.contains(&ending) && (has_extension(Path::new(stem)) || matches!(ending, "jsonnet" | "cue"))
}

impl InputReader<'_> {
    /// Returns the files at or below a path.
    pub(super) fn list(&mut self, path: &Path) -> Vec<Listed> {
        let mut files = Vec::new();
        self.remaining = self.options.max_files.saturating_add(1);
        self.walk(path, None, &mut HashSet::new(), &mut files);
        if self.remaining == 0 {
            // Symbolic links between directories can multiply the number of files.
            let message = format!("has more than {} files and directories", self.options.max_files);
            let help = "pass a directory that contains only manifests";
            self.problem(&display(path), Code::TooLarge, message, Some(help));
        }
        files
    }

    /// Collects the files at or below `path`. `root` is the directory that the user named; `None`: `path` is what the
    /// user named. `visited` holds the real paths of its parent directories, so that symbolic links to a parent are not
    /// followed.
    fn walk(
        &mut self,
        path: &Path,
        root: Option<&Path>,
        visited: &mut HashSet<PathBuf>,
        out: &mut Vec<Listed>,
    ) {
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 {
            return;
        }
        let short = || root.map(|root| display(path.strip_prefix(root).unwrap_or(path)).to_string());
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                // A dangling link is only an error if it looks like a manifest. It may have been a directory of them.
                match short() {
                    Some(short) if !has_extension(path) => self.aside.passed_over.push(short),
                    _ => self.unreadable(path, &error),
                }
                return;
            }
        };
        if !metadata.is_dir() {
            // A named path is read even if it is a pipe. Paths found in directories must be regular files with a
            // manifest's extension.
            if root.is_none() || (metadata.is_file() && has_extension(path)) {
                out.push(Listed::on_disk(path, short()));
            } else if has_extension(path) {
                self.unreadable(path, &io::Error::other("it is not a regular file"));
            } else if is_template(path) {
                self.aside.templates.extend(short());
            }
            return;
        }
        if root.is_some() && path.file_name().is_some_and(|name| LIBRARIES.iter().any(|l| name == *l)) {
            self.aside.passed_over.extend(short());
            return;
        }
        let listed = fs::canonicalize(path).and_then(|real| Ok((real, fs::read_dir(path)?)));
        let (real, entries) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.unreadable(path, &error),
        };
        if !visited.insert(real.clone()) {
            return;
        }
        let mut below = Vec::new();
        for entry in entries.take(self.remaining) {
            match entry {
                Ok(entry) if entry.file_name().as_encoded_bytes().starts_with(b".") => {}
                Ok(entry) => below.push(entry.path()),
                Err(error) => self.unreadable(path, &error),
            }
        }
        below.sort();
        for below in below {
            self.walk(&below, Some(root.unwrap_or(path)), visited, out);
        }
        visited.remove(&real);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_by_their_names() {
        for (name, read) in [
            ("a.yaml", true),
            ("b/c.yml", true),
            ("d.json", true),
            ("b/Kustomization", true),
            ("README.md", false),
            (".hidden/a.yaml", false),
            ("b/.c.yaml", false),
            ("web/node_modules/x/package.json", false),
            ("yaml", false),
        ] {
            assert_eq!(is_read(Path::new(name)), read, "{name}");
        }
        for (name, template) in
            [("a.yaml.j2", true), ("a.jsonnet", true), ("a.tpl", false), ("a.yaml.bak", false), ("x", false)]
        {
            assert_eq!(is_template(Path::new(name)), template, "{name}");
        }
    }
}
