//! Packet captures at an interface, before any rule and any socket of the place.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use libtest_mimic::Failed;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
        setsockopt, socket, sockopt,
    },
};

use crate::testbed::Testbed;

/// `PACKET_OUTGOING` (linux/if_packet.h): the place itself sent the frame.
const OUTGOING: u8 = 4;
/// The receive buffer in bytes, large enough for bursts between two reads.
const BUFFER: usize = 32 << 20;
/// The number of bytes that are kept of each packet.
const SNAP: usize = 256;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A capture on `eth0` of a place. It can also send frames.
#[derive(Debug)]
pub(crate) struct Capture {
    socket: OwnedFd,
    /// The hardware address of the interface.
    pub(crate) mac: Mac,
}

/// A captured frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Whether the place received it. Otherwise the place sent it.
    pub(crate) incoming: bool,
    /// The first bytes, from the Ethernet header on. The kernel removes one VLAN tag.
    pub(crate) bytes: Vec<u8>,
}

/// The protocol, addresses and ports of a packet on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FiveTuple {
    pub(crate) protocol: u8,
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
}

impl FiveTuple {
    /// Returns the tuple of the other direction.
    pub(crate) fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

impl Capture {
    /// Opens a capture on `eth0` of a place.
    pub(crate) fn open(testbed: &Testbed, name: &str) -> Result<Self, Failed> {
        testbed.within(name, open)?
    }

    /// Discards all frames captured so far.
    pub(crate) fn drain(&self) -> Result<(), Failed> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Returns the frames captured since the last call.
    pub(crate) fn take(&self) -> Result<Vec<Frame>, Failed> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Sends a frame unchanged.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<(), Failed> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .map_err(|e| format!("sending a frame: {e}"))?;
        Ok(())
    }

    fn next(&self) -> Result<Option<Frame>, Failed> {
        let mut buffer = [0; SNAP];
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                let incoming = from.is_none_or(|from| from.pkttype() != OUTGOING);
                Ok(Some(Frame { incoming, bytes: buffer[..length].to_vec() }))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(e) => Err(format!("reading a capture: {e}").into()),
        }
    }
}

fn open() -> Result<Capture, Failed> {
    let link = getifaddrs()?
        .filter(|i| i.interface_name == "eth0")
        .find_map(|i| i.address?.as_link_addr().copied())
        .ok_or("no eth0 with a hardware address")?;
    let mac = link.addr().ok_or("eth0 has no hardware address")?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
    bind(socket.as_raw_fd(), &link)?;
    Ok(Capture { socket, mac })
}

impl Frame {
    /// Returns whether the frame contains these bytes.
    pub(crate) fn has(&self, marker: &[u8]) -> bool {
        self.bytes.windows(marker.len()).any(|w| w == marker)
    }

    /// Returns the five-tuple of a TCP or UDP packet without extension headers.
    pub(crate) fn five_tuple(&self) -> Option<FiveTuple> {
        let (protocol, source, destination, transport) = self.headers()?;
        let port = |at: usize| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
        matches!(protocol, 6 | 17).then_some(())?;
        Some(FiveTuple { protocol, source: (source, port(0)?), destination: (destination, port(2)?) })
    }

    /// Returns the sequence and acknowledgement number of a TCP segment.
    pub(crate) fn numbers(&self) -> Option<(u32, u32)> {
        let (protocol, _, _, transport) = self.headers()?;
        let number = |at: usize| Some(u32::from_be_bytes(transport.get(at..at + 4)?.try_into().ok()?));
        (protocol == 6).then_some(())?;
        Some((number(4)?, number(8)?))
    }

    /// Returns the IP protocol, both addresses, and the payload of the IP header.
    fn headers(&self) -> Option<(u8, IpAddr, IpAddr, &[u8])> {
        let packet = self.bytes.get(14..)?;
        match packet.first()? >> 4 {
            4 => {
                let address = |at: usize| {
                    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                    Some(IpAddr::from(Ipv4Addr::from(bytes)))
                };
                let length = usize::from(packet[0] & 15) * 4;
                Some((*packet.get(9)?, address(12)?, address(16)?, packet.get(length..)?))
            }
            6 => {
                let address = |at: usize| {
                    let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                    Some(IpAddr::from(Ipv6Addr::from(bytes)))
                };
                Some((*packet.get(6)?, address(8)?, address(24)?, packet.get(40..)?))
            }
            _ => None,
        }
    }
}
