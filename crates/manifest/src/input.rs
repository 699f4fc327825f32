//! Reads the texts of manifests from files, directories, standard input and the API server.

mod aside;
mod chart;
mod walk;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use palisade_policy::{Name, Origin};

pub(crate) use aside::Aside;
pub use walk::{files, is_read};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    kustomization::{self, is_kustomization},
    not_manifest::could_be_manifest,
    options::LoadOptions,
    text::Text,
};

/// Something to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, or a directory with all files below it that [`is_read`] selects, in the order of their names. In
    /// directories, names that begin with a dot are skipped, since mounted ConfigMaps keep their versions there.
    Path(PathBuf),
    /// Standard input, called `-` in messages.
    Stdin,
    /// A text and its name in messages.
    Text {
        /// The name.
        name: String,
        /// The text.
        text: String,
    },
    /// The files of a directory that is not on disk, such as that of a revision in a repository, in the order in which
    /// they are read. They are read as those of a directory are.
    Directory(Vec<DirectoryFile>),
    /// One object, or a `List`, as JSON from an API server. The server has admitted the objects, so they are not
    /// validated again, and no address is generated for them. Their positions are the object's name and the field's path.
    /// An object of a later file replaces one from the cluster without a warning.
    Cluster(String),
}

/// A file of an [`Input::Directory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFile {
    /// Its path in messages, such as `main:deploy/web.yaml`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Input {
    /// Interprets the argument of `-f`: `-` is standard input.
    #[must_use]
    pub fn of_argument(argument: &str) -> Self {
        if argument == "-" { Self::Stdin } else { Self::Path(argument.into()) }
    }
}

/// A text that was read, and where it was found.
pub(crate) struct Source {
    pub(crate) text: Text,
    /// The absolute path of its file.
    pub(crate) place: Option<PathBuf>,
    /// Its path below the directory in which it was found. `None`: the user named it.
    pub(crate) found_as: Option<String>,
}

impl Source {
    fn named(text: Text) -> Self {
        Self { text, place: None, found_as: None }
    }
}

/// A file to be read.
pub(crate) struct Listed {
    /// Its path in messages.
    shown: PathBuf,
    /// Its absolute path.
    place: PathBuf,
    /// Its path below the directory in which it was found. `None`: the user named it.
    found_as: Option<String>,
    /// Its content, if it is not on disk.
    bytes: Option<Vec<u8>>,
}

impl Listed {
    fn on_disk(path: &Path, found_as: Option<String>) -> Self {
        let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let place = kustomization::resolved(&place, "");
        Self { shown: path.to_owned(), place, found_as, bytes: None }
    }
}

/// Reads one file at a time, so that only one text is in memory.
pub(crate) struct InputReader<'r> {
    options: &'r LoadOptions,
    /// Errors and warnings.
    pub(crate) found: Vec<Diagnostic>,
    /// What lies beside manifests.
    pub(crate) aside: Aside,
    /// The files that were read, by their real paths.
    known: HashMap<PathBuf, PathBuf>,
    /// How many more files and directories may be visited.
    remaining: usize,
}

impl<'r> InputReader<'r> {
    pub(crate) fn new(options: &'r LoadOptions) -> Self {
        Self { options, found: Vec::new(), aside: Aside::default(), known: HashMap::new(), remaining: 0 }
    }

    /// Calls `each` with every text of `input`.
    pub(crate) fn read(&mut self, input: &Input, mut each: impl FnMut(&mut Self, Source)) {
        match input {
            Input::Text { name, text } => {
                each(self, Source::named(Text::new(name.as_str().into(), text.clone())));
            }
            Input::Cluster(text) => each(self, Source::named(Text::of_cluster(text.clone()))),
            Input::Stdin => {
                if let Some(text) = self.bytes(&"-".into(), io::stdin().lock(), None, None) {
                    each(self, Source::named(text));
                }
            }
            Input::Path(path) => {
                let listed = self.list(path);
                let above = chart::above(path);
                self.listed(listed, above, &mut each);
            }
            Input::Directory(files) => {
                let listed = files.iter().map(|file| Listed {
                    shown: file.path.as_str().into(),
                    place: file.path.as_str().into(),
                    found_as: Some(file.path.clone()),
                    bytes: Some(file.bytes.clone()),
                });
                self.listed(listed.collect(), None, &mut each);
            }
        }
    }

    /// Reads files. Kustomizations are read first, since their patches are not manifests.
    fn listed(
        &mut self,
        mut listed: Vec<Listed>,
        above: Option<chart::Chart>,
        each: &mut impl FnMut(&mut Self, Source),
    ) {
        let charts = chart::Charts::of(&listed, above);
        listed.sort_by_key(|file| !is_kustomization(&file.shown));
        for file in listed {
            if let Some(chart) = charts.of_template(&file.place) {
                self.aside.charts.insert(chart.to_owned());
                // A named file is read: it may have no templates in it.
                if file.found_as.is_some() && !self.options.raw {
                    continue;
                }
            }
            if file.found_as.is_some() && self.aside.is_patch(&file.place) {
                continue;
            }
            self.aside.read.add(&file.place);
            if self.is_known(&file) {
                let name = file.found_as.unwrap_or_else(|| display(&file.shown).to_string());
                self.aside.again.push(name);
                continue;
            }
            if let Some(text) = self.file(&file) {
                let found_as = file.found_as.filter(|_| !self.options.only_manifests);
                if chart::has_dependencies(&file.place, text.as_str()) {
                    self.aside.charts.insert(chart::shown_directory(&file.shown));
                }
                each(self, Source { text, place: Some(file.place), found_as });
            }
        }
    }

