//! Numbers of the `nft` program, which the kernel stores for it without reading them.

/// `datatype.h`: the types of set keys. A concatenation packs its types six bits apart ([`concatenation`]).
pub const TYPE_IPADDR: u32 = 7;
pub const TYPE_IP6ADDR: u32 = 8;
pub const TYPE_INET_PROTOCOL: u32 = 12;
pub const TYPE_INET_SERVICE: u32 = 13;
pub const TYPE_MARK: u32 = 19;
pub const TYPE_IFINDEX: u32 = 20;
pub const TYPE_BITS: u32 = 6;

/// `datatype.h`: the byte orders of set keys.
pub const BYTEORDER_HOST_ENDIAN: u32 = 1;
pub const BYTEORDER_BIG_ENDIAN: u32 = 2;

/// `libnftnl/udata.h`: what user data beside an object holds.
pub const NFTNL_UDATA_TABLE_COMMENT: u8 = 0;
pub const NFTNL_UDATA_CHAIN_COMMENT: u8 = 0;
pub const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
pub const NFTNL_UDATA_SET_KEYBYTEORDER: u8 = 0;
pub const NFTNL_UDATA_SET_COMMENT: u8 = 7;
pub const NFTNL_UDATA_SET_ELEM_COMMENT: u8 = 0;

/// The type of a key that is a concatenation of these types.
#[must_use]
pub const fn concatenation(types: &[u32]) -> u32 {
    let (mut out, mut at) = (0, 0);
    while at < types.len() {
        out = (out << TYPE_BITS) | types[at];
        at += 1;
    }
    out
}
