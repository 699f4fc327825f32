//! What is said of an object beside its content: flags, sizes, time-outs, comments.
//!
//! The same functions read what the kernel lists and what the encoder would send, so that a property which is added to the
//! one is compared in the other without a list of expectations here.

use std::collections::BTreeMap;

use super::{
    attributes::{Attributes, text},
    expressions::operations,
};

/// Properties that differ from what the kernel assumes where nothing is said; by name, in words.
pub type Properties = BTreeMap<&'static str, String>;

/// `NFT_TABLE_F_DORMANT`.
pub(crate) const DORMANT: u32 = 1;

/// The bits of `NFT_TABLE_F_*`, from the lowest.
const TABLE_FLAGS: [&str; 3] = ["dormant", "owner", "persist"];

/// `NFT_CHAIN_BASE`, which a hook says too; `NFT_CHAIN_BINDING`: a chain that belongs to a rule.
const CHAIN_BASE: u32 = 1;
pub(crate) const CHAIN_BINDING: u32 = 4;
const CHAIN_FLAGS: [&str; 3] = ["base", "offload", "binding"];

/// `NFT_SET_*`: a set that belongs to a rule, a verdict map, a set that rules fill.
pub(crate) const SET_ANONYMOUS: u32 = 1;
const SET_MAP: u32 = 8;
pub(crate) const SET_DYNAMIC: u32 = 0x20;
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

/// `NFT_DATA_VERDICT`: a type of data that has one length.
const VERDICT_DATA: u32 = 0xffff_ff00;

/// What the kernel makes of a dynamic set for which no size is asked, once a rule fills it (`nft_dynset_init`).
const DYNAMIC_SIZE: u32 = 0xffff;

/// Flags by name; a bit without one by its place.
fn flags(bits: u32, names: &[&str]) -> Option<String> {
    let set = (0..32).filter(|bit| bits & (1 << bit) != 0);
    let words = set.map(|bit| names.get(bit).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned()));
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// The flags of a table but for [`DORMANT`], in words.
pub(crate) fn table_flags(bits: u32) -> Option<String> {
    flags(bits & !DORMANT, &TABLE_FLAGS)
}

/// Of a chain.
pub(crate) fn chain(a: Attributes<'_>) -> Properties {
    let mut out = Properties::new();
    // NFTA_CHAIN_HOOK, and in it NFTA_HOOK_DEV and NFTA_HOOK_DEVS.
    if let Some(hook) = a.nested(4) {
        let one = hook.text(3);
        let many = hook.nested(4).into_iter().flatten().map(|(_, name)| text(name));
        let devices: Vec<String> = one.into_iter().chain(many).collect();
        add(&mut out, "device", (!devices.is_empty()).then(|| devices.join(",")));
        add(&mut out, "type", a.text(7).filter(|kind| kind != "filter"));
    }
    add(&mut out, "flags", flags(a.number(10).unwrap_or_default() & !CHAIN_BASE, &CHAIN_FLAGS));
    add(&mut out, "counters", a.get(8).map(|_| "on".to_owned()));
    add(&mut out, "comment", a.get(12).and_then(|data| user_data(data, 0)));
    out
}

/// Of a set.
pub(crate) fn set(a: Attributes<'_>) -> Properties {
    /// The kind of a set's comment; those of other objects are of kind 0.
    const COMMENT: u8 = 7;
    let mut out = Properties::new();
    let number = |kind: u16| a.number(kind).filter(|n| *n != 0);
    let bits = number(3).unwrap_or_default();
    add(&mut out, "flags", flags(bits, &SET_FLAGS));
    add(&mut out, "key type", number(4).map(|n| n.to_string()));
    if bits & SET_MAP != 0 {
        add(&mut out, "data type", number(6).map(|n| n.to_string()));
        let length = number(7).filter(|_| number(6) != Some(VERDICT_DATA));
        add(&mut out, "data length", length.map(|n| n.to_string()));
    }
    add(&mut out, "policy", number(8).map(|n| if n == 1 { "memory".to_owned() } else { n.to_string() }));
    let size = a.nested(9).and_then(|description| description.number(1)).filter(|n| *n != 0);
    let size = size.or((bits & SET_DYNAMIC != 0).then_some(DYNAMIC_SIZE));
    add(&mut out, "size", size.map(|n| n.to_string()));
    let timeout = a.get(11).and_then(|t| Some(u64::from_be_bytes(t.get(..8)?.try_into().ok()?)));
    add(&mut out, "timeout", timeout.filter(|n| *n != 0).map(|n| format!("{n} ms")));
    add(&mut out, "gc interval", number(12).map(|n| format!("{n} ms")));
    add(&mut out, "comment", a.get(13).and_then(|data| user_data(data, COMMENT)));
    add(&mut out, "object type", number(15).map(|n| n.to_string()));
    // NFTA_SET_EXPR is one expression, NFTA_SET_EXPRESSIONS a list of them.
    let one = a.nested(17).and_then(|e| e.text(1));
    let many = a.nested(18).map(operations).into_iter().flatten().map(|o| o.to_string());
    let statements: Vec<String> = one.into_iter().chain(many).collect();
    add(&mut out, "statements", (!statements.is_empty()).then(|| statements.join(",")));
    out
}

fn add(out: &mut Properties, name: &'static str, value: Option<String>) {
    out.extend(value.map(|value| (name, value)));
}

/// The text of a kind in the bytes that the `nft` program keeps beside an object.
pub(crate) fn user_data(mut data: &[u8], wanted: u8) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == wanted {
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
    fn flags_in_words() {
        assert_eq!(flags(0, &SET_FLAGS), None);
        assert_eq!(flags(0x34, &SET_FLAGS).as_deref(), Some("interval,timeout,dynamic"));
        assert_eq!(table_flags(DORMANT | 4 | 64).as_deref(), Some("persist,bit 6"));
    }

    #[test]
    fn comments_are_found_behind_other_data() {
        assert_eq!(user_data(&[4, 1, 9, 0, 3, b'o', b'k', 0], 0).as_deref(), Some("ok"));
        assert_eq!(user_data(&[0, 9, b'o'], 0), None);
    }
}
