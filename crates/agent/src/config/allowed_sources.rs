//! Networks whose addresses any pod may use as a source, beside its own.

use std::{collections::BTreeSet, fmt, str::FromStr};

use ipnet::IpNet;
use palisade_nft::MAX_ALLOWED_SOURCES;
use serde::{Deserialize, Serialize};

/// Networks, in their canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct AllowedSources(pub BTreeSet<IpNet>);

/// Why networks can't be allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowedSourcesError {
    /// It is not a network.
    #[error("{0:?} is not a network in CIDR notation, such as 192.0.2.10/32 or 2001:db8::/64")]
    NotANetwork(String),
    /// It has every address.
    #[error("{0} has every address: to allow any source, use --source-check=off")]
    Everything(IpNet),
    /// There are too many.
    #[error(
        "{0} networks are allowed as sources; at most {MAX_ALLOWED_SOURCES} can be, because packets are compared with each"
    )]
    TooMany(usize),
}

impl AllowedSources {
    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, AllowedSourcesError> {
        let network = |text: &str| {
            let network: IpNet =
                text.parse().map_err(|_| AllowedSourcesError::NotANetwork(text.to_owned()))?;
            match network.prefix_len() {
                0 => Err(AllowedSourcesError::Everything(network)),
                _ => Ok(network.trunc()),
            }
        };
        let networks: BTreeSet<IpNet> = texts.map(network).collect::<Result<_, _>>()?;
        match networks.len() {
            0..=MAX_ALLOWED_SOURCES => Ok(Self(networks)),
            count => Err(AllowedSourcesError::TooMany(count)),
        }
    }
}

impl FromStr for AllowedSources {
    type Err = AllowedSourcesError;

    /// Parses networks that are separated by commas.
    fn from_str(text: &str) -> Result<Self, AllowedSourcesError> {
        Self::of(text.split(',').map(str::trim).filter(|text| !text.is_empty()))
    }
}

impl fmt::Display for AllowedSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.clone().into();
        f.write_str(&texts.join(","))
    }
}

impl TryFrom<Vec<String>> for AllowedSources {
    type Error = AllowedSourcesError;

    fn try_from(texts: Vec<String>) -> Result<Self, AllowedSourcesError> {
        Self::of(texts.iter().map(String::as_str))
    }
}

impl From<AllowedSources> for Vec<String> {
    fn from(sources: AllowedSources) -> Self {
        sources.0.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_canonical_and_bounded() {
        let parse = |text: &str| text.parse::<AllowedSources>();
        let two = parse(" 192.0.2.10/32, 2001:db8::1/64 ").unwrap();
        assert_eq!(two.to_string(), "192.0.2.10/32,2001:db8::/64");
        assert_eq!(parse(&two.to_string()).unwrap(), two);
        assert_eq!(parse("").unwrap(), AllowedSources::default());
        for text in ["192.0.2.10", "x", "10.0.0.0/33"] {
            assert_eq!(parse(text), Err(AllowedSourcesError::NotANetwork(text.to_owned())));
        }
        for text in ["0.0.0.0/0", "::/0"] {
            assert!(matches!(parse(text), Err(AllowedSourcesError::Everything(_))));
        }
        let many =
            |count: usize| parse(&(0..count).map(|n| format!("10.0.{n}.0/24")).collect::<Vec<_>>().join(","));
        assert_eq!(many(MAX_ALLOWED_SOURCES).unwrap().0.len(), MAX_ALLOWED_SOURCES);
        assert_eq!(many(33), Err(AllowedSourcesError::TooMany(33)));
    }
}
