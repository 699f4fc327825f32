//! Sources that pods may use beside their own addresses, as annotations set them (SEMANTICS G-19). No verdict depends on them.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// The annotation of a pod: networks whose addresses it may use as a source, within those of [`ALLOW_SOURCE_WITHIN_KEY`].
pub const ALLOW_SOURCE_KEY: &str = "palisade.dev/allow-source";

/// The annotation of a namespace: networks within which [`ALLOW_SOURCE_KEY`] of its pods counts. Without it, that counts nowhere.
pub const ALLOW_SOURCE_WITHIN_KEY: &str = "palisade.dev/allow-source-within";

/// The most networks of one annotation.
pub const MAX_ANNOTATED_SOURCES: usize = 16;

/// The longest text of an error, of a value that anybody wrote.
const LONGEST_QUOTE: usize = 64;

/// Networks of one annotation, sorted and without duplicates. Usually none, without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnnotatedSources(Option<Arc<[IpNet]>>);

/// Why the value of an annotation counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnnotatedSourcesError {
    /// Neither an address nor a network. Has the text, shortened.
    NotANetwork(String),
    /// It has every address.
    Everything(IpNet),
    /// More than [`MAX_ANNOTATED_SOURCES`].
    TooMany(usize),
}

impl AnnotatedSources {
    /// Parses a value of [`ALLOW_SOURCE_KEY`] or [`ALLOW_SOURCE_WITHIN_KEY`]: addresses and networks, separated by commas.
    ///
    /// # Errors
    /// If any of them is wrong, or there are too many: nothing of the value is used then.
    pub fn parse(value: &str) -> Result<Self, AnnotatedSourcesError> {
        let texts = || value.split(',').map(str::trim).filter(|text| !text.is_empty());
        // Before anything is kept: the value may have 256 KiB.
        match texts().count() {
            0 => return Ok(Self::default()),
            1..=MAX_ANNOTATED_SOURCES => {}
            count => return Err(AnnotatedSourcesError::TooMany(count)),
        }
        let networks = texts().map(network).collect::<Result<BTreeSet<IpNet>, _>>()?;
        Ok(Self(Some(networks.into_iter().collect())))
    }

    /// Returns the networks.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks().is_empty()
    }
}

fn network(text: &str) -> Result<IpNet, AnnotatedSourcesError> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| AnnotatedSourcesError::NotANetwork(text.chars().take(LONGEST_QUOTE).collect()))?;
    match network.prefix_len() {
        0 => Err(AnnotatedSourcesError::Everything(network)),
        _ => Ok(network.trunc()),
    }
}

impl std::fmt::Display for AnnotatedSourcesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotANetwork(text) => {
                write!(
                    f,
                    "{text:?} is neither an IP address nor a network, such as 192.0.2.10 or 2001:db8::/64"
                )
            }
            Self::Everything(network) => write!(f, "{network} has every address"),
            Self::TooMany(count) => {
                write!(f, "{count} networks, at most {MAX_ANNOTATED_SOURCES} are possible")
            }
        }
    }
}

impl std::error::Error for AnnotatedSourcesError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_canonical_and_bounded() {
        let texts = |value: &str| {
            AnnotatedSources::parse(value)
                .map(|s| s.networks().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let of = |all: &[&str]| Ok(all.iter().map(ToString::to_string).collect());
        assert_eq!(texts("10.0.0.100, fd00::5/64,10.0.0.100/32"), of(&["10.0.0.100/32", "fd00::/64"]));
        assert_eq!(texts(""), of(&[]));
        assert_eq!(texts(" , "), of(&[]));
        for wrong in
            ["x", "10.0.0.1/33", "10.0.0.0/8/8", "10.0.0.1-10.0.0.9", "10.0.0.1 10.0.0.2", "10.0.0.1;"]
        {
            assert_eq!(
                texts(&format!("10.0.0.9,{wrong}")),
                Err(AnnotatedSourcesError::NotANetwork(wrong.into()))
            );
        }
        for wrong in ["0.0.0.0/0", "::/0", "10.1.2.3/0"] {
            assert!(matches!(texts(wrong), Err(AnnotatedSourcesError::Everything(_))), "{wrong}");
        }
        let many =
            |count: usize| texts(&(0..count).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>().join(","));
        assert_eq!(many(16).unwrap().len(), 16);
        assert_eq!(many(17), Err(AnnotatedSourcesError::TooMany(17)));
        assert_eq!(texts(&",10.0.0.1".repeat(30_000)), Err(AnnotatedSourcesError::TooMany(30_000)));
        let Err(long) = texts(&"ü".repeat(10_000)) else { panic!() };
        assert!(long.to_string().len() < 400, "{long}");
    }
}
