//! Kustomizations: what `kustomize build` would change that is not changed where files are read as they are.
//!
//! The manifests of a kustomization are read like any others. That is right only if it lists them and changes nothing
//! that answers depend on. [`unrendered`] finds the kustomizations for which it is not.

use std::{
    collections::{BTreeSet, HashSet},
    ops::Range,
    path::{Component, Path, PathBuf},
};

use palisade_policy::{Name, Origin};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    note::joined,
    scalar::Scalar,
    text::{Excerpt, Text},
    tree::{At, Value},
};

/// The names of a kustomization's file.
const NAMES: &[&str] = &["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Fields that change nothing that answers depend on: images, ConfigMaps and Secrets, order.
const HARMLESS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "images",
    "buildMetadata",
    "sortOptions",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
    "crds",
    "openapi",
    "configurations",
    "validators",
    "helmGlobals",
];

/// What the annotations begin with that answers depend on.
const OWN_ANNOTATIONS: &str = "palisade.dev/";

/// Returns whether a field changes nothing that answers depend on.
fn is_harmless(key: &str, value: &At<'_>) -> bool {
    match key {
        "commonAnnotations" => value.entries().all(|(name, ..)| !name.starts_with(OWN_ANNOTATIONS)),
        // How many replicas there are doesn't matter, unless there are none.
        "replicas" => value.items().all(|item| {
            let count = item.get("count");
            !matches!(count.as_ref().map(At::value), None | Some(Value::Scalar(Scalar::Int(0))))
        }),
        _ => HARMLESS.contains(&key),
    }
}

/// Fields that list what belongs to the kustomization.
const RESOURCES: &[&str] = &["resources", "bases"];

/// Fields that list patches: inline, as paths, or as mappings with a `path`.
const PATCHES: &[&str] = &["patches", "patchesStrategicMerge", "patchesJson6902"];

/// A kustomization that was found while reading.
#[derive(Debug)]
pub(crate) struct Kustomization {
    /// Its directory.
    dir: PathBuf,
    /// Its file, as messages name it.
    file: Name,
    /// Its file, below the directory in which it was found. `None`: the user named it.
    pub(crate) found_as: Option<String>,
    /// The fields that change its resources, in the order of the file.
    changes: Vec<Field>,
    /// The files, directories and URLs of its resources and components, as written.
    resources: Vec<String>,
    /// The files of its patches.
    pub(crate) patches: HashSet<PathBuf>,
    /// Every file that any of its fields may mean.
    mentioned: HashSet<PathBuf>,
}

/// A field, and its place.
#[derive(Debug)]
struct Field {
    name: String,
    origin: Origin,
    excerpt: Excerpt,
    span: Range<u32>,
}

/// Returns whether a file is a kustomization, by its name.
pub(crate) fn is_kustomization(path: &Path) -> bool {
    path.file_name().is_some_and(|name| NAMES.iter().any(|n| name == *n))
}

/// Reads a kustomization, which is the file `place`.
pub(crate) fn read(root: &At<'_>, place: &Path, text: &Text, found_as: Option<&str>) -> Kustomization {
    let dir = place.parent().unwrap_or(Path::new("")).to_owned();
    let mut found = Kustomization {
        dir,
        file: text.name().clone(),
        found_as: found_as.map(str::to_owned),
        changes: Vec::new(),
        resources: Vec::new(),
        patches: HashSet::new(),
        mentioned: HashSet::new(),
    };
    for (key, key_at, value) in root.entries() {
        let empty = match value.value() {
            Value::Scalar(Scalar::Null) | Value::Sequence(0) | Value::Mapping(0) => true,
            Value::Scalar(Scalar::Str(text)) => text.is_empty(),
            _ => false,
        };
        let component = key == "kind" && string(&value) == Some("Component");
        if empty {
            continue;
        }
        if RESOURCES.contains(&key) || key == "components" {
            found.resources.extend(value.items().filter_map(|item| string(&item).map(str::to_owned)));
        }
        if PATCHES.contains(&key) {
            for item in value.items() {
                let path = item.get("path");
                if let Some(path) = string(&item).or_else(|| string(path.as_ref()?)) {
                    found.patches.insert(resolved(&found.dir, path));
                }
            }
        }
        found.mention(&value);
        if component || !(is_harmless(key, &value) || RESOURCES.contains(&key)) {
            let span = key_at.span();
            found.changes.push(Field {
                name: if component { "the component".to_owned() } else { key.to_owned() },
                origin: text.origin(span.start),
                excerpt: text.excerpt(span.clone()),
                span,
            });
        }
    }
    found
}

impl Kustomization {
    /// Records every file that a value may mean.
    fn mention(&mut self, value: &At<'_>) {
        match value.value() {
            Value::Scalar(Scalar::Str(text)) if text.len() <= 4096 && !text.contains('\n') => {
                // `name=file` in generators.
                for text in [&**text, text.rsplit('=').next().unwrap_or_default()] {
                    self.mentioned.insert(resolved(&self.dir, text));
                }
            }
            Value::Scalar(_) => {}
            Value::Sequence(_) => value.items().for_each(|item| self.mention(&item)),
            Value::Mapping(_) => value.entries().for_each(|(_, _, value)| self.mention(&value)),
        }
    }

    /// Its directory, as messages and options name it.
    fn shown_dir(&self) -> &str {
        match self.file.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((dir, _)) => dir,
            None => ".",
        }
    }
}

