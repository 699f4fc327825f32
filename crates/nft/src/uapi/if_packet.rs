//! `linux/if_packet.h`: packet types, as `meta pkttype` has them.

use nix::libc;

pub const PACKET_HOST: u8 = libc::PACKET_HOST;
pub const PACKET_BROADCAST: u8 = libc::PACKET_BROADCAST;
pub const PACKET_MULTICAST: u8 = libc::PACKET_MULTICAST;
