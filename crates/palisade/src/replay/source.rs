//! Opens what records are read from: a file, a pipe or a device. What never ends, or never begins, is refused.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

use anyhow::{Context as _, Result};

/// What records are read from.
pub(super) struct Source {
    pub(super) from: Box<dyn BufRead>,
    /// Whether it has an end for sure.
    pub(super) is_finite: bool,
}

/// Opens a file; `-` is standard input. `name` is its name in messages.
///
/// # Errors
/// When it can't be opened, or is a named pipe to which nothing writes.
pub(super) fn open(path: &str, name: &str) -> Result<Source> {
    let problem = || format!("can't read {name}");
    if path == "-" {
        return Ok(Source { from: Box::new(io::stdin().lock()), is_finite: false });
    }
    let kind = std::fs::metadata(path).with_context(problem)?;
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_fifo(&kind.file_type()) {
        return Ok(Source { from: fifo::open(path, name)?, is_finite: false });
    }
    let file = File::open(path).with_context(problem)?;
    Ok(Source { from: Box::new(BufReader::new(file)), is_finite: kind.is_file() })
}

#[cfg(unix)]
mod fifo {
    use std::{
        fs::OpenOptions,
        io::{self, BufRead, BufReader, Read as _},
        os::unix::fs::OpenOptionsExt as _,
        thread,
        time::{Duration, Instant},
    };

    use anyhow::{Context as _, Result, bail};
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    /// How long is waited for a program that writes.
    const PATIENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(20);

    /// Opens a named pipe, and waits for a program that writes to it. Once there is one, it may take its time.
    pub(super) fn open(path: &str, name: &str) -> Result<Box<dyn BufRead>> {
        let problem = || format!("can't read {name}");
        let flags = OFlag::O_NONBLOCK.bits();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).with_context(problem)?;
        let until = Instant::now() + PATIENCE;
        let mut first = [0; 1];
        let length = loop {
            match file.read(&mut first) {
                // Nothing has it open to write.
                Ok(0) if Instant::now() < until => thread::sleep(PAUSE),
                Ok(0) => bail!("{name} is a named pipe, and nothing writes to it"),
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(problem),
            }
        };
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).with_context(problem)?;
        let first = first[..length].to_vec();
        Ok(Box::new(BufReader::new(io::Cursor::new(first).chain(file))))
    }
}
