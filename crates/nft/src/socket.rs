//! The netlink socket, behind the trait [`Transport`], so that tests can script the kernel's replies.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{MsgFlags, getsockopt, recv, send, setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};

/// A netlink socket to the kernel's netfilter subsystem.
pub trait Transport: Send {
    /// Sends one datagram. The kernel has processed it when this returns.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// Reads one datagram of the kernel's replies. Without `wait`, fails with [`io::ErrorKind::WouldBlock`] if none is queued.
    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>>;

    /// Returns the size of the largest datagram that `send` accepts.
    fn max_datagram(&self) -> usize;

    /// Returns its netlink port, by which the kernel identifies the author of a change. 0 if it has none.
    fn port(&self) -> u32 {
        0
    }
}

/// The buffer sizes that are requested, if permitted. A plan of 100,000 addresses takes about 3 MB. The kernel doubles them.
const SEND_BUFFER: usize = 16 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;

/// The size of the largest datagram of a dump.
const DATAGRAM: usize = 256 << 10;

/// The receive timeout. The kernel replies before `send` returns, so this only covers a lost reply.
const RECEIVE_TIMEOUT_SECONDS: i64 = 30;

/// The kernel's socket. It belongs to the network namespace of the thread that opened it, and works from any thread.
#[derive(Debug)]
pub struct NetlinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
    max_datagram: usize,
    port: u32,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors without a copy of the message, but with the kernel's explanation.
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // In a user namespace, FORCE is refused. The plain options are silently limited to net.core.[wr]mem_max.
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(RECEIVE_TIMEOUT_SECONDS))?;
        // `netlink_sendmsg` refuses datagrams larger than the buffer minus 32 bytes.
        let max_datagram = getsockopt(&socket.as_fd(), sockopt::SndBuf)?.saturating_sub(32);
        Ok(Self { socket, buffer: vec![0; DATAGRAM], max_datagram, port })
    }
}

impl Transport for NetlinkSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), datagram, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        let flags = if wait { MsgFlags::MSG_TRUNC } else { MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT };
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, flags)?;
        match self.buffer.get(..length) {
            Some(datagram) => Ok(datagram.to_vec()),
            None => Err(io::Error::other(format!("datagram of {length} bytes"))),
        }
    }

    fn max_datagram(&self) -> usize {
        self.max_datagram
    }

    fn port(&self) -> u32 {
        self.port
    }
}
