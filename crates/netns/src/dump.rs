//! Rtnetlink listings.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The length of a netlink message header (`struct nlmsghdr`).
const HEADER: usize = 16;

/// Returns the kernel's listing for a request, in the calling thread's namespace. Messages that can't be parsed are skipped.
///
/// # Errors
/// When the socket fails or the kernel refuses the request.
pub fn dump(request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    replies(&socket)
}

/// Returns the messages up to the end of a listing, or up to the acknowledgement of a request. Those that can't be parsed are skipped.
pub(crate) fn replies(socket: &Socket) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut out = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some(length) = rest.get(..4).and_then(|length| <[u8; 4]>::try_from(length).ok()) {
            let length = (u32::from_ne_bytes(length) as usize).max(HEADER);
            let Some(reply) = rest.get(..length) else { break };
            if let Ok(reply) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(reply) {
                match reply.payload {
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(out),
                    NetlinkPayload::InnerMessage(message) => out.push(message),
                    _ => {}
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
