//! The pods that have started through the plugin, as files beside the agent's socket. *Why:* an agent that starts must know pods of which the
//! API server doesn't know the addresses yet, and a plugin can tell an agent that isn't there nothing. The directory is in `/run`, which a
//! restart of the node empties.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{
    attachment::{Attachment, check_id},
    file,
};
use crate::replace::replace_unsynced;

/// The directory's name, beside the socket.
const DIRECTORY: &str = "cni";
/// The most records that are read. A node runs some hundred pods.
const MAX_RECORDS: usize = 4096;
/// The longest record in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The directory of the records.
#[derive(Clone, Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    /// The directory beside an agent's socket.
    pub(crate) fn beside(socket: &Path) -> Self {
        Self(socket.with_file_name(DIRECTORY))
    }

    /// Writes a record, or replaces it. Not synced: where the directory is on a disk, pods would start later by that, and a record is useless
    /// after a restart of the node.
    pub(super) fn write(&self, attachment: &Attachment) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let text = serde_json::to_vec(attachment)?;
        // Two calls for one sandbox don't write the same file.
        let temporary = self.0.join(format!(".{}.{}", attachment.id, std::process::id()));
        replace_unsynced(&self.path(&attachment.id), &temporary, 0o600, &mut &*text)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.path(id).exists()
    }

    /// Removes a record, if it is there.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads all records. Those that can't be read are returned as texts.
    pub(crate) fn read(&self) -> (Vec<Attachment>, Vec<String>) {
        let (mut found, mut invalid) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return (found, invalid),
            Err(error) => return (found, vec![format!("{}: {error}", self.0.display())]),
        };
        for entry in entries.flatten().take(MAX_RECORDS) {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(attachment) => found.push(attachment),
                Err(error) => invalid.push(format!("{}: {error}", path.display())),
            }
        }
        (found, invalid)
    }

    /// Removes the directory.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }
}

fn read(path: &Path) -> Result<Attachment, String> {
    let text = file::read(path, MAX_BYTES).map_err(|error| error.to_string())?;
    let attachment: Attachment = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    attachment.check()?;
    check_id(&attachment.id)?;
    Ok(attachment)
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::attachment::tests::attachment;

    #[test]
    fn records_are_read_back_and_what_is_no_record_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let records = Records::beside(&dir.path().join("agent.sock"));
        assert_eq!(records.read(), (vec![], vec![]));
        records.write(&attachment("a")).unwrap();
        records.write(&attachment("a")).unwrap();
        fs::write(dir.path().join("cni/b.json"), "{").unwrap();
        fs::write(dir.path().join("cni/c.json"), "x".repeat(70_000)).unwrap();
        let (found, mut invalid) = records.read();
        invalid.sort();
        assert_eq!(found, [attachment("a")]);
        assert!(
            invalid[0].contains("b.json: EOF") && invalid[1].contains("c.json: it has more than 65536"),
            "{invalid:?}"
        );
        assert!(records.has("a"));
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert!(!records.has("a"));
        records.remove_all().unwrap();
        records.remove_all().unwrap();
        assert!(!dir.path().join("cni").exists());
    }
}
