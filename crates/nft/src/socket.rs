//! The netlink socket. Everything else sees only [`Transport`], so that tests can script what the kernel answers.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{MsgFlags, getsockopt, recv, send, setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};

/// One netlink socket to the kernel's netfilter subsystem.
pub trait Transport: Send {
    /// Sends one datagram. The kernel has processed it when this returns.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// Takes one datagram of what the kernel answered. Without `wait`, [`io::ErrorKind::WouldBlock`] if there is none.
    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>>;

    /// The largest datagram that `send` takes.
    fn largest(&self) -> usize;

    /// Its netlink port, by which the kernel names who changed a table; 0 if it has none.
    fn port(&self) -> u32 {
        0
    }
}

/// What we ask for, if we may: a whole plan of 100,000 addresses takes about 3 MB. The kernel doubles it.
const SEND_BUFFER: usize = 16 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;

/// The kernel never puts more than this into one datagram of a dump.
const DATAGRAM: usize = 256 << 10;

/// The kernel answers before `send` returns; this only keeps a lost answer from hanging us for ever.
const PATIENCE_SECONDS: i64 = 30;

/// The real one. It belongs to the network namespace of the thread that opened it, and works from any thread.
#[derive(Debug)]
pub struct NetlinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
    largest: usize,
    port: u32,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors without a copy of what they are about, but with the kernel's own words.
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // In a user namespace, FORCE is refused; the plain options are cut down to net.core.[wr]mem_max without an error.
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        // `netlink_sendmsg` refuses what is larger than the buffer less 32 bytes.
        let largest = getsockopt(&socket.as_fd(), sockopt::SndBuf)?.saturating_sub(32);
        Ok(Self { socket, buffer: vec![0; DATAGRAM], largest, port })
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

    fn largest(&self) -> usize {
        self.largest
    }

    fn port(&self) -> u32 {
        self.port
    }
}
