//! The names of destinations in records: those for which a DNS server answered the address.

use palisade_policy::DomainName;

/// The most names of one record. Cilium keeps 50 for an address.
const MAX_NAMES: usize = 50;

/// Returns the host names among the names of a record, sorted.
pub(super) fn of_record(texts: &[String]) -> Vec<DomainName> {
    let mut names: Vec<DomainName> =
        texts.iter().take(MAX_NAMES).filter_map(|text| DomainName::new(text)).collect();
    names.sort();
    names.dedup();
    names
}

/// Returns whether a policy may have a name (SEMANTICS C.6): at least two labels of letters, digits, `-` and `_`, with letters
/// or digits at both ends, and no address.
pub(crate) fn is_admitted(name: &DomainName) -> bool {
    let text = name.as_str();
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().next_back()];
        ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.contains('.') && text.split('.').all(is_label) && text.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_canonical_and_others_are_left_out() {
        let texts = ["API.example.com.", "api.example.com", "b\u{fc}cher.example", "", "a..b"];
        let names = of_record(&texts.map(str::to_owned));
        assert_eq!(names, [DomainName::new("api.example.com").unwrap()]);
        let many: Vec<String> = (0..1000).map(|number| format!("n{number}.example.com")).collect();
        assert_eq!(of_record(&many).len(), MAX_NAMES);
    }

    #[test]
    fn only_names_that_the_api_admits_are_written() {
        let admitted = |text: &str| is_admitted(&DomainName::new(text).unwrap());
        assert!(admitted("api.example.com") && admitted("a_b.io") && admitted("xn--bcher-kva.example"));
        for bad in ["localhost", "_sip.example.com", "a-.io", "192.0.2.1", "a@b.io", "*.io"] {
            assert!(!admitted(bad), "{bad}");
        }
    }
}