fn string<'a>(at: &At<'a>) -> Option<&'a str> {
    match at.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text),
        _ => None,
    }
}

/// Returns a path relative to a directory, without `.` and `..`. Symbolic links are not resolved.
pub(crate) fn resolved(dir: &Path, path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for part in dir.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

/// What was read, by the absolute paths of files.
#[derive(Debug, Default)]
pub(crate) struct FilesRead {
    /// Files that were read, and all directories above them.
    pub(crate) places: HashSet<PathBuf>,
    /// Files with objects, and their names in messages.
    pub(crate) with_objects: BTreeSet<(PathBuf, Name)>,
}

impl FilesRead {
    /// Records a file that was read.
    pub(crate) fn add(&mut self, place: &Path) {
        for above in place.ancestors() {
            // The directories above a known one are known.
            if !self.places.insert(above.to_owned()) {
                break;
            }
        }
    }

    /// Returns whether objects were read from a file.
    pub(crate) fn has_objects(&self, place: &Path) -> bool {
        let first = (place.to_owned(), Name::from(""));
        self.with_objects.range(first..).next().is_some_and(|(found, _)| found == place)
    }
}

/// Returns an error for each kustomization that no other one includes and that is not what it would be rendered to.
/// `O(kustomizations × their resources)`.
pub(crate) fn unrendered(all: &[Kustomization], read: &FilesRead) -> Vec<Diagnostic> {
    let by_dir = |dir: &PathBuf| all.iter().position(|k| k.dir == *dir);
    let below: Vec<Vec<usize>> = all
        .iter()
        .map(|k| k.resources.iter().filter_map(|r| by_dir(&resolved(&k.dir, r))).collect())
        .collect();
    let included: HashSet<usize> = below.iter().flatten().copied().collect();
    let roots: Vec<usize> = (0..all.len()).filter(|k| !included.contains(k)).collect();
    // Kustomizations that include each other in a circle have no root.
    let roots = if roots.is_empty() { (0..all.len()).collect() } else { roots };
    roots.into_iter().filter_map(|root| unrendered_root(all, &below, root, read)).collect()
}

fn unrendered_root(
    all: &[Kustomization],
    below: &[Vec<usize>],
    root: usize,
    read: &FilesRead,
) -> Option<Diagnostic> {
    let mut reached = BTreeSet::new();
    let mut next = vec![root];
    while let Some(k) = next.pop() {
        if reached.insert(k) {
            next.extend(&below[k]);
        }
    }
    let mut changes: Vec<&str> = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    let mut unlisted: Vec<String> = Vec::new();
    let mut place = None;
    for &k in std::iter::once(&root).chain(reached.iter().filter(|k| **k != root)) {
        let kustomization = &all[k];
        for field in &kustomization.changes {
            // A component is applied where it is included.
            if field.name == "the component" && k != root {
                continue;
            }
            place = place.or(Some(field));
            if !changes.contains(&&*field.name) {
                changes.push(&field.name);
            }
        }
        let unread = |r: &&String| !read.places.contains(&resolved(&kustomization.dir, r));
        missing.extend(kustomization.resources.iter().filter(unread).map(String::as_str));
        unlisted.extend(unlisted_beside(kustomization, all, read));
    }
    // The patches are named last: they are what most readers look for.
    changes.sort_by_key(|name| name.starts_with("patches"));
    let mut what = Vec::new();
    if !changes.is_empty() {
        let one = changes.len() == 1 && !changes[0].ends_with('s') || changes[0].is_empty();
        what.push(format!("{} {} not applied", joined(&changes), if one { "is" } else { "are" }));
    }
    let quoted = |names: Vec<String>| names.into_iter().map(|n| format!("`{n}`")).collect::<Vec<_>>();
    if !missing.is_empty() {
        let names = quoted(missing.iter().map(ToString::to_string).collect());
        what.push(format!("{} {} not read", joined(&names), if names.len() == 1 { "is" } else { "are" }));
    }
    if !unlisted.is_empty() {
        let names = quoted(unlisted);
        let are = if names.len() == 1 { "is" } else { "are" };
        what.push(format!("{} {are} not among its resources", joined(&names)));
    }
    if what.is_empty() {
        return None;
    }
    let root = &all[root];
    let message = format!("a kustomization: {}", what.join("; "));
    let dir = root.shown_dir();
    let help = format!("`-k {dir}` renders it; --raw reads the files as they are");
    let diagnostic = Diagnostic::new(Severity::Error, Code::NotRendered, message).with_help(help);
    Some(match place.filter(|field| field.origin.file == root.file) {
        Some(field) => Diagnostic {
            origin: Some(field.origin.clone()),
            excerpt: Some(field.excerpt.clone()),
            span: Some(field.span.clone()),
            ..diagnostic
        },
        None => {
            Diagnostic { origin: Some(Origin { file: root.file.clone(), line: 0, column: 0 }), ..diagnostic }
        }
    })
}

/// The files with objects in the directory of a kustomization that no kustomization mentions.
fn unlisted_beside(kustomization: &Kustomization, all: &[Kustomization], read: &FilesRead) -> Vec<String> {
    let beside = read.with_objects.iter().filter(|(path, _)| path.parent() == Some(&*kustomization.dir));
    beside
        .filter(|(path, _)| !all.iter().any(|k| k.mentioned.contains(path)))
        .map(|(_, shown)| shown.rsplit('/').next().unwrap_or(shown).to_owned())
        .collect()
}
