//! Reads files that other programs write.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::libc::O_NONBLOCK;

/// Reads a file of at most so many bytes. What isn't a file is not read: a pipe may have no writer, and some devices no end.
///
/// # Errors
/// The file can't be read, is longer, or isn't a file.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let invalid = |problem| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    if !fs::metadata(path)?.is_file() {
        return invalid("it is not a regular file".to_owned());
    }
    // It may be replaced in between.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => invalid(format!("it has more than {most} bytes")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_long_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let (pipe, file, link) = (dir.path().join("pipe"), dir.path().join("file"), dir.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(&file, "12345").unwrap();
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [&pipe, &link, dir.path()] {
            assert_eq!(read(path, 9).unwrap_err().to_string(), "it is not a regular file");
        }
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().to_string(), "it has more than 4 bytes");
    }
}
