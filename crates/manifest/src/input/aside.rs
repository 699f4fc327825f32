//! What lies in the inputs beside manifests.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use palisade_policy::{Name, Origin};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    kustomization::{self, FilesRead, Kustomization},
    note::{Note, abbreviated},
};

/// What was found in the inputs and is not an object.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// Files in directories that are not manifests.
    pub(crate) not_manifests: Vec<String>,
    /// Files in directories that are empty.
    pub(crate) empty: Vec<String>,
    /// Files in directories that are templates, by their names.
    pub(crate) templates: Vec<String>,
    /// Directories that are not read, and symbolic links to nothing.
    pub(crate) passed_over: Vec<String>,
    /// Files that were read before: they are given twice, or by a link.
    pub(crate) again: Vec<String>,
    /// Objects that are encrypted and decide nothing.
    pub(crate) encrypted: Vec<String>,
    /// Kustomizations.
    pub(crate) kustomizations: Vec<Kustomization>,
    /// Directories of Helm charts whose templates were not read, as messages name them.
    pub(crate) charts: BTreeSet<String>,
    /// What was read.
    pub(crate) read: FilesRead,
}

impl Aside {
    /// Returns whether a file is a patch of a kustomization.
    pub(crate) fn is_patch(&self, place: &Path) -> bool {
        self.kustomizations.iter().any(|k| k.patches.contains(place))
    }

    /// Records a file with objects.
    pub(crate) fn has_objects(&mut self, place: PathBuf, shown: Name) {
        self.read.with_objects.insert((place, shown));
    }

    /// Returns errors for what must be rendered, and notes. With `raw`, what is not rendered is a note.
    pub(crate) fn finish(self, raw: bool) -> (Vec<Diagnostic>, Vec<Note>) {
        let mut errors: Vec<Diagnostic> = self.charts.iter().map(|dir| chart(dir)).collect();
        errors.extend(kustomization::unrendered(&self.kustomizations, &self.read));
        let mut notes = Vec::new();
        let mut counted = |code, names: &[String], one: &str, many: &str| {
            if !names.is_empty() {
                let what = if names.len() == 1 { one } else { many };
                notes.push(Note::new(code, format!("{} {what}: {}", names.len(), abbreviated(names))));
            }
        };
        let mut others = self.not_manifests;
        others.extend(self.kustomizations.iter().filter_map(|k| k.found_as.clone()));
        others.sort();
        counted(
            "not-manifests",
            &others,
            "file is not a Kubernetes manifest",
            "files are not Kubernetes manifests",
        );
        counted("empty-files", &self.empty, "file is empty", "files are empty");
        counted(
            "read-before",
            &self.again,
            "file was read before, and is read once",
            "files were read before, and are read once",
        );
        counted("templates", &self.templates, "template is not read", "templates are not read");
        counted("passed-over", &self.passed_over, "path is not read", "paths are not read");
        counted(
            "encrypted",
            &self.encrypted,
            "object is encrypted and decides nothing",
            "objects are encrypted and decide nothing",
        );
        if raw {
            notes.extend(
                errors.drain(..).map(|d| Note::new("not-rendered", d.to_string().replace(": error: ", ": "))),
            );
        }
        (errors, notes)
    }
}

fn chart(dir: &str) -> Diagnostic {
    let file = if dir == "." { "Chart.yaml".to_owned() } else { format!("{dir}/Chart.yaml") };
    let origin = Some(Origin { file: file.into(), line: 0, column: 0 });
    let help = format!("`--helm {dir}` renders it; --raw reads the files as they are");
    let message = "a Helm chart: its templates are not rendered";
    Diagnostic { origin, ..Diagnostic::new(Severity::Error, Code::NotRendered, message).with_help(help) }
}
