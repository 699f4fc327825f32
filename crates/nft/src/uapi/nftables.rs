//! Numbers of the `nft` program, which the kernel stores for it without reading them.

/// `datatype.h`: the types of set keys. A concatenation packs its types six bits apart ([`concatenation`]).
pub const TYPE_INTEGER: u32 = 4;
pub const TYPE_IPADDR: u32 = 7;
pub const TYPE_IP6ADDR: u32 = 8;
pub const TYPE_ETHERADDR: u32 = 9;
pub const TYPE_INET_PROTOCOL: u32 = 12;
pub const TYPE_INET_SERVICE: u32 = 13;
pub const TYPE_MARK: u32 = 19;
pub const TYPE_IFINDEX: u32 = 20;
pub const TYPE_BITS: u32 = 6;

/// `datatype.h`: the byte orders of set keys.
pub const BYTEORDER_INVALID: u32 = 0;
pub const BYTEORDER_HOST_ENDIAN: u32 = 1;
pub const BYTEORDER_BIG_ENDIAN: u32 = 2;

/// What `typeof @th,64,128` becomes in a set's user data (`NFTNL_UDATA_SET_KEY_TYPEOF`): a payload expression with base, offset and
/// length. `nft` 1.0.6 writes it so.
pub const TYPEOF_TARGET: [u8; 40] = [
    3, 38, 0, 4, 7, 0, 0, 0, 1, 30, 0, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 2, 4, 3, 0, 0, 0, 3, 4, 64, 0, 0, 0,
    4, 4, 128, 0, 0, 0,
];

/// What `typeof iif . @th,64,128` becomes: a concatenation of a meta expression and the payload expression.
pub const TYPEOF_INTERFACE_TARGET: [u8; 66] = [
    3, 64, 0, 4, 13, 0, 0, 0, 1, 56, 0, 14, 0, 4, 9, 0, 0, 0, 1, 6, 0, 4, 4, 0, 0, 0, 1, 38, 0, 4, 7, 0, 0,
    0, 1, 30, 0, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 2, 4, 3, 0, 0, 0, 3, 4, 64, 0, 0, 0, 4, 4, 128, 0, 0, 0,
];

/// What `typeof ip saddr . ct id` becomes: a concatenation of a payload expression and a connection-tracking expression.
pub const TYPEOF_CONNECTION4: [u8; 54] = [
    3, 52, 0, 4, 13, 0, 0, 0, 1, 44, 0, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 12, 0, 0, 0, 1, 4, 11, 0, 0, 0, 1,
    20, 0, 4, 12, 0, 0, 0, 1, 12, 0, 4, 23, 0, 0, 0, 1, 4, 255, 255, 255, 255,
];

/// What `typeof ip6 saddr . ct id` becomes.
pub const TYPEOF_CONNECTION6: [u8; 54] = [
    3, 52, 0, 4, 13, 0, 0, 0, 1, 44, 0, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 13, 0, 0, 0, 1, 4, 8, 0, 0, 0, 1,
    20, 0, 4, 12, 0, 0, 0, 1, 12, 0, 4, 23, 0, 0, 0, 1, 4, 255, 255, 255, 255,
];

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
