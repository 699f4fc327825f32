//! Where manifests come from: files, directories, standard input, texts.

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

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, or a directory with all `.yaml`, `.yml` and `.json` files below it, in the order of their names. Below a
    /// directory, names that begin with a dot are passed over: mounted ConfigMaps keep their versions there.
    Path(PathBuf),
    /// Standard input, called `-` in messages.
    Stdin,
    /// A text and what messages call it.
    Text {
        /// The name.
        name: String,
        /// The text.
        text: String,
    },
    /// Objects as an API server sent them, as JSON: one, or a `List`. They have been admitted, so nothing is checked that
    /// the server has checked; no address is made up for them; and instead of a file and a line, reasons name the object and
    /// the field. An object of a file that comes later replaces the live one without a word.
    Cluster(String),
}

impl Input {
    /// What `-f ARGUMENT` means: `-` is standard input.
    #[must_use]
    pub fn of_argument(argument: &str) -> Self {
        if argument == "-" { Self::Stdin } else { Self::Path(argument.into()) }
    }
}

/// The files that [`Input::Path`] means, in the order in which they are read. What can't be listed is left out: reading it
/// says why.
#[must_use]
pub fn files(path: &Path, options: &LoadOptions) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let files = InputReader::new(options, &mut found).list(path);
    files.into_iter().map(|file| file.path).collect()
}

/// Reads inputs one file at a time, so only one text is in memory.
pub(crate) struct InputReader<'r> {
    options: &'r LoadOptions,
    /// Where what can't be read is reported.
    pub(crate) found: &'r mut Vec<Diagnostic>,
    /// How many more files and directories are looked at.
    left: usize,
}

/// A file to be read.
struct Listed {
    path: PathBuf,
    /// Whether the user named it, and didn't leave it to be found in a directory.
    named: bool,
}

impl<'r> InputReader<'r> {
    pub(crate) fn new(options: &'r LoadOptions, found: &'r mut Vec<Diagnostic>) -> Self {
        Self { options, found, left: 0 }
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
        self.left = self.options.max_files.saturating_add(1);
        self.files(path, true, &mut HashSet::new(), &mut files);
        if self.left == 0 {
            // Symbolic links between directories multiply what is found below them.
            let message = format!("has more than {} files and directories", self.options.max_files);
            self.problem(
                &display(path),
                Code::TooLarge,
                message,
                Some("name a directory of manifests alone"),
            );
        }
        files
    }

    /// The files at or below `path`. `visited` holds the real paths of the directories on the way: a symbolic link that
    /// leads back up ends there.
    fn files(&mut self, path: &Path, named: bool, visited: &mut HashSet<PathBuf>, out: &mut Vec<Listed>) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return;
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                // A dangling link to something that isn't a manifest is nobody's business.
                if named || is_manifest(path) {
                    self.unreadable(path, &error);
                }
                return;
            }
        };
        if !metadata.is_dir() {
            // What was named is read, be it a pipe. What was found must be a manifest, and a regular file.
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
        for entry in entries.take(self.left) {
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
        let may_be_a_pipe = file.named && !self.options.regular_files;
        let opened = if may_be_a_pipe { File::open(&file.path) } else { open_regular(&file.path) };
        let opened = opened.and_then(|opened| Ok((opened.metadata()?, opened)));
        match opened {
            // The kernel's own files, such as /proc/kmsg, claim to be empty, and reading them may block for ever.
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

    /// Reads at most the limit, whatever the file's length claims.
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

/// Opens a regular file. What else has its name is opened without waiting for a writer, and refused.
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
