//! The output of a program that runs, read as far as it is there.
//!
//! On Unix the pipe itself doesn't block, so that no thread has to read: a lab must have a single thread when it enters its
//! namespaces. Elsewhere there is no lab, and a thread reads.

use std::io::{self, Read};

/// How much is read from a pipe at once, in bytes. It is the size of a pipe on Linux.
const CHUNK: usize = 64 << 10;

#[cfg(unix)]
pub(super) use without_thread::Pipe;

#[cfg(not(unix))]
pub(super) use with_thread::Pipe;

#[cfg(unix)]
mod without_thread {
    use std::os::fd::{AsFd, OwnedFd};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::{CHUNK, Read as _, io, keep};

    /// The reading end of a pipe, and what was read from it.
    pub(in crate::inputs) struct Pipe {
        end: std::fs::File,
        pub(in crate::inputs) read: Vec<u8>,
    }

    impl Pipe {
        pub(in crate::inputs) fn new(end: impl AsFd + Into<OwnedFd>) -> io::Result<Self> {
            fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Self { end: end.into().into(), read: Vec::new() })
        }

        /// Reads a part of what is there, and keeps at most `limit` bytes. Returns whether anything was there.
        pub(in crate::inputs) fn read(&mut self, limit: usize, _ended: bool) -> io::Result<bool> {
            let mut chunk = [0; CHUNK];
            match self.end.read(&mut chunk) {
                Ok(count) => {
                    keep(&mut self.read, &chunk[..count], limit);
                    Ok(count > 0)
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        }
    }
}

/// Compiled for the tests on Unix too.
#[cfg(any(test, not(unix)))]
mod with_thread {
    use std::{
        sync::mpsc::{Receiver, sync_channel},
        thread,
        time::Duration,
    };

    use super::{CHUNK, Read, io, keep};

    /// How long the end of the output is waited for when the program has ended. A program that it left behind can hold the pipe open.
    const GRACE: Duration = Duration::from_millis(500);

    /// What a thread reads from a pipe, and what was taken from it.
    pub(in crate::inputs) struct Pipe {
        chunks: Receiver<io::Result<Vec<u8>>>,
        pub(in crate::inputs) read: Vec<u8>,
    }

    impl Pipe {
        pub(in crate::inputs) fn new(mut end: impl Read + Send + 'static) -> io::Result<Self> {
            // One chunk at a time: a program that writes without end is stopped before its output fills the memory.
            let (sender, chunks) = sync_channel(1);
            thread::Builder::new().name("pipe".to_owned()).spawn(move || {
                let mut chunk = vec![0; CHUNK];
                loop {
                    let read = match end.read(&mut chunk) {
                        Ok(0) => return,
                        Ok(count) => Ok(chunk[..count].to_vec()),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => Err(error),
                    };
                    let failed = read.is_err();
                    // There is no receiver any more if the program was stopped.
                    if sender.send(read).is_err() || failed {
                        return;
                    }
                }
            })?;
            Ok(Self { chunks, read: Vec::new() })
        }

        /// Takes a part of what is there, and keeps at most `limit` bytes. Returns whether anything was there.
        pub(in crate::inputs) fn read(&mut self, limit: usize, ended: bool) -> io::Result<bool> {
            let chunk =
                if ended { self.chunks.recv_timeout(GRACE).ok() } else { self.chunks.try_recv().ok() };
            let Some(chunk) = chunk else { return Ok(false) };
            keep(&mut self.read, &chunk?, limit);
            Ok(true)
        }
    }
}

/// Appends what fits into the limit.
fn keep(kept: &mut Vec<u8>, more: &[u8], limit: usize) {
    let fits = more.len().min(limit.saturating_sub(kept.len()));
    kept.extend_from_slice(&more[..fits]);
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Write as _, pipe};

    use super::{with_thread, without_thread};

    /// Reads until nothing is there, as for a program that has ended.
    macro_rules! all_of {
        ($pipe:expr, $limit:expr) => {{
            let mut pipe = $pipe;
            while pipe.read($limit, true).expect("readable") {}
            pipe.read
        }};
    }

    #[test]
    fn both_read_all_that_is_there_up_to_the_limit() {
        let written: Vec<u8> = (0..60_000_u32).map(|i| i as u8).collect();
        for limit in [usize::MAX, 60_000, 1_000, 0] {
            let wanted = &written[..limit.min(written.len())];
            for closed in [true, false] {
                let (end, mut from) = pipe().expect("a pipe");
                from.write_all(&written).expect("it fits into the pipe");
                // Held open by a program that was left behind.
                let held = (!closed).then_some(from);
                assert_eq!(all_of!(without_thread::Pipe::new(end).expect("a pipe"), limit), wanted);
                drop(held);

                let (end, mut from) = pipe().expect("a pipe");
                from.write_all(&written).expect("it fits into the pipe");
                let held = (!closed).then_some(from);
                assert_eq!(all_of!(with_thread::Pipe::new(end).expect("a pipe"), limit), wanted);
                drop(held);
            }
        }
    }

    #[test]
    fn neither_waits_while_the_program_runs() {
        let (end, _from) = pipe().expect("a pipe");
        assert!(!without_thread::Pipe::new(end).expect("a pipe").read(1, false).expect("readable"));
        let (end, _from) = pipe().expect("a pipe");
        assert!(!with_thread::Pipe::new(end).expect("a pipe").read(1, false).expect("readable"));
    }
}
