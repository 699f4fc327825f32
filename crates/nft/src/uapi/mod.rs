//! Constants of the kernel's user API, under the kernel's names; one file per header.
//!
//! Each constant has the type of the field that it goes into: message types, flags and attributes are `u16`, protocol
//! families `u8`, values of nf_tables attributes `u32` (network byte order on the wire). Values come from the `libc`
//! crate where it has them. [`nftables`] is the exception: its numbers belong to the `nft` program, not to the kernel.
//!
//! The encoder (`encode`) and the independent [reader](crate::reader) share these names and nothing else.

#![expect(missing_docs, reason = "the kernel's headers document the constants under the same names")]

pub mod if_ether;
pub mod if_packet;
pub mod netfilter;
pub mod netlink;
pub mod nf_conntrack;
pub mod nf_tables;
pub mod nfnetlink;
pub mod nfnetlink_conntrack;
pub mod nfnetlink_log;
pub mod nfnetlink_queue;
pub mod nftables;
