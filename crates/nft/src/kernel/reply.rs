//! Messages that the kernel sends: splitting datagrams, and reading errors and acknowledgements.

use std::io;

use crate::{
    Error,
    reader::{Attributes, text},
    uapi::{
        netlink::{
            NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_HDRLEN,
            NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS,
        },
        nfnetlink::NFGENMSG_LEN,
    },
};

/// One message from the kernel.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port of the socket that caused the message.
    pub(crate) port: u32,
    /// What follows the netlink header.
    pub(crate) payload: Vec<u8>,
}

/// An error that the kernel reports for one message.
pub(crate) struct ErrorReply {
    pub(crate) errno: i32,
    /// The kernel's message.
    text: Option<String>,
    /// The offset of the attribute to which it refers.
    pub(crate) offset: Option<usize>,
}

impl ErrorReply {
    pub(crate) fn refused(self, object: String, more: usize) -> Error {
        let reason = io::Error::from_raw_os_error(self.errno);
        Error::Refused { object, reason, kernel_message: self.text, more }
    }
}

impl Reply {
    /// Returns the attributes behind the `nfgenmsg`.
    pub(crate) fn attributes(&self) -> &[u8] {
        self.payload.get(NFGENMSG_LEN..).unwrap_or_default()
    }

    /// Returns the protocol family of the `nfgenmsg`.
    pub(crate) fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Returns whether it is an acknowledgement or an error.
    pub(crate) fn is_ack(&self) -> bool {
        self.kind == NLMSG_ERROR
    }

    /// Returns the error number of an error, 0 for an acknowledgement, and `None` for any other message.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.is_ack().then(|| self.error().map_or(0, |e| e.errno))
    }

    /// Returns the error that it reports, if any.
    pub(crate) fn error(&self) -> Option<ErrorReply> {
        let errno = || {
            let negative = i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?);
            // Whatever the reply holds, an error stays one.
            Some(0i32.saturating_sub(negative))
        };
        let errno = match self.kind {
            NLMSG_ERROR => errno()?,
            // A dump that fails after its first reply reports the error in its last.
            NLMSG_DONE => errno().unwrap_or(0),
            _ => return None,
        };
        if errno <= 0 {
            return None;
        }
        let has_attributes = self.is_ack() && self.flags & NLM_F_ACK_TLVS != 0;
        let attributes = Attributes(if has_attributes { self.extended_ack() } else { &[] });
        Some(ErrorReply {
            errno,
            text: attributes.get(NLMSGERR_ATTR_MSG).map(text).filter(|t| !t.is_empty()),
            offset: attributes
                .get(NLMSGERR_ATTR_OFFS)
                .and_then(|o| Some(u32::from_ne_bytes(o.get(..4)?.try_into().ok()?) as usize)),
        })
    }

    /// Returns the attributes of an extended acknowledgement, which follow the error number and the copy of the header or
    /// the whole message.
    fn extended_ack(&self) -> &[u8] {
        let copied = match self.payload.get(4..8) {
            Some(length) if self.flags & NLM_F_CAPPED == 0 => {
                u32::from_ne_bytes(length.try_into().unwrap_or_default()) as usize
            }
            _ => NLMSG_HDRLEN,
        };
        self.payload.get(4 + copied.next_multiple_of(NLMSG_ALIGNTO)..).unwrap_or_default()
    }
}

/// Splits a datagram into messages. Stops at the first that is incomplete.
pub(crate) fn replies(mut datagram: &[u8]) -> impl Iterator<Item = Reply> {
    std::iter::from_fn(move || {
        let head: &[u8; NLMSG_HDRLEN] = datagram.get(..NLMSG_HDRLEN)?.try_into().ok()?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let payload = datagram.get(NLMSG_HDRLEN..length)?.to_vec();
        datagram = datagram.get(length.next_multiple_of(NLMSG_ALIGNTO)..).unwrap_or_default();
        Some(Reply {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            port: u32::from_ne_bytes([head[12], head[13], head[14], head[15]]),
            payload,
        })
    })
}

#[cfg(test)]
mod tests {
    use nix::libc::ENOENT;

    use super::*;

    #[test]
    fn splitting_stops_at_the_first_incomplete_message() {
        let mut one = vec![0; 20];
        one[..4].copy_from_slice(&20u32.to_ne_bytes());
        assert_eq!(replies(&one).count(), 1);
        assert_eq!(replies(&[&one[..], &one[..19]].concat()).count(), 1);
        one[..4].copy_from_slice(&4u32.to_ne_bytes());
        assert_eq!(replies(&one).count(), 0);
    }

    #[test]
    fn every_error_number_is_an_error() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let errno = |number: i32| {
                let payload = number.to_ne_bytes().to_vec();
                Reply { kind, flags: 0, sequence: 0, port: 0, payload }.error().map(|error| error.errno)
            };
            assert_eq!(errno(-ENOENT), Some(ENOENT));
            assert_eq!(errno(i32::MIN), Some(i32::MAX));
            assert_eq!(errno(0), None);
        }
    }
}
