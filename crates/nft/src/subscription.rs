//! A netlink socket to which the kernel sends what happens, unasked.

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

/// What waits to be read before something is lost. The kernel doubles it.
pub(crate) const RECEIVE_BUFFER: usize = 2 << 20;

/// The kernel never puts more than this into one datagram: `NFULNL_NLBUFSIZ_MAX`, and less for notifications.
const DATAGRAM: usize = 128 << 10;

/// What there is to read.
pub(crate) enum Received<'a> {
    /// Messages.
    Datagram(&'a [u8]),
    /// More happened than fits the buffer: some of it was thrown away.
    Overrun,
    /// Nothing at present.
    Nothing,
}

/// Belongs to the network namespace of the thread that opened it, and works from any thread. Never blocks.
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
    /// Opens the socket; `prepare` says what is wanted before the first message can come.
    pub(crate) fn open(
        buffer: usize,
        prepare: impl FnOnce(&mut Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &buffer)?;
        }
        socket.bind_auto()?;
        // From the kernel alone: another process could send us messages otherwise.
        socket.connect(&SocketAddr::new(0, 0))?;
        prepare(&mut socket)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Begins to hear of what a group is told.
    pub(crate) fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Hears of it no more, but for what waits already.
    pub(crate) fn leave(&mut self, group: u32) -> io::Result<()> {
        self.socket.drop_membership(group)
    }

    /// Sends one datagram.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), datagram, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes one datagram if there is one.
    pub(crate) fn receive(&mut self) -> io::Result<Received<'_>> {
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        match recv(self.socket.as_raw_fd(), &mut self.buffer, flags).map_err(io::Error::from) {
            // One that was cut off is partly lost.
            Ok(length) => Ok(self.buffer.get(..length).map_or(Received::Overrun, Received::Datagram)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Received::Nothing),
            Err(e) if e.raw_os_error() == Some(ENOBUFS) => Ok(Received::Overrun),
            Err(e) => Err(e),
        }
    }

    /// Waits until there is something to read; says whether there is.
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut wanted, timeout) {
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
