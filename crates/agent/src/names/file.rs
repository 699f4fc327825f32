//! The learned names on the disk.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use palisade_dns::{BadState, LearnLimits, LearnedNames, Seconds, decode};

use crate::replace::replace;

/// The name of the file in the state directory.
const NAME: &str = "learned-names";
/// The longest file that is read, more than the limits of learned names allow.
const MAX_SIZE: u64 = 64 << 20;

/// The file of learned names.
#[derive(Clone, Debug)]
pub(crate) struct NamesFile(PathBuf);

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamesFileError {
    /// It can't be read.
    #[error("cannot read the file of learned names")]
    Io(#[from] io::Error),
    /// Its content.
    #[error("cannot use the file of learned names")]
    Bad(#[from] BadState),
}

impl NamesFile {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.join(NAME))
    }

    /// Reads what is still valid. Nothing if there is no file.
    pub(super) fn read(&self, limits: LearnLimits, now: Seconds) -> Result<LearnedNames, NamesFileError> {
        // Not through a link, and without waiting for the other end of a pipe.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LearnedNames::new(limits)),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
        Ok(decode(&bytes, limits, now)?)
    }

    /// Replaces the file. Blocks until it is on the disk.
    pub(super) fn write(&self, content: &[u8]) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        replace(&self.0, &self.0.with_extension("new"), 0o600, &mut &*content)
    }

    /// Removes the file.
    #[cfg(feature = "daemon")]
    pub(crate) fn remove(&self) -> io::Result<()> {
        for path in [&self.0, &self.0.with_extension("new")] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
