//! Settings with several values, separated by commas.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Values of one kind, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>", bound = "T: Item")]
pub struct List<T: Item>(pub BTreeSet<T>);

/// A value of a [`List`].
pub trait Item: Clone + Ord + fmt::Display + FromStr {
    /// What such a value is, for messages.
    const WHAT: &'static str;
}

impl Item for std::net::IpAddr {
    const WHAT: &'static str = "an address, such as 192.0.2.53 or 2001:db8::53";
}

impl Item for ipnet::IpNet {
    const WHAT: &'static str = "a network in CIDR notation, such as 10.1.0.0/16 or fd00:1::/64";
}

/// A value that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ListError {
    text: String,
    what: &'static str,
}

impl<T: Item> Default for List<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Item> List<T> {
    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, ListError> {
        let item = |text: &str| text.parse().map_err(|_| ListError { text: text.to_owned(), what: T::WHAT });
        Ok(Self(texts.map(item).collect::<Result<_, _>>()?))
    }
}

impl<T: Item> FromStr for List<T> {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        Self::of(text.split(',').map(str::trim).filter(|text| !text.is_empty()))
    }
}

impl<T: Item> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Vec::from(self.clone()).join(","))
    }
}

impl<T: Item> TryFrom<Vec<String>> for List<T> {
    type Error = ListError;

    fn try_from(texts: Vec<String>) -> Result<Self, ListError> {
        Self::of(texts.iter().map(String::as_str))
    }
}

impl<T: Item> From<List<T>> for Vec<String> {
    fn from(list: List<T>) -> Self {
        list.0.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn values_are_read_and_written_alike() {
        let list: List<IpAddr> = " 10.0.0.1,fd00::1, ".parse().unwrap();
        assert_eq!(list.to_string(), "10.0.0.1,fd00::1");
        assert_eq!(list.to_string().parse(), Ok(list));
        let error = "10.0.0.0/8,a".parse::<List<ipnet::IpNet>>().unwrap_err().to_string();
        assert!(error.starts_with("\"a\" is not a network"), "{error}");
    }
}
