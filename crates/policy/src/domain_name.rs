//! Host names, the patterns of `domainNames` (SEMANTICS C.6), and addresses that were learned for names.

use std::fmt;

use crate::{AddressSet, Name};

/// The longest host name, in characters, without the dot at its end (RFC 1035, section 3.1).
pub const MAX_DOMAIN_NAME: usize = 253;

/// A host name in canonical form: ASCII in lower case, without the dot at its end.
///
/// An internationalized name is in its ASCII form (`xn--…`), as in DNS messages and in the API, whose pattern admits no
/// other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Name);

impl DomainName {
    /// Reads a host name. Case and one dot at the end have no effect (SEMANTICS C33). `None` if a label is empty or
    /// longer than 63 characters, if the name is longer than [`MAX_DOMAIN_NAME`], or if it has characters other than
    /// printable ASCII.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| (1..=63).contains(&label.len());
        let is_name = text.len() <= MAX_DOMAIN_NAME
            && text.bytes().all(|b| b.is_ascii_graphic())
            && text.split('.').all(is_label);
        is_name.then(|| Self(canonical(text)))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Iterates over the patterns that match the name: the name itself, then `*.` with every proper suffix. One for each
    /// label.
    pub fn patterns(&self) -> impl Iterator<Item = DomainPattern> + '_ {
        let suffixes = self.0.match_indices('.').map(|(at, _)| &self.0[at + 1..]);
        let wildcards = suffixes.map(|suffix| DomainPattern { is_wildcard: true, name: suffix.into() });
        std::iter::once(DomainPattern { is_wildcard: false, name: self.0.clone() }).chain(wildcards)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An element of `domainNames`: a host name, or `*.` and a suffix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern {
    is_wildcard: bool,
    /// The name, or the suffix after `*.`; canonical.
    name: Name,
}

impl DomainPattern {
    /// Makes a pattern of text that the API's pattern admits. Case and one dot at the end have no effect (SEMANTICS
    /// C33).
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = text.strip_suffix('.').unwrap_or(text);
        let suffix = text.strip_prefix("*.");
        Self { is_wildcard: suffix.is_some(), name: canonical(suffix.unwrap_or(text)) }
    }

    /// Returns whether it matches a name. A wildcard stands for one or more whole labels (SEMANTICS C31, C32).
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        if !self.is_wildcard {
            return self.name == name.0;
        }
        name.0.strip_suffix(&*self.name).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
    }

    /// Returns whether there is a name that it matches: the API's pattern admits longer names and labels than DNS has.
    #[must_use]
    pub fn can_match(&self) -> bool {
        // The shortest name in front of a suffix is one character and a dot.
        let longest = if self.is_wildcard { MAX_DOMAIN_NAME - 2 } else { MAX_DOMAIN_NAME };
        self.name.len() <= longest && DomainName::new(&self.name).is_some()
    }

    /// Returns whether `other` matches every name that it matches.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        if !other.is_wildcard {
            return self == other;
        }
        let labels = self.name.strip_suffix(&*other.name);
        labels.is_some_and(|labels| labels.ends_with('.') || (labels.is_empty() && self.is_wildcard))
    }

    /// Returns whether it begins with `*.`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }

    /// Returns the name, or the suffix after `*.`.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_wildcard { "*." } else { "" }, self.name)
    }
}

/// A name and the addresses that were learned for it: what answers of DNS servers contained, and has not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedName {
    /// The name that was asked for. Names inside a CNAME chain are not learned (SEMANTICS C38).
    pub name: DomainName,
    /// The addresses.
    pub addresses: AddressSet,
}

fn canonical(text: &str) -> Name {
    text.to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let name = DomainName::new(name).unwrap();
        let pattern = DomainPattern::new(pattern);
        let listed = name.patterns().any(|p| p == pattern);
        assert_eq!(pattern.matches(&name), listed, "{pattern} and {name}");
        listed
    }

    #[test]
    fn a_name_matches_itself_and_a_wildcard_matches_whole_labels_in_front() {
        assert!(matches("kubernetes.io", "kubernetes.io"));
        assert!(
            !matches("kubernetes.io", "www.kubernetes.io") && !matches("www.kubernetes.io", "kubernetes.io")
        );
        assert!(matches("*.k8s.io", "blog.k8s.io") && matches("*.k8s.io", "a.b.k8s.io"));
        assert!(!matches("*.k8s.io", "k8s.io") && !matches("*.k8s.io", "notk8s.io"));
        assert!(!matches("*.k8s.io", "k8s.io.example") && !matches("*.k8s.io", "x.k8s.iox"));
    }

    #[test]
    fn a_pattern_within_another_matches_no_other_name() {
        let within = |a: &str, b: &str| DomainPattern::new(a).is_within(&DomainPattern::new(b));
        assert!(within("k8s.io", "K8S.io.") && within("*.k8s.io", "*.k8s.io"));
        assert!(within("a.k8s.io", "*.k8s.io") && within("*.a.k8s.io", "*.k8s.io"));
        assert!(!within("k8s.io", "*.k8s.io") && !within("*.k8s.io", "k8s.io"));
        assert!(!within("*.k8s.io", "*.a.k8s.io") && !within("notk8s.io", "*.k8s.io"));
    }

    #[test]
    fn case_and_the_final_dot_have_no_effect() {
        assert!(matches("KUBERNETES.io.", "kubernetes.IO"));
        assert!(matches("*.K8S.io", "Blog.k8s.io."));
        assert_eq!(DomainPattern::new("*.K8S.io.").to_string(), "*.k8s.io");
    }

    #[test]
    fn what_no_dns_message_can_ask_for_is_no_name() {
        let label = "a".repeat(63);
        let longest = [&label[..], &label, &label, &label[..61]].join(".");
        assert_eq!(longest.len(), MAX_DOMAIN_NAME);
        assert!(DomainName::new(&longest).is_some() && DomainName::new(&format!("{longest}.")).is_some());
        assert!(DomainName::new(&format!("{longest}a")).is_none());
        let can_match = |text: &str| DomainPattern::new(text).can_match();
        assert!(can_match(&longest) && can_match(&format!("*.{}.", &longest[2..])) && can_match("*.a.io"));
        assert!(!can_match(&format!("a.{longest}")) && !can_match(&format!("*.{}", &longest[1..])));
        assert!(!can_match(&format!("{label}a.io")) && !can_match(&format!("*.{label}a.io")));
        for bad in ["", ".", "a..io", ".a.io", "a.io..", "b\u{fc}cher.de", "a b.io", &format!("{label}a.io")]
        {
            assert!(DomainName::new(bad).is_none(), "{bad}");
        }
        assert!(DomainName::new("localhost").is_some() && DomainName::new("_a.b_c.io").is_some());
    }
}
