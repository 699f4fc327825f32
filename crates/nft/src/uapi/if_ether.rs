//! `linux/if_ether.h`: Ethernet types. `linux/if_arp.h`: the type of Ethernet devices.

use nix::libc;

pub const ETH_P_IP: u16 = libc::ETH_P_IP as u16;
pub const ETH_P_8021Q: u16 = 0x8100;
pub const ETH_P_8021AD: u16 = 0x88a8;
pub const ETH_P_IPV6: u16 = libc::ETH_P_IPV6 as u16;
pub const ARPHRD_ETHER: u16 = libc::ARPHRD_ETHER;
pub const ETH_P_ARP: u16 = libc::ETH_P_ARP as u16;
