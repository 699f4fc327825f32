//! The syntax of names, label keys and values, and port names, with the API server's messages.
//!
//! Follows `k8s.io/apimachinery/pkg/util/validation` (SEMANTICS A.3.6, A.3.10). Each function returns error messages;
//! none means that the value is valid.

const ALNUM: &str =
    "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Validates a port number.
#[must_use]
pub fn port_number(number: i64) -> Option<&'static str> {
    (!(1..=65_535).contains(&number)).then_some("must be between 1 and 65535, inclusive")
}

/// Validates a port name (`IsValidPortName`).
#[must_use]
pub fn port_name(name: &str) -> Vec<&'static str> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push("must be no more than 15 bytes");
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen");
    }
    errors
}

/// Validates a label value (`IsValidLabelValue`).
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes".to_owned());
    }
    if !value.is_empty() && !is_qualified(value) {
        errors.push(format!(
            "a valid label must be an empty string or consist of {ALNUM} (e.g. 'MyValue',  or 'my_value',  or '12345')"
        ));
    }
    errors
}

/// Validates a label key (`IsQualifiedName`).
#[must_use]
pub fn label_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = key.split('/');
    let (first, second, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let name = match (second, rest) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns_subdomain(first).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            errors.push(format!(
                "a qualified name must consist of {ALNUM} (e.g. 'MyName',  or 'my.name',  or '123-abc') with an \
                 optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !name.is_empty() && !is_qualified(name) {
        errors
            .push(format!("name part must consist of {ALNUM} (e.g. 'MyName',  or 'my.name',  or '123-abc')"));
    }
    errors
}

/// Validates an object name (`IsDNS1123Subdomain`).
#[must_use]
pub fn dns_subdomain(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push("must be no more than 253 bytes".to_owned());
    }
    if !name.split('.').all(is_dns_label) {
        errors.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com')"
                .to_owned(),
        );
    }
    errors
}

/// Validates a namespace name (`IsDNS1123Label`).
#[must_use]
pub fn dns_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push("must be no more than 63 bytes".to_owned());
    }
    if !is_dns_label(name) {
        errors.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc')"
                .to_owned(),
        );
    }
    errors
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_dns_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_qualified(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names() {
        for good in ["http", "a", "a-1", "1a", "abcdefghijklmno"] {
            assert!(port_name(good).is_empty(), "{good}");
        }
        for bad in ["", "80", "HTTP", "abcdefghijklmnop", "a--b", "-a", "a-", "a_b", "é"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn label_keys_and_values() {
        for good in ["a", "A", "a.b_c-d", "example.com/Name", "9"] {
            assert!(label_key(good).is_empty(), "{good}");
        }
        let long = "a".repeat(64);
        let prefixed = format!("{}/a", "b".repeat(254));
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a-", "No=Equals", "Upper.com/a", &long, &prefixed, "a b"]
        {
            assert!(!label_key(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty());
        for bad in ["-b", "b-", "a/b", "a b", "ä", &long] {
            assert!(!label_value(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn dns_names() {
        assert!(dns_subdomain("a.b-c.9").is_empty());
        for bad in ["", "A", "a..b", "-a", "a.", "a_b"] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(dns_label("a-b").is_empty());
        assert!(!dns_label("a.b").is_empty());
    }
}
