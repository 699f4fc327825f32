//! The syntax of `domainNames` (SEMANTICS C.6).

/// The pattern in v1alpha1 and v1alpha2. Its `A-z` is a mistake for `A-Z` (C30), but the API server admits what it
/// matches.
const PATTERN: &str =
    r"^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$";
/// The pattern in v1beta1.
const PATTERN_V1BETA1: &str =
    r"^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$";

/// Returns the pattern, for messages.
pub(super) fn pattern(v1beta1: bool) -> &'static str {
    if v1beta1 { PATTERN_V1BETA1 } else { PATTERN }
}

/// Returns whether the pattern matches `name`. Labels can't contain dots, so the name is split at dots.
pub(super) fn is_valid(name: &str, v1beta1: bool) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.contains('.') && name.split('.').all(|label| is_label(label.as_bytes(), v1beta1))
}

fn is_label(label: &[u8], v1beta1: bool) -> bool {
    let (Some(first), Some(last)) = (label.first(), label.last()) else { return false };
    let begins = first.is_ascii_alphanumeric() || (!v1beta1 && (b'A'..=b'z').contains(first));
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    begins && label[1..].iter().all(inner) && (label.len() == 1 || last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_like_the_patterns() {
        for good in
            ["a.io", "*.k8s.io", "KUBERNETES.io.", "a_b.io", "xn--bcher-kva.example", "1.2.3.4", "a.b.c.d.e"]
        {
            assert!(is_valid(good, false) && is_valid(good, true), "{good}");
        }
        for bad in [
            "",
            ".",
            "*",
            "*.",
            "com",
            "com.",
            "localhost",
            "*.com",
            "*.com.",
            "*.*.x.io",
            "**.x.io",
            "foo*.x.io",
            "a.*.io",
            "a..io",
            ".a.io",
            "a.io..",
            "a_.io",
            "-a.io",
            "a-.io",
            "bücher.de",
            "2001:db8::1",
            "a.io:443",
            "a.io\n",
            " a.io",
            "a.i_",
        ] {
            assert!(!is_valid(bad, false) && !is_valid(bad, true), "{bad}");
        }
    }

    #[test]
    fn the_older_pattern_admits_more() {
        for name in ["_a.io", "[a.io", "a.]", "^.io", "*.`a.io", "\\a.io"] {
            assert!(is_valid(name, false), "{name}");
            assert!(!is_valid(name, true), "{name}");
        }
    }
}
