//! Runs the program on one path, and makes such paths.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// An exit code and both outputs.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `palisade` with these words, separated by spaces, on one path.
pub(crate) fn run(words: &str, path: &Path) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    let output = command.args(words.split_whitespace()).arg("-f").arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A directory with one manifest.
pub(crate) fn manifest(text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), text).unwrap();
    dir
}
