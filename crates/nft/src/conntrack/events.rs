//! New and ended connections, as the kernel announces them.

use std::{collections::VecDeque, fs, io, time::Duration};

use super::ConntrackEntry;
use crate::{
    Error,
    kernel::{Reply, replies},
    reader::Attributes,
    subscription::{RECEIVE_BUFFER, Received, Subscription},
    uapi::{
        nfnetlink::{NFNL_SUBSYS_CTNETLINK, NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_CONNTRACK_NEW, message_type},
        nfnetlink_conntrack::{
            CTA_COUNTERS_BYTES, CTA_COUNTERS_ORIG, CTA_COUNTERS_PACKETS, CTA_COUNTERS_REPLY, CTA_TIMESTAMP,
            CTA_TIMESTAMP_START, CTA_TIMESTAMP_STOP, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW,
        },
    },
};

/// The setting of a network namespace that turns the announcements on: 0 is off, 1 on, 2 (the default since Linux 5.19) on while a
/// program reads them. It is missing if the kernel was built without them, or connection tracking is not loaded.
const SETTING: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// Which connections to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// New ones.
    New,
    /// New and ended ones.
    NewAndEnded,
}

/// An announcement of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The first packet of a connection passed all hooks of the node.
    New(ConntrackEntry),
    /// The entry of a connection was deleted: after its timeout, or by a program.
    Ended(ConntrackEntry, ConnectionEnd),
    /// Announcements were lost, because the reader was too slow. Their number is unknown.
    Lost,
}

/// What is known of a connection at its end. Packets and bytes are those of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionEnd {
    /// Packets. `None` without accounting (`net.netfilter.nf_conntrack_acct`).
    pub packets: Option<u64>,
    /// Bytes of the packets, with IP headers. `None` as `packets`.
    pub bytes: Option<u64>,
    /// How long the entry existed, with its timeout after the last packet. `None` without time stamps
    /// (`net.netfilter.nf_conntrack_timestamp`).
    pub duration: Option<Duration>,
}

/// Reads the announcements of the network namespace of the thread that opened it. Reading never blocks.
///
/// What the kernel announces of a connection that is deleted or changed by a program, and of entries that tracking created in the middle of a
/// connection, is left out: they are not new.
#[derive(Debug)]
pub struct ConnectionEvents {
    subscription: Subscription,
    ready: VecDeque<ConnectionEvent>,
}

impl ConnectionEvents {
    /// Subscribes, with a receive buffer of two MiB, which the kernel doubles.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN`, or if the kernel has no connection tracking over netlink.
    pub fn open(events: Events) -> Result<Self, Error> {
        Self::with_buffer(events, RECEIVE_BUFFER)
    }

    /// [`ConnectionEvents::open`] with a receive buffer of another size. The kernel doubles it.
    ///
    /// # Errors
    /// As [`ConnectionEvents::open`].
    pub fn with_buffer(events: Events, bytes: usize) -> Result<Self, Error> {
        let join = |socket: &mut netlink_sys::Socket| {
            socket.add_membership(NFNLGRP_CONNTRACK_NEW)?;
            match events {
                Events::New => Ok(()),
                Events::NewAndEnded => socket.add_membership(NFNLGRP_CONNTRACK_DESTROY),
            }
        };
        let subscription = Subscription::open(bytes, join)
            .map_err(|source| Error::Socket { doing: "opening connection events", source })?;
        Ok(Self { subscription, ready: VecDeque::new() })
    }

    /// Returns whether the kernel announces connections in the network namespace of the calling thread, or why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn are_enabled() -> Result<(), String> {
        match fs::read_to_string(SETTING) {
            Ok(text) if text.trim() == "0" => Err("net.netfilter.nf_conntrack_events is 0".to_owned()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("the kernel has no setting net.netfilter.nf_conntrack_events".to_owned())
            }
            Err(error) => Err(format!("cannot read {SETTING}: {error}")),
        }
    }

    /// Returns the next event, if there is one.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn read(&mut self) -> Result<Option<ConnectionEvent>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let failed = |source| Error::Socket { doing: "reading connection events", source };
            match self.subscription.receive().map_err(failed)? {
                Received::Datagram(datagram) => {
                    self.ready.extend(replies(datagram).filter_map(|message| event(&message)));
                }
                Received::Overrun => return Ok(Some(ConnectionEvent::Lost)),
                Received::Nothing => return Ok(None),
            }
        }
    }

    /// Waits until there may be something to read. Returns whether there is.
    ///
    /// # Errors
    /// If polling fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.subscription.wait(timeout).map_err(|source| Error::Socket { doing: "waiting", source })
    }
}

/// Parses a message. `None` for what is no new or ended connection.
fn event(message: &Reply) -> Option<ConnectionEvent> {
    const NEW: u16 = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW);
    const ENDED: u16 = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE);
    let attributes = Attributes(message.attributes());
    match message.kind {
        NEW => {
            let entry = ConntrackEntry::parse(attributes)?;
            // A revoked entry was put in the place of another one. The first packet of a midstream entry may be that of either end.
            (!entry.is_revoked() && !entry.midstream).then_some(ConnectionEvent::New(entry))
        }
        ENDED => {
            let entry = ConntrackEntry::parse(attributes)?;
            (!entry.midstream).then(|| ConnectionEvent::Ended(entry, end(attributes)))
        }
        _ => None,
    }
}

fn end(attributes: Attributes<'_>) -> ConnectionEnd {
    let counted = |kind| {
        let of = |direction| be64(attributes.nested(direction)?.get(kind)?);
        Some(of(CTA_COUNTERS_ORIG)?.saturating_add(of(CTA_COUNTERS_REPLY)?))
    };
    let duration = attributes.nested(CTA_TIMESTAMP).and_then(|times| {
        let (start, stop) = (be64(times.get(CTA_TIMESTAMP_START)?)?, be64(times.get(CTA_TIMESTAMP_STOP)?)?);
        Some(Duration::from_nanos(stop.saturating_sub(start)))
    });
    ConnectionEnd { packets: counted(CTA_COUNTERS_PACKETS), bytes: counted(CTA_COUNTERS_BYTES), duration }
}

/// Reads a 64-bit number in network byte order.
fn be64(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::AttributeWriter;

    #[test]
    fn an_end_has_what_the_kernel_counted() {
        let mut out = AttributeWriter::default();
        for (direction, packets, bytes) in
            [(CTA_COUNTERS_ORIG, 3_u64, 300_u64), (CTA_COUNTERS_REPLY, 2, 5000)]
        {
            out.nest(direction, |counters| {
                counters.put(CTA_COUNTERS_PACKETS, &packets.to_be_bytes());
                counters.put(CTA_COUNTERS_BYTES, &bytes.to_be_bytes());
            });
        }
        out.nest(CTA_TIMESTAMP, |times| {
            times.put(CTA_TIMESTAMP_START, &1_000_000_000_u64.to_be_bytes());
            times.put(CTA_TIMESTAMP_STOP, &1_500_000_000_u64.to_be_bytes());
        });
        let bytes = out.into_bytes();
        let expected =
            ConnectionEnd { packets: Some(5), bytes: Some(5300), duration: Some(Duration::from_millis(500)) };
        assert_eq!(end(Attributes(&bytes)), expected);
        assert_eq!(end(Attributes(&[])), ConnectionEnd::default());
        for cut in 0..bytes.len() {
            // Must not panic.
            _ = end(Attributes(&bytes[..cut]));
        }
    }
}
