//! Reads the texts of manifests from files, directories, standard input and the API server.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use palisade_policy::{Name, Origin};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    options::LoadOptions,
    text::Text,
};

/// Something to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, or a directory with all `.yaml`, `.yml` and `.json` files below it, in the order of their names. In
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
    /// One object, or a `List`, as JSON from an API server. The server has admitted the objects, so they are not
    /// validated again, and no address is generated for them. Their positions are the object's name and the field's path.
    /// An object of a later file replaces one from the cluster without a warning.
    Cluster(String),
}

impl Input {
    /// Interprets the argument of `-f`: `-` is standard input.
    #[must_use]
    pub fn of_argument(argument: &str) -> Self {
        if argument == "-" { Self::Stdin } else { Self::Path(argument.into()) }
    }
}

/// Returns the files of an [`Input::Path`] in the order in which they are read. Directories that can't be listed are
/// remaining out here, and reported when they are read.
#[must_use]
pub fn files(path: &Path, options: &LoadOptions) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let files = InputReader::new(options, &mut found).list(path);
    files.into_iter().map(|file| file.path).collect()
}

/// Reads one file at a time, so that only one text is in memory.
pub(crate) struct InputReader<'r> {
    options: &'r LoadOptions,
    /// Where unreadable files are reported.
    pub(crate) found: &'r mut Vec<Diagnostic>,
    /// How many more files and directories may be visited.
    remaining: usize,
}

/// A file to be read.
struct Listed {
    path: PathBuf,
    /// Whether the user named the file. Otherwise it was found in a directory.
    named: bool,
}

impl<'r> InputReader<'r> {
    pub(crate) fn new(options: &'r LoadOptions, found: &'r mut Vec<Diagnostic>) -> Self {
        Self { options, found, remaining: 0 }
    }

    /// Calls `each` with every text of `input`.
    pub(crate) fn read(&mut self, input: &Input, mut each: impl FnMut(&mut Self, Text)) {
        match input {
            Input::Text { name, text } => each(self, Text::new(name.as_str().into(), text.clone())),
            Input::Cluster(text) => each(self, Text::of_cluster(text.clone())),
            Input::Stdin => {
                let name = Name::from("-");
                if let Some(text) = self.bytes(&name, io::stdin().lock(), None) {
                    each(self, text);
                }
            }
            Input::Path(path) => {
                for file in self.list(path) {
                    if let Some(text) = self.file(&file) {
                        each(self, text);
                    }
                }
            }
        }
    }

    fn problem(&mut self, name: &Name, code: Code, message: String, help: Option<&str>) {
        let origin = Some(Origin { file: name.clone(), line: 0, column: 0 });
        let help = help.map(str::to_owned);
        self.found.push(Diagnostic { origin, help, ..Diagnostic::new(Severity::Error, code, message) });
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.problem(&display(path), Code::NotReadable, format!("can't be read: {error}"), None);
    }

    fn list(&mut self, path: &Path) -> Vec<Listed> {
        let mut files = Vec::new();
        self.remaining = self.options.max_files.saturating_add(1);
        self.files(path, true, &mut HashSet::new(), &mut files);
        if self.remaining == 0 {
            // Symbolic links between directories can multiply the number of files.
            let message = format!("has more than {} files and directories", self.options.max_files);
            self.problem(
                &display(path),
                Code::TooLarge,
                message,
                Some("pass a directory that contains only manifests"),
            );
        }
        files
    }

    /// Collects the files at or below `path`. `visited` holds the real paths of its parent directories, so that
    /// symbolic links to a parent are not followed.
    fn files(&mut self, path: &Path, named: bool, visited: &mut HashSet<PathBuf>, out: &mut Vec<Listed>) {
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 {
            return;
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                // A dangling link is only an error if it looks like a manifest.
                if named || is_manifest(path) {
                    self.unreadable(path, &error);
                }
                return;
            }
        };
        if !metadata.is_dir() {
            // A named path is read even if it is a pipe. Paths found in directories must be regular files with a
            // manifest's extension.
            if named || (metadata.is_file() && is_manifest(path)) {
                out.push(Listed { path: path.to_owned(), named });
            }
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
        for path in below {
            self.files(&path, false, visited, out);
        }
        visited.remove(&real);
    }

    fn file(&mut self, file: &Listed) -> Option<Text> {
        let name = display(&file.path);
        let may_be_pipe = file.named && !self.options.regular_files;
        let opened = if may_be_pipe { File::open(&file.path) } else { open_regular(&file.path) };
        let opened = opened.and_then(|opened| Ok((opened.metadata()?, opened)));
        match opened {
            // Kernel files such as /proc/kmsg report a size of 0, and reading them may block forever.
            Ok((metadata, _)) if metadata.is_file() && metadata.len() == 0 => {
                Some(Text::new(name, String::new()))
            }
            Ok((metadata, opened)) => self.bytes(&name, opened, metadata.is_file().then_some(metadata.len())),
            Err(error) => {
                self.unreadable(&file.path, &error);
                None
            }
        }
    }

    /// Reads at most `max_file_bytes`, whatever size the file reports.
    fn bytes(&mut self, name: &Name, from: impl Read, length: Option<u64>) -> Option<Text> {
        let mut bytes = Vec::new();
        if length.is_none_or(|l| l <= self.options.max_file_bytes) {
            if let Err(error) = from.take(self.options.max_file_bytes + 1).read_to_end(&mut bytes) {
                self.problem(name, Code::NotReadable, format!("can't be read: {error}"), None);
                return None;
            }
            if bytes.len() as u64 <= self.options.max_file_bytes {
                return self.utf8(name, bytes);
            }
        }
        let message = format!("is larger than the limit of {}", mebibytes(self.options.max_file_bytes));
        self.problem(name, Code::TooLarge, message, Some("split the file, or raise the limit"));
        None
    }

    fn utf8(&mut self, name: &Name, bytes: Vec<u8>) -> Option<Text> {
        match String::from_utf8(bytes) {
            Ok(text) => Some(Text::new(name.clone(), text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
                let origin = Some(Origin { file: name.clone(), line: line as u32, column: 1 });
                let message = format!("is not UTF-8 at byte {at}");
                self.found.push(
                    Diagnostic { origin, ..Diagnostic::new(Severity::Error, Code::NotUtf8, message) }
                        .with_help("save the file as UTF-8"),
                );
                None
            }
        }
    }
}

/// Opens a regular file. Anything else is opened without blocking, and refused.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = File::options();
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

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}
