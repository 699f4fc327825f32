//! A kernel whose tables are bytes.

use std::{collections::VecDeque, io};

use palisade_nft::{Kernel, Transport};

/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NFNL_SUBSYS_CTNETLINK`, `NFNL_SUBSYS_NFTABLES`.
const CONNTRACK: u16 = 1;
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
/// `NFT_MSG_GETGEN`, `NFT_MSG_NEWGEN`, `NFT_MSG_GETSETELEM`.
const GETGEN: u8 = 16;
const NEWGEN: u8 = 15;
const GETSETELEM: u8 = 13;
/// `NLM_F_ACK`, `NLM_F_DUMP`.
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

const HEADER: usize = 16;
const ENOENT: i32 = 2;

/// The fields of a netlink header.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let short = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        Some(Self { length: number(0) as usize, kind: short(4), flags: short(6), sequence: number(8) })
    }
}

/// A message that answers `sequence`.
fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend([0; 2]);
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The pieces of a stream of netlink messages. The last one may be broken.
pub(crate) fn messages(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let length =
            Head::of(data).map_or(data.len(), |head| head.length).clamp(HEADER, data.len().max(HEADER));
        let piece = &data[..length.min(data.len())];
        out.push(piece.to_vec());
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// As a kernel that holds these objects: a request gets those of its kind, a transaction succeeds.
    Holds,
    /// With these messages in this order, whatever the request.
    Recites,
}

/// A kernel whose objects, or replies, are a stream of netlink messages, such as those recorded from a real one.
struct Scripted {
    behavior: Behavior,
    objects: VecDeque<Vec<u8>>,
    answers: VecDeque<Vec<u8>>,
    /// The number of the last request, or of a batch's first message.
    sequence: u32,
}

pub(crate) fn kernel(data: &[u8], behavior: Behavior) -> Kernel {
    let objects = messages(data).into();
    let scripted = Scripted { behavior, objects, answers: VecDeque::new(), sequence: 0 };
    Kernel::with_transport(Box::new(scripted)).expect("it answers the first question")
}

impl Scripted {
    fn answer(&mut self, request: Head, bytes: &[u8]) {
        let (subsystem, number) = (request.kind >> 8, request.kind as u8);
        self.sequence = request.sequence;
        if (subsystem, number) == (NFTABLES, GETGEN) {
            // NFTA_GEN_ID: it never changes, or the reader would start again.
            let generation = [0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 1];
            self.answers.push_back(message(
                (NFTABLES << 8) | u16::from(NEWGEN),
                request.sequence,
                &generation,
            ));
        } else if self.behavior == Behavior::Recites {
            return;
        } else if request.flags & DUMP == DUMP {
            let wanted: Vec<_> =
                self.objects.iter().filter(|it| is_wanted(it, request.kind, bytes)).collect();
            for object in wanted {
                self.answers.push_back(addressed(object, request.sequence));
            }
            self.answers.push_back(message(DONE, request.sequence, &[0; 4]));
        } else if request.flags & ACK != 0 {
            self.answers.push_back(message(ERROR, request.sequence, &[0; 20]));
        } else {
            let one = self.objects.iter().find(|it| is_wanted(it, request.kind, bytes));
            let missing =
                || message(ERROR, request.sequence, &[&(-ENOENT).to_ne_bytes()[..], &[0; 16]].concat());
            self.answers.push_back(one.map_or_else(missing, |object| addressed(object, request.sequence)));
        }
    }
}

/// Whether a dumped object is one that a request of this kind asks for.
fn is_wanted(object: &[u8], request: u16, asked: &[u8]) -> bool {
    let Some(head) = Head::of(object) else { return false };
    let (subsystem, number) = (request >> 8, request as u8);
    // `NFT_MSG_GET…` is one more than `NFT_MSG_NEW…`; connection tracking has only entries.
    let is_kind = match subsystem {
        CONNTRACK => head.kind >> 8 == CONNTRACK,
        _ => head.kind == (request & 0xff00) | u16::from(number.saturating_sub(1)),
    };
    // The family; 0 means any.
    let is_family = asked.get(HEADER).is_none_or(|family| *family == 0 || object.get(HEADER) == Some(family));
    // Elements are requested by table and set, which are at the beginning of each reply in the same form.
    let names = asked.get(HEADER + 4..).unwrap_or_default();
    let is_set = subsystem != NFTABLES
        || number != GETSETELEM
        || object.get(HEADER + 4..).is_some_and(|attributes| attributes.starts_with(names));
    is_kind && is_family && is_set
}

/// The message as an answer to `sequence`.
fn addressed(object: &[u8], sequence: u32) -> Vec<u8> {
    let mut out = object.to_vec();
    if let Some(field) = out.get_mut(8..12) {
        field.copy_from_slice(&sequence.to_ne_bytes());
    }
    out
}

impl Transport for Scripted {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let Some(head) = Head::of(datagram) else { return Ok(()) };
        if head.kind != BATCH_BEGIN {
            self.answer(head, datagram);
            return Ok(());
        }
        self.sequence = head.sequence;
        if self.behavior == Behavior::Holds {
            for piece in messages(datagram) {
                if let Some(head) = Head::of(&piece)
                    && head.flags & ACK != 0
                {
                    self.answers.push_back(message(ERROR, head.sequence, &[0; 20]));
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, _wait: bool) -> io::Result<Vec<u8>> {
        if let Some(answer) = self.answers.pop_front() {
            return Ok(answer);
        }
        if self.behavior == Behavior::Holds {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut next = self.objects.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        // Numbers below 256 are counted from the request, so that recorded answers fit any request.
        if let Some(head) = Head::of(&next)
            && head.sequence < 256
        {
            next = addressed(&next, self.sequence.wrapping_add(head.sequence));
        }
        Ok(next)
    }

    fn max_datagram(&self) -> usize {
        1 << 16
    }
}
