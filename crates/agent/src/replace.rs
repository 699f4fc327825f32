//! Replaces files by renaming, so that no reader sees half of one and a crash leaves the old file or the new one.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Writes `content` to `fresh`, a path in the same directory, and renames that to `path`. Blocks until the content is on the disk.
///
/// # Errors
/// If a file can't be written, or another process has created `fresh` meanwhile. `fresh` is removed then.
pub(crate) fn replace(path: &Path, fresh: &Path, mode: u32, content: &mut impl Read) -> io::Result<()> {
    replace_by(path, fresh, |fresh| write(fresh, mode, content)?.sync_all())
}

/// The same without waiting for the disk, for files that are useless after a restart of the node.
///
/// # Errors
/// As [`replace`].
#[cfg(feature = "daemon")]
pub(crate) fn replace_unsynced(
    path: &Path,
    fresh: &Path,
    mode: u32,
    content: &mut impl Read,
) -> io::Result<()> {
    replace_by(path, fresh, |fresh| write(fresh, mode, content).map(drop))
}

fn replace_by(path: &Path, fresh: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    // Left by a crash, or a symbolic link, which must not be followed.
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write(fresh).and_then(|()| fs::rename(fresh, path));
    if written.is_err() {
        _ = fs::remove_file(fresh);
    }
    written
}

fn write(fresh: &Path, mode: u32, content: &mut impl Read) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(fresh)?;
    io::copy(content, &mut file)?;
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}
