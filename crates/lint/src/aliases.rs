//! Further names of rules that find several kinds of the same mistake.

/// The names, and the codes of their rules.
const ALIASES: [(&str, &str); 5] = [
    ("redundant-policy", "PAL051"),
    ("shadowed-by", "PAL051"),
    ("unreachable-rule", "PAL052"),
    ("pass-to-nothing", "PAL052"),
    ("apiservice-blocked", "PAL063"),
];

/// Returns the further names of the rule with this code.
pub(crate) fn aliases(code: &str) -> impl Iterator<Item = &'static str> {
    ALIASES.iter().filter(move |(_, of)| *of == code).map(|(name, _)| *name)
}
