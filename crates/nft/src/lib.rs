//! A Palisade node plan as nftables netlink transactions, and conntrack revocation.
