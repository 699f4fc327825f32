//! Properties of objects besides their content: flags, sizes, timeouts, comments.
//!
//! The same functions read what the kernel lists and what the encoder would send. So a property that the encoder gains
//! is compared without a list of expectations here.

use std::collections::BTreeMap;

use super::{
    attributes::{Attributes, text},
    expressions::operations,
};
use crate::uapi::{
    nf_tables::*,
    nftables::{NFTNL_UDATA_CHAIN_COMMENT, NFTNL_UDATA_SET_COMMENT},
};

/// Properties that differ from the kernel's defaults, by name.
pub type Properties = BTreeMap<&'static str, String>;

/// The names of the bits of `NFT_TABLE_F_*`, from the lowest.
const TABLE_FLAGS: [&str; 3] = ["dormant", "owner", "persist"];

/// The names of the bits of `NFT_CHAIN_*`.
const CHAIN_FLAGS: [&str; 3] = ["base", "offload", "binding"];

/// The names of the bits of `NFT_SET_*`.
const SET_FLAGS: [&str; 9] = [
    "anonymous",
    "constant",
    "interval",
    "map",
    "timeout",
    "dynamic",
    "object",
    "concatenation",
    "statements",
];

/// The size that the kernel gives a dynamic set without one, once a rule fills it (`nft_dynset_init`).
const DYNAMIC_SIZE: u32 = 0xffff;

/// Returns flags by name. A bit without a name is shown by its number.
fn flags(bits: u32, names: &[&str]) -> Option<String> {
    let set = (0..32).filter(|bit| bits & (1 << bit) != 0);
    let names = set.map(|bit| names.get(bit).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned()));
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Returns the flags of a table, except `NFT_TABLE_F_DORMANT`, by name.
pub(crate) fn table_flags(bits: u32) -> Option<String> {
    flags(bits & !NFT_TABLE_F_DORMANT, &TABLE_FLAGS)
}

/// Returns the properties of a chain.
pub(crate) fn chain(a: Attributes<'_>) -> Properties {
    let mut out = Properties::new();
    if let Some(hook) = a.nested(NFTA_CHAIN_HOOK) {
        let one = hook.text(NFTA_HOOK_DEV);
        let many = hook.nested(NFTA_HOOK_DEVS).into_iter().flatten().map(|(_, name)| text(name));
        let devices: Vec<String> = one.into_iter().chain(many).collect();
        add(&mut out, "device", (!devices.is_empty()).then(|| devices.join(",")));
        add(&mut out, "type", a.text(NFTA_CHAIN_TYPE).filter(|kind| kind != "filter"));
    }
    // A hook implies `NFT_CHAIN_BASE`.
    let bits = a.number(NFTA_CHAIN_FLAGS).unwrap_or_default() & !NFT_CHAIN_BASE;
    add(&mut out, "flags", flags(bits, &CHAIN_FLAGS));
    add(&mut out, "counters", a.get(NFTA_CHAIN_COUNTERS).map(|_| "on".to_owned()));
    let comment = a.get(NFTA_CHAIN_USERDATA).and_then(|data| user_data(data, NFTNL_UDATA_CHAIN_COMMENT));
    add(&mut out, "comment", comment);
    out
}

/// Returns the properties of a set.
pub(crate) fn set(a: Attributes<'_>) -> Properties {
    let mut out = Properties::new();
    let number = |kind: u16| a.number(kind).filter(|n| *n != 0);
    let bits = number(NFTA_SET_FLAGS).unwrap_or_default();
    add(&mut out, "flags", flags(bits, &SET_FLAGS));
    add(&mut out, "key type", number(NFTA_SET_KEY_TYPE).map(|n| n.to_string()));
    if bits & NFT_SET_MAP != 0 {
        let data_type = number(NFTA_SET_DATA_TYPE);
        add(&mut out, "data type", data_type.map(|n| n.to_string()));
        // All verdicts have the same length.
        let length = number(NFTA_SET_DATA_LEN).filter(|_| data_type != Some(NFT_DATA_VERDICT));
        add(&mut out, "data length", length.map(|n| n.to_string()));
    }
    let policy = number(NFTA_SET_POLICY);
    let policy = policy.map(|n| if n == NFT_SET_POL_MEMORY { "memory".to_owned() } else { n.to_string() });
    add(&mut out, "policy", policy);
    let size = a.nested(NFTA_SET_DESC).and_then(|description| description.number(NFTA_SET_DESC_SIZE));
    let size = size.filter(|n| *n != 0).or((bits & NFT_SET_EVAL != 0).then_some(DYNAMIC_SIZE));
    add(&mut out, "size", size.map(|n| n.to_string()));
    let timeout = a.get(NFTA_SET_TIMEOUT);
    let timeout = timeout.and_then(|t| Some(u64::from_be_bytes(t.get(..8)?.try_into().ok()?)));
    add(&mut out, "timeout", timeout.filter(|n| *n != 0).map(|n| format!("{n} ms")));
    add(&mut out, "gc interval", number(NFTA_SET_GC_INTERVAL).map(|n| format!("{n} ms")));
    let comment = a.get(NFTA_SET_USERDATA).and_then(|data| user_data(data, NFTNL_UDATA_SET_COMMENT));
    add(&mut out, "comment", comment);
    add(&mut out, "object type", number(NFTA_SET_OBJ_TYPE).map(|n| n.to_string()));
    let one = a.nested(NFTA_SET_EXPR).and_then(|e| e.text(NFTA_EXPR_NAME));
    let many = a.nested(NFTA_SET_EXPRESSIONS).map(operations).into_iter().flatten().map(|o| o.to_string());
    let statements: Vec<String> = one.into_iter().chain(many).collect();
    add(&mut out, "statements", (!statements.is_empty()).then(|| statements.join(",")));
    out
}

fn add(out: &mut Properties, name: &'static str, value: Option<String>) {
    out.extend(value.map(|value| (name, value)));
}

/// Returns the text of a kind in the user data that the `nft` program stores beside an object.
pub(crate) fn user_data(mut data: &[u8], kind: u8) -> Option<String> {
    while let [found, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *found == kind {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_name() {
        assert_eq!(flags(0, &SET_FLAGS), None);
        assert_eq!(flags(0x34, &SET_FLAGS).as_deref(), Some("interval,timeout,dynamic"));
        assert_eq!(table_flags(NFT_TABLE_F_DORMANT | 4 | 64).as_deref(), Some("persist,bit 6"));
    }

    #[test]
    fn comments_are_found_behind_other_data() {
        assert_eq!(user_data(&[4, 1, 9, 0, 3, b'o', b'k', 0], 0).as_deref(), Some("ok"));
        assert_eq!(user_data(&[0, 9, b'o'], 0), None);
    }
}
