//! The file of a [`NodeState`].
//!
//! ```text
//! palisade node state 1 <SHA-256 of the rest, hexadecimal>
//! {"node":"node-1","podRanges":["10.244.1.0/24"],"addressesElsewhere":false}
//! ```

use std::{
    fmt::Write as _,
    fs, io,
    io::Read as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use super::NodeState;
use crate::replace::replace;

/// The name of the file in the state directory.
const NAME: &str = "node-state";
/// What a file of this format begins with, before its version.
const MAGIC: &str = "palisade node state ";
const VERSION: u32 = 1;
/// The largest file that is read. A state has a handful of ranges.
const MAX_SIZE: u64 = 64 << 10;
/// Only the agent's user may read or write the file and its directory.
const FILE_MODE: u32 = 0o600;
/// See [`FILE_MODE`].
const DIRECTORY_MODE: u32 = 0o700;

/// Why a state can't be used or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not one that this version wrote completely.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A state directory.
#[derive(Clone, Debug)]
pub struct StateFile {
    directory: PathBuf,
}

impl StateFile {
    /// The file in this directory, which may not exist yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Reads the state of `node`. `None` if there is no file.
    ///
    /// # Errors
    /// If the file can't be read, is too large, damaged, of another version, or of another node.
    pub fn read(&self, node: &str) -> Result<Option<NodeState>, StateError> {
        let path = self.path();
        let failed = |source| StateError::Io { doing: "read", path: path.clone(), source };
        let invalid = |why: String| StateError::Invalid { path: path.clone(), why };
        // Not through a link, and without waiting for the other end of a pipe.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(invalid("not a regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(invalid(format!("larger than {MAX_SIZE} bytes")));
        }
        let state = parse(&bytes).map_err(invalid)?;
        if state.node != node {
            return Err(invalid(format!("the state of node {}, and this is {node}", state.node)));
        }
        Ok(Some(state))
    }

    /// Replaces the file, so that a crash at any moment leaves the old one or the new one. Blocks until it is on the disk.
    ///
    /// # Errors
    /// If the directory can't be created or written.
    pub fn write(&self, state: &NodeState) -> Result<(), StateError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { doing, path, source }
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(DIRECTORY_MODE);
        builder.create(&self.directory).map_err(failed("create", &self.directory))?;
        let fresh = self.directory.join(format!("{NAME}.new"));
        let path = self.path();
        replace(&path, &fresh, FILE_MODE, &mut &*format(state)).map_err(failed("write", &path))?;
        let directory = fs::File::open(&self.directory).map_err(failed("open", &self.directory))?;
        directory.sync_all().map_err(failed("write", &self.directory))
    }

    /// Removes the file, and the directory if nothing else is in it.
    ///
    /// # Errors
    /// If it exists and can't be removed.
    pub fn remove(&self) -> Result<(), StateError> {
        for path in [self.path(), self.directory.join(format!("{NAME}.new"))] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Io { doing: "remove", path, source });
                }
                _ => {}
            }
        }
        // Others may have files in it, or it is a mount.
        _ = fs::remove_dir(&self.directory);
        Ok(())
    }
}

fn format(state: &NodeState) -> Vec<u8> {
    // A map of strings, lists and booleans can always be written.
    let body = serde_json::to_string(state).unwrap_or_default() + "\n";
    format!("{MAGIC}{VERSION} {}\n{body}", checksum(body.as_bytes())).into_bytes()
}

fn parse(bytes: &[u8]) -> Result<NodeState, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (first, body) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 1..]));
    let first = std::str::from_utf8(first).ok().and_then(|line| line.strip_prefix(MAGIC));
    let Some((version, sum)) = first.and_then(|rest| rest.split_once(' ')) else {
        return Err("not a state of palisade, or damaged".to_owned());
    };
    if version != VERSION.to_string() {
        return Err(format!("format {version}, and this version of palisade reads {VERSION}"));
    }
    if sum != checksum(body) {
        return Err("damaged: the checksum does not match".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("invalid: {error}"))
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, byte| {
        // Writing to a string can't fail.
        _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    fn state(node: &str) -> NodeState {
        let pod_ranges = vec!["10.244.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        NodeState { node: node.to_owned(), pod_ranges, addresses_elsewhere: false }
    }

    #[test]
    fn a_state_is_written_for_its_user_alone_and_read_back() {
        let dir = TempDir::new().unwrap();
        let file = StateFile::new(&dir.path().join("a/b"));
        assert_eq!(file.read("n1").unwrap(), None);
        for node in ["n0", "n1"] {
            file.write(&state(node)).unwrap();
        }
        assert_eq!(file.read("n1").unwrap(), Some(state("n1")));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file.path()), mode(&file.directory)), (0o600, 0o700));
        let names: Vec<_> = fs::read_dir(&file.directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
        file.remove().unwrap();
        assert_eq!(file.read("n1").unwrap(), None);
        assert!(!file.directory.exists());
        file.remove().unwrap();
    }

    #[test]
    fn nothing_but_a_whole_file_of_this_version_and_node_is_used() {
        let dir = TempDir::new().unwrap();
        let file = StateFile::new(dir.path());
        let whole = format(&state("n1"));
        let refused = |bytes: &[u8]| {
            fs::write(file.path(), bytes).unwrap();
            file.read("n1").unwrap_err().to_string()
        };
        // Every truncation, and every flipped bit.
        for length in 0..whole.len() {
            refused(&whole[..length]);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                refused(&damaged);
            }
        }
        assert!(refused(&format(&state("n2"))).contains("the state of node n2, and this is n1"));
        let text = String::from_utf8(whole).unwrap();
        assert!(refused(text.replace("state 1", "state 2").as_bytes()).contains("format 2"));
        assert!(refused(&[b'x'; 70_000]).contains("larger than"));
        let unknown = "{\"node\":\"n1\",\"podRanges\":[],\"addressesElsewhere\":false,\"more\":1}\n";
        let unknown = format!("{MAGIC}{VERSION} {}\n{unknown}", checksum(unknown.as_bytes()));
        assert!(refused(unknown.as_bytes()).contains("unknown field"));

        fs::remove_file(file.path()).unwrap();
        symlink("/etc/hostname", file.path()).unwrap();
        file.read("n1").unwrap_err();
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        file.read("n1").unwrap_err();
    }

    #[test]
    fn a_link_in_place_of_the_new_file_is_not_followed() {
        let dir = TempDir::new().unwrap();
        let (file, other) = (StateFile::new(dir.path()), dir.path().join("other"));
        fs::write(&other, "mine").unwrap();
        symlink(&other, dir.path().join("node-state.new")).unwrap();
        file.write(&state("n1")).unwrap();
        assert_eq!(fs::read_to_string(other).unwrap(), "mine");
        assert_eq!(file.read("n1").unwrap(), Some(state("n1")));
    }
}
