//! `linux/netlink.h`: headers, flags and attributes of every netlink message.

use nix::libc;

/// Bytes of `struct nlmsghdr`.
pub const NLMSG_HDRLEN: usize = 16;
/// Messages and attributes start at multiples of this.
pub const NLMSG_ALIGNTO: usize = 4;

pub const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
pub const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;

pub const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
pub const NLM_F_DUMP_INTR: u16 = libc::NLM_F_DUMP_INTR as u16;

/// Of a request that gets.
pub const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;

/// Of a request that creates.
pub const NLM_F_EXCL: u16 = libc::NLM_F_EXCL as u16;
pub const NLM_F_CREATE: u16 = libc::NLM_F_CREATE as u16;
pub const NLM_F_APPEND: u16 = libc::NLM_F_APPEND as u16;

/// Of an acknowledgement.
pub const NLM_F_CAPPED: u16 = libc::NLM_F_CAPPED as u16;
pub const NLM_F_ACK_TLVS: u16 = libc::NLM_F_ACK_TLVS as u16;

pub const NLMSGERR_ATTR_MSG: u16 = 1;
pub const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Bytes of `struct nlattr`.
pub const NLA_HDRLEN: usize = 4;
pub const NLA_ALIGNTO: usize = libc::NLA_ALIGNTO as usize;
pub const NLA_F_NESTED: u16 = libc::NLA_F_NESTED as u16;
pub const NLA_TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;
