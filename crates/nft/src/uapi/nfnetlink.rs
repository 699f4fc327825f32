//! `linux/netfilter/nfnetlink.h`: subsystems of `NETLINK_NETFILTER`, batches and multicast groups.

use nix::libc;

/// Bytes of `struct nfgenmsg`, which follows the netlink header.
pub const NFGENMSG_LEN: usize = 4;

pub const NFNL_SUBSYS_CTNETLINK: u16 = libc::NFNL_SUBSYS_CTNETLINK as u16;
pub const NFNL_SUBSYS_ULOG: u16 = libc::NFNL_SUBSYS_ULOG as u16;
pub const NFNL_SUBSYS_QUEUE: u16 = libc::NFNL_SUBSYS_QUEUE as u16;
pub const NFNL_SUBSYS_NFTABLES: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;

pub const NFNL_MSG_BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
pub const NFNL_MSG_BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;

pub const NFNLGRP_CONNTRACK_NEW: u32 = libc::NFNLGRP_CONNTRACK_NEW as u32;
pub const NFNLGRP_CONNTRACK_DESTROY: u32 = libc::NFNLGRP_CONNTRACK_DESTROY as u32;
pub const NFNLGRP_NFTABLES: u32 = libc::NFNLGRP_NFTABLES as u32;

/// The netlink type of a subsystem's message.
#[must_use]
pub const fn message_type(subsystem: u16, message: u16) -> u16 {
    (subsystem << 8) | message
}

/// The subsystem in a netlink type (`NFNL_SUBSYS_ID`).
#[must_use]
pub const fn subsystem_of(message_type: u16) -> u16 {
    message_type >> 8
}

/// The subsystem's message in a netlink type (`NFNL_MSG_TYPE`).
#[must_use]
pub const fn message_of(message_type: u16) -> u16 {
    message_type & 0xff
}
