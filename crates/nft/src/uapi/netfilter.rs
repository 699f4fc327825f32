//! `linux/netfilter.h`, `linux/netfilter_bridge.h`: protocol families, hooks and verdicts.

use nix::libc;

pub const NFPROTO_UNSPEC: u8 = libc::NFPROTO_UNSPEC as u8;
pub const NFPROTO_INET: u8 = libc::NFPROTO_INET as u8;
pub const NFPROTO_IPV4: u8 = libc::NFPROTO_IPV4 as u8;
pub const NFPROTO_ARP: u8 = libc::NFPROTO_ARP as u8;
pub const NFPROTO_NETDEV: u8 = libc::NFPROTO_NETDEV as u8;
pub const NFPROTO_BRIDGE: u8 = libc::NFPROTO_BRIDGE as u8;
pub const NFPROTO_IPV6: u8 = libc::NFPROTO_IPV6 as u8;

pub const NF_INET_PRE_ROUTING: u32 = libc::NF_INET_PRE_ROUTING as u32;
pub const NF_INET_LOCAL_IN: u32 = libc::NF_INET_LOCAL_IN as u32;
pub const NF_INET_FORWARD: u32 = libc::NF_INET_FORWARD as u32;
pub const NF_INET_LOCAL_OUT: u32 = libc::NF_INET_LOCAL_OUT as u32;
pub const NF_INET_POST_ROUTING: u32 = libc::NF_INET_POST_ROUTING as u32;

pub const NF_BR_PRE_ROUTING: u32 = libc::NF_BR_PRE_ROUTING as u32;
pub const NF_BR_FORWARD: u32 = libc::NF_BR_FORWARD as u32;
pub const NF_BR_LOCAL_OUT: u32 = libc::NF_BR_LOCAL_OUT as u32;
/// `NF_BR_PRI_FILTER_BRIDGED`: in front of br_netfilter (`NF_BR_PRI_BRNF`, 0).
pub const NF_BR_PRI_FILTER_BRIDGED: i32 = -200;

/// `NF_IP_PRI_FILTER`: after destination NAT (`NF_IP_PRI_NAT_DST`, -100), before source NAT (`NF_IP_PRI_NAT_SRC`, 100).
pub const NF_IP_PRI_FILTER: i32 = 0;
/// In front of the reassembly of fragments (`NF_IP_PRI_CONNTRACK_DEFRAG`, -400) and of connection tracking (`NF_IP_PRI_CONNTRACK`, -200).
pub const NF_IP_PRI_RAW_BEFORE_DEFRAG: i32 = -450;
pub const NF_IP_PRI_NAT_DST: i32 = -100;
pub const NF_IP_PRI_NAT_SRC: i32 = 100;

/// Before destination NAT, after connection tracking (`NF_IP_PRI_MANGLE`).
pub const NF_IP_PRI_MANGLE: i32 = -150;

pub const NF_DROP: i32 = libc::NF_DROP;
pub const NF_ACCEPT: i32 = libc::NF_ACCEPT;
