//! `linux/netfilter/nfnetlink_queue.h`: messages and attributes of packet queues.

use nix::libc;

pub const NFQNL_MSG_PACKET: u16 = libc::NFQNL_MSG_PACKET as u16;
pub const NFQNL_MSG_VERDICT: u16 = libc::NFQNL_MSG_VERDICT as u16;
pub const NFQNL_MSG_CONFIG: u16 = libc::NFQNL_MSG_CONFIG as u16;

pub const NFQA_PACKET_HDR: u16 = libc::NFQA_PACKET_HDR as u16;
pub const NFQA_VERDICT_HDR: u16 = libc::NFQA_VERDICT_HDR as u16;
pub const NFQA_PAYLOAD: u16 = libc::NFQA_PAYLOAD as u16;

pub const NFQA_CFG_CMD: u16 = libc::NFQA_CFG_CMD as u16;
pub const NFQA_CFG_PARAMS: u16 = libc::NFQA_CFG_PARAMS as u16;
pub const NFQA_CFG_QUEUE_MAXLEN: u16 = libc::NFQA_CFG_QUEUE_MAXLEN as u16;
pub const NFQA_CFG_MASK: u16 = libc::NFQA_CFG_MASK as u16;
pub const NFQA_CFG_FLAGS: u16 = libc::NFQA_CFG_FLAGS as u16;

pub const NFQA_CFG_F_FAIL_OPEN: u32 = libc::NFQA_CFG_F_FAIL_OPEN as u32;

pub const NFQNL_CFG_CMD_BIND: u8 = libc::NFQNL_CFG_CMD_BIND as u8;
pub const NFQNL_COPY_PACKET: u8 = libc::NFQNL_COPY_PACKET as u8;
