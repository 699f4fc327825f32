//! The pod that a bridge port leads to.

use std::{collections::BTreeSet, net::IpAddr};

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// The pod that a bridge port leads to, as far as its frames show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortOwner {
    /// The pod's addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The hardware address of the pod's interface, if it is known and no other port has it.
    pub hardware: Option<Mac>,
}
