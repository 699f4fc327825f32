//! Connection-tracking entries, created by request instead of by traffic.

use std::net::IpAddr;

use palisade_nft::{NetlinkSocket, Transport};

/// An entry: the original direction and the reply direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The IP protocol: TCP or UDP.
    pub(crate) protocol: u8,
    /// Source and destination of the first packet.
    pub(crate) original: ([IpAddr; 2], [u16; 2]),
    /// Source and destination of the reply.
    pub(crate) reply: ([IpAddr; 2], [u16; 2]),
}

impl Entry {
    /// Returns an entry without address translation.
    pub(crate) fn plain([source, destination]: [IpAddr; 2], [from, to]: [u16; 2]) -> Self {
        let (original, reply) = (([source, destination], [from, to]), ([destination, source], [to, from]));
        Self { protocol: 6, original, reply }
    }

    /// `IPCTNL_MSG_CT_NEW` with `NLM_F_REQUEST`, `CREATE` and `EXCL`, and `ACK` if it is the last.
    fn request(&self, is_last: bool) -> Vec<u8> {
        let mut message = vec![0u8; 20];
        message[5] = 1;
        message[6..8].copy_from_slice(&(0x601u16 | if is_last { 4 } else { 0 }).to_ne_bytes());
        message[16] = if self.original.0[0].is_ipv4() { 2 } else { 10 };
        message.extend(tuple(1, self.protocol, self.original));
        message.extend(tuple(2, self.protocol, self.reply));
        // CTA_TIMEOUT, in seconds.
        message.extend(attribute(7, &600u32.to_be_bytes()));
        let length = (message.len() as u32).to_ne_bytes();
        message[..4].copy_from_slice(&length);
        message
    }
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = [(payload.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn tuple(kind: u16, protocol: u8, (ends, ports): ([IpAddr; 2], [u16; 2])) -> Vec<u8> {
    const NESTED: u16 = 1 << 15;
    let end = |index: usize| match ends[index] {
        IpAddr::V4(a) => attribute(1 + index as u16, &a.octets()),
        IpAddr::V6(a) => attribute(3 + index as u16, &a.octets()),
    };
    let ports = ports.map(u16::to_be_bytes);
    let transport = [attribute(1, &[protocol]), attribute(2, &ports[0]), attribute(3, &ports[1])].concat();
    let ip = [end(0), end(1)].concat();
    attribute(kind | NESTED, &[attribute(1 | NESTED, &ip), attribute(2 | NESTED, &transport)].concat())
}

/// Creates entries in the calling thread's network namespace.
pub(crate) fn create(entries: impl IntoIterator<Item = Entry>) {
    let mut socket = NetlinkSocket::open().expect("a netlink socket");
    let entries: Vec<Entry> = entries.into_iter().collect();
    for some in entries.chunks(200) {
        let batch: Vec<u8> =
            some.iter().enumerate().flat_map(|(n, entry)| entry.request(n + 1 == some.len())).collect();
        socket.send(&batch).expect("entries to be sent");
        // Errors are always reported, and arrive before the acknowledgement.
        let answer = socket.receive(true).expect("an answer");
        let error = i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
        assert_eq!(error, 0, "an entry was refused; is net.netfilter.nf_conntrack_max too small?");
    }
}