    /// Returns whether a file on disk was read before: it is given twice, or by a link. One that is named counts only if it had objects
    /// then: where it was found in a directory, it may have been taken for a file of another program.
    fn is_known(&mut self, file: &Listed) -> bool {
        if file.bytes.is_some() || !fs::metadata(&file.shown).is_ok_and(|metadata| metadata.is_file()) {
            return false;
        }
        let Ok(real) = fs::canonicalize(&file.shown) else { return false };
        let is_again = self
            .known
            .get(&real)
            .is_some_and(|before| file.found_as.is_some() || self.aside.read.has_objects(before));
        if !is_again {
            self.known.insert(real, file.place.clone());
        }
        is_again
    }

    fn problem(&mut self, name: &Name, code: Code, message: String, help: Option<&str>) {
        let origin = Some(Origin { file: name.clone(), line: 0, column: 0 });
        let help = help.map(str::to_owned);
        self.found.push(Diagnostic { origin, help, ..Diagnostic::new(Severity::Error, code, message) });
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.problem(&display(path), Code::NotReadable, format!("can't be read: {error}"), None);
    }

    fn file(&mut self, file: &Listed) -> Option<Text> {
        let name = display(&file.shown);
        let found_as = file.found_as.as_deref().filter(|_| !self.options.only_manifests);
        if let Some(bytes) = &file.bytes {
            return self.bytes(&name, &**bytes, Some(bytes.len() as u64), found_as);
        }
        let may_be_pipe = file.found_as.is_none() && !self.options.regular_files;
        let opened = if may_be_pipe { File::open(&file.shown) } else { open_regular(&file.shown) };
        let opened = opened.and_then(|opened| Ok((opened.metadata()?, opened)));
        match opened {
            // Kernel files such as /proc/kmsg report a size of 0, and reading them may block forever.
            Ok((metadata, _)) if metadata.is_file() && metadata.len() == 0 => {
                Some(Text::new(name, String::new()))
            }
            Ok((metadata, opened)) => {
                self.bytes(&name, opened, metadata.is_file().then_some(metadata.len()), found_as)
            }
            Err(error) => {
                self.unreadable(&file.shown, &error);
                None
            }
        }
    }

    /// Reads at most `max_file_bytes`, whatever size the file reports.
    fn bytes(
        &mut self,
        name: &Name,
        from: impl Read,
        length: Option<u64>,
        found_as: Option<&str>,
    ) -> Option<Text> {
        let mut bytes = Vec::new();
        if length.is_none_or(|l| l <= self.options.max_file_bytes) {
            if let Err(error) = from.take(self.options.max_file_bytes + 1).read_to_end(&mut bytes) {
                self.problem(name, Code::NotReadable, format!("can't be read: {error}"), None);
                return None;
            }
            if bytes.len() as u64 <= self.options.max_file_bytes {
                return self.utf8(name, bytes, found_as);
            }
        }
        let message = format!("is larger than the limit of {}", mebibytes(self.options.max_file_bytes));
        self.problem(name, Code::TooLarge, message, Some("split the file, or pass a directory without it"));
        None
    }

    fn utf8(&mut self, name: &Name, bytes: Vec<u8>, found_as: Option<&str>) -> Option<Text> {
        let error = match String::from_utf8(bytes) {
            Ok(text) => return Some(Text::new(name.clone(), text)),
            Err(error) => error,
        };
        let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        // In a text of another encoding the fields of an object would be legible, in an encrypted file they are not.
        if let Some(found_as) = found_as.filter(|_| !bytes.contains(&0) && !could_be_manifest(bytes)) {
            self.aside.not_manifests.push(found_as.to_owned());
            return None;
        }
        let help = if bytes.starts_with(b"\0GITCRYPT\0") {
            "the file is encrypted with git-crypt: run `git-crypt unlock`"
        } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            "the file is UTF-16, as PowerShell writes it: save it as UTF-8"
        } else if bytes.contains(&0) {
            "the file is binary: pass a directory without it"
        } else {
            "save the file as UTF-8"
        };
        let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
        let origin = Some(Origin { file: name.clone(), line: line as u32, column: 1 });
        let message = format!("is not UTF-8 at byte {at}");
        let diagnostic = Diagnostic::new(Severity::Error, Code::NotUtf8, message).with_help(help);
        self.found.push(Diagnostic { origin, ..diagnostic });
        None
    }
}

/// Opens a regular file. Anything else is opened without blocking, and refused.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
        options.custom_flags(flags.bits());
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

fn display(path: &Path) -> Name {
    path.display().to_string().into()
}

fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}
