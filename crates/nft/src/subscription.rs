//! A netlink socket that receives notifications.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::{
    libc::ENOBUFS,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send, setsockopt, sockopt},
};

/// The size of the receive buffer, beyond which notifications are lost. The kernel doubles it.
pub(crate) const RECEIVE_BUFFER: usize = 2 << 20;

/// The size of the largest datagram: `NFULNL_NLBUFSIZ_MAX` for nflog, less for notifications.
const DATAGRAM: usize = 128 << 10;

/// The result of reading.
pub(crate) enum Received<'a> {
    /// Messages.
    Datagram(&'a [u8]),
    /// The buffer overran, and some messages were lost.
    Overrun,
    /// No message is queued.
    Nothing,
}

/// A socket that belongs to the network namespace of the thread that opened it, and works from any thread. Reading never
/// blocks.
pub(crate) struct Subscription {
    socket: Socket,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("fd", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Subscription {
    /// Opens the socket. `prepare` sets it up before the first message can arrive.
    pub(crate) fn open(
        buffer: usize,
        prepare: impl FnOnce(&mut Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &buffer)?;
        }
        socket.bind_auto()?;
        // Only messages from the kernel: otherwise any process could send some.
        socket.connect(&SocketAddr::new(0, 0))?;
        prepare(&mut socket)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Joins a multicast group.
    pub(crate) fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Leaves a multicast group. Queued messages remain readable.
    pub(crate) fn leave(&mut self, group: u32) -> io::Result<()> {
        self.socket.drop_membership(group)
    }

    /// Sends one datagram.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), datagram, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads one datagram if one is queued.
    pub(crate) fn receive(&mut self) -> io::Result<Received<'_>> {
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        match recv(self.socket.as_raw_fd(), &mut self.buffer, flags).map_err(io::Error::from) {
            // A truncated datagram counts as lost.
            Ok(length) => Ok(self.buffer.get(..length).map_or(Received::Overrun, Received::Datagram)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Received::Nothing),
            Err(e) if e.raw_os_error() == Some(ENOBUFS) => Ok(Received::Overrun),
            Err(e) => Err(e),
        }
    }

    /// Waits until there is something to read. Returns whether there is.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut sockets, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
