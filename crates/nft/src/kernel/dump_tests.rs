//! Dumps over a socket that loses messages: the kernel starts no second dump before the first is read to its end.

use std::collections::VecDeque;

use nix::libc::EBUSY;

use super::*;
use crate::uapi::{
    netfilter::NFPROTO_INET,
    netlink::{NLMSG_DONE, NLMSG_ERROR},
    nf_tables::{NFT_MSG_NEWGEN, NFT_MSG_NEWSET},
    nfnetlink::message_of,
};

/// Any message of nf_tables that a dump may consist of.
const LISTED: u16 = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWSET);

/// A socket with one dump at a time, like the kernel's.
#[derive(Default)]
struct LossySocket {
    /// The rest of the current dump, including its end.
    running: VecDeque<Vec<u8>>,
    answers: VecDeque<io::Result<Vec<u8>>>,
    /// How many messages of the dump arrive before one is lost. `None`: nothing is lost.
    lose_after: Option<usize>,
    /// Whether the dump stalls until something else is read.
    stalls: bool,
}

fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(2u16.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(payload);
    out
}

impl Transport for LossySocket {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let Some(request) = replies(request).next() else { return Ok(()) };
        let sequence = request.sequence;
        if message_of(request.kind) == NFT_MSG_GETGEN {
            let mut payload = vec![0; 4];
            payload.extend([8, 0, 1, 0, 0, 0, 0, 7]);
            let kind = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN);
            self.answers.push_back(Ok(message(kind, sequence, &payload)));
        } else if self.running.is_empty() {
            let piece = |n: u8| message(LISTED, sequence, &[0, 0, 0, 0, n]);
            self.running = (0..4).map(piece).chain([message(NLMSG_DONE, sequence, &[0; 4])]).collect();
        } else {
            let mut payload = (-EBUSY).to_ne_bytes().to_vec();
            payload.extend([0; 16]);
            self.answers.push_back(Ok(message(NLMSG_ERROR, sequence, &payload)));
        }
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        if let Some(answer) = self.answers.pop_front() {
            self.stalls = false;
            return answer;
        }
        if let Some(left) = &mut self.lose_after {
            if *left == 0 {
                self.lose_after = None;
                return Err(io::Error::from_raw_os_error(ENOBUFS));
            }
            *left -= 1;
        }
        if self.stalls && self.lose_after.is_none() {
            assert!(!wait, "this would block until the receive timeout");
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.running.pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn max_datagram(&self) -> usize {
        1 << 16
    }
}

fn list(socket: LossySocket) -> Result<Vec<u8>, Error> {
    let mut kernel = Kernel::with_transport(Box::new(socket))?;
    kernel.dump(LISTED, NFPROTO_INET, &[], "objects", |reply| reply.attributes().first().copied())
}

#[test]
fn a_dump_that_lost_a_message_is_repeated_after_the_rest_was_read() {
    for lose_after in (0..5).map(Some).chain([None]) {
        let listed = list(LossySocket { lose_after, ..LossySocket::default() });
        assert_eq!(listed.unwrap(), [0, 1, 2, 3], "lost after {lose_after:?}");
    }
}

#[test]
fn a_stalled_dump_continues_when_something_else_is_read() {
    let mut socket = LossySocket { lose_after: Some(2), ..LossySocket::default() };
    socket.stalls = true;
    // No other message is queued that would resume the dump.
    socket.answers.clear();
    let mut kernel = Kernel::with_transport(Box::new(socket)).unwrap();
    let listed =
        kernel.dump(LISTED, NFPROTO_INET, &[], "objects", |reply| reply.attributes().first().copied());
    assert_eq!(listed.unwrap(), [0, 1, 2, 3]);
}
