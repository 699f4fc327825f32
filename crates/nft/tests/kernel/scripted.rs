//! A kernel whose replies a test can script: the real one, with a transport that injects failures.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};

use palisade_nft::{Kernel, NetlinkSocket, Transport};

/// The failure of one batch.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The socket refuses to send it.
    Send(i32),
    /// Sending is interrupted, and succeeds the second time.
    Interrupted,
    /// The kernel refuses the message with this index (0 is the first after the start of the batch) and changes nothing.
    Refused(u32, i32, &'static str),
    /// It takes effect, but the acknowledgement is lost.
    AnswerLost,
}

/// Shared between the test and the transport.
#[derive(Default)]
pub(crate) struct Script {
    /// One entry for each of the next batches. Further batches succeed.
    pub(crate) faults: VecDeque<Option<Fault>>,
    /// The size of the largest datagram, if smaller than the socket's.
    pub(crate) largest: Option<usize>,
    /// Runs after each batch.
    pub(crate) after_batch: Option<Box<dyn FnMut() + Send>>,
    /// How many batches were sent.
    pub(crate) batches: usize,
    /// After so many batches, sending always fails.
    pub(crate) cut_after: Option<usize>,
    /// The kernel has no memory for batches about this table, except for its removal.
    pub(crate) refused_table: Option<&'static str>,
}

pub(crate) struct Scripted {
    socket: NetlinkSocket,
    script: Arc<Mutex<Script>>,
    answers: VecDeque<io::Result<Vec<u8>>>,
}

/// Returns a kernel with a script, and the script.
pub(crate) fn kernel() -> (Kernel, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(Script::default()));
    let socket = NetlinkSocket::open().unwrap();
    let transport = Scripted { socket, script: script.clone(), answers: VecDeque::new() };
    (Kernel::with_transport(Box::new(transport)).unwrap(), script)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Transport for Scripted {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        // NFNL_MSG_BATCH_BEGIN
        if datagram[4..6] != 0x10u16.to_ne_bytes() {
            return self.socket.send(datagram);
        }
        let mut script = self.script.lock().unwrap();
        if script.largest.is_some_and(|largest| datagram.len() > largest) {
            return Err(errno(nix::libc::EMSGSIZE));
        }
        if script.cut_after.is_some_and(|limit| script.batches >= limit) {
            return Err(errno(nix::libc::EPIPE));
        }
        script.batches += 1;
        let is_named = |name: &&str| datagram.windows(name.len()).any(|part| part == name.as_bytes());
        // A removal is a batch of three short messages.
        if script.refused_table.as_ref().is_some_and(is_named) && datagram.len() > 200 {
            self.answers.push_back(Ok(refusal(datagram, 0, nix::libc::ENOMEM, "")));
            return Ok(());
        }
        match script.faults.pop_front().flatten() {
            None => self.socket.send(datagram)?,
            Some(Fault::Send(number)) => return Err(errno(number)),
            Some(Fault::Interrupted) => {
                script.batches -= 1;
                script.faults.push_front(None);
                self.answers.push_back(Err(errno(nix::libc::EINTR)));
                return Err(errno(nix::libc::EINTR));
            }
            Some(Fault::Refused(index, number, words)) => {
                self.answers.push_back(Ok(refusal(datagram, index, number, words)));
            }
            Some(Fault::AnswerLost) => {
                self.socket.send(datagram)?;
                while self.socket.receive(false).is_ok() {}
                self.answers.push_back(Err(errno(nix::libc::ENOBUFS)));
            }
        }
        if let Some(mut after) = script.after_batch.take() {
            drop(script);
            after();
            self.script.lock().unwrap().after_batch = Some(after);
        }
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        match self.answers.pop_front() {
            Some(answer) => answer,
            None => self.socket.receive(wait),
        }
    }

    fn port(&self) -> u32 {
        self.socket.port()
    }

    fn max_datagram(&self) -> usize {
        self.script.lock().unwrap().largest.unwrap_or_else(|| self.socket.max_datagram())
    }
}

/// NLMSG_ERROR as the kernel sends it with NETLINK_CAP_ACK and NETLINK_EXT_ACK.
fn refusal(batch: &[u8], index: u32, number: i32, words: &str) -> Vec<u8> {
    let begin = u32::from_ne_bytes(batch[8..12].try_into().unwrap());
    let mut out = vec![0; 4];
    out.extend(2u16.to_ne_bytes());
    out.extend(0x300u16.to_ne_bytes());
    out.extend((begin + 1 + index).to_ne_bytes());
    out.extend([0; 4]);
    out.extend((-number).to_ne_bytes());
    out.extend([0; 16]);
    // NLMSGERR_ATTR_MSG
    out.extend((words.len() as u16 + 5).to_ne_bytes());
    out.extend(1u16.to_ne_bytes());
    out.extend(words.bytes().chain([0]));
    out.resize(out.len().next_multiple_of(4), 0);
    let length = (out.len() as u32).to_ne_bytes();
    out[..4].copy_from_slice(&length);
    out
}
