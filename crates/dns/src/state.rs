//! Learned names as a file, so that connections to learned addresses are allowed at once after a restart.
//!
//! The first line is the version and a checksum of the rest, as in the agent's other state. What can't be used completely is
//! not used at all: then nothing is known, and pods ask again.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_policy::{DomainName, ObjectKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{LearnLimits, LearnedNames, Seconds};

/// What the first line begins with.
const MAGIC: &str = "palisade-dns ";
/// Increased with each incompatible change.
const VERSION: u32 = 1;
/// The longest file that is read. 10,000 names with 100,000 addresses are less than 8 MB.
const MAX_FILE: usize = 64 << 20;

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadState {
    /// It is longer than any that this version writes.
    #[error("longer than {MAX_FILE} bytes")]
    TooLong,
    /// It begins with something else.
    #[error("not a file of learned names")]
    Foreign,
    /// Another version wrote it.
    #[error("of version {0}, not {VERSION}")]
    Version(u32),
    /// It was cut or changed.
    #[error("damaged: the checksum does not match")]
    Damaged,
    /// The content is not what this version writes.
    #[error("not usable: {0}")]
    Content(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedName {
    /// The pod that was the first to ask.
    namespace: String,
    pod: String,
    addresses: BTreeMap<IpAddr, Seconds>,
}

/// Returns the names as a file. `O(addresses)`. `ahead`: how many seconds the clock of the file is ahead of that of `learned`, since
/// a clock that is never set means nothing to another process.
///
/// # Errors
/// [`BadState::Content`] if they can't be written as JSON.
pub fn encode(learned: &LearnedNames, ahead: i64) -> Result<Vec<u8>, BadState> {
    let names: BTreeMap<&str, SavedName> = learned
        .iter()
        .map(|(name, known)| {
            let (namespace, pod) = (known.first.namespace.to_string(), known.first.name.to_string());
            let saved =
                |(address, until): (&IpAddr, &Seconds)| (*address, until.saturating_add_signed(ahead));
            (
                name.as_str(),
                SavedName { namespace, pod, addresses: known.addresses.iter().map(saved).collect() },
            )
        })
        .collect();
    let body = serde_json::to_string(&names).map_err(|e| BadState::Content(e.to_string()))?;
    Ok(format!("{MAGIC}{VERSION} {}\n{body}", checksum(body.as_bytes())).into_bytes())
}

/// Reads a file. Addresses that have expired are restored, too, since connections may use them: [`LearnedNames::expire`] decides. No time lies
/// further in the future than an answer at `now` could have it. `O(n log n)` in the file.
///
/// # Errors
/// [`BadState`]: nothing is restored.
pub fn decode(bytes: &[u8], limits: LearnLimits, now: Seconds) -> Result<LearnedNames, BadState> {
    if bytes.len() > MAX_FILE {
        return Err(BadState::TooLong);
    }
    let head = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(BadState::Foreign)?;
    let end = head.iter().take(100).position(|byte| *byte == b'\n').ok_or(BadState::Foreign)?;
    let (head, body) = (std::str::from_utf8(&head[..end]).map_err(|_| BadState::Foreign)?, &head[end + 1..]);
    let (version, sum) = head.split_once(' ').ok_or(BadState::Foreign)?;
    match version.parse() {
        Ok(VERSION) => {}
        Ok(other) => return Err(BadState::Version(other)),
        Err(_) => return Err(BadState::Foreign),
    }
    if sum != checksum(body) {
        return Err(BadState::Damaged);
    }
    let content = |what: String| BadState::Content(what);
    let names: BTreeMap<String, SavedName> =
        serde_json::from_slice(body).map_err(|e| content(e.to_string()))?;
    let latest = now.saturating_add(limits.max_ttl).saturating_add(limits.grace);
    let mut learned = LearnedNames::new(limits);
    for (text, saved) in names {
        let name = DomainName::new(&text).filter(|name| name.as_str() == text);
        let name = name.ok_or_else(|| content(format!("{text:?} is no host name")))?;
        let first = ObjectKey::new(saved.namespace, saved.pod);
        for (address, until) in saved.addresses {
            // The clock may have been set back since.
            let until = until.min(latest);
            if !learned.restore(&name, &first, address, until) {
                return Err(content(format!("{name} exceeds the limits")));
            }
        }
    }
    Ok(learned)
}

fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, byte| {
        // Writing to a string never fails.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use palisade_policy::DomainPattern;

    use super::*;
    use crate::{Learnable, Patterns};

    fn learned() -> LearnedNames {
        let mut learned = LearnedNames::new(LearnLimits::default());
        let patterns: Patterns = [DomainPattern::new("*.b.io")].into_iter().collect();
        let rules = (&patterns, &Learnable::default());
        for (host, pod) in [("x.b.io", "web"), ("y.b.io", "db")] {
            let addresses = [("198.51.100.1".parse().unwrap(), 60), ("2001:db8::1".parse().unwrap(), 900)];
            learned.learn(
                &DomainName::new(host).unwrap(),
                &ObjectKey::new("shop", pod),
                &addresses,
                rules,
                1000,
            );
        }
        learned.take_changes();
        learned
    }

    fn read(bytes: &[u8], now: Seconds) -> Result<LearnedNames, BadState> {
        decode(bytes, LearnLimits::default(), now)
    }

    #[test]
    fn what_is_written_is_read_and_what_has_expired_stays_while_it_is_used() {
        let (before, bytes) = (learned(), encode(&learned(), 0).unwrap());
        let after = read(&bytes, 1000).unwrap();
        assert_eq!(after.all_changes(), before.all_changes());
        assert_eq!((after.next_expiry(), after.addresses()), (before.next_expiry(), 4));
        let left = |now, is_used: bool| {
            let mut learned = read(&bytes, now).unwrap();
            learned.expire(now, |_| is_used);
            learned.addresses()
        };
        assert_eq!((left(1090, false), left(5000, false), left(5000, true)), (2, 0, 4));
        // The clock was set back by ten weeks: nothing stays longer than an answer could have it.
        let early = encode(&read(&bytes, 1000).unwrap(), 0).unwrap();
        let limits = LearnLimits { max_ttl: 100, ..LearnLimits::default() };
        assert_eq!(decode(&early, limits, 0).unwrap().next_expiry(), Some(130));
    }

    #[test]
    fn a_file_that_is_cut_changed_or_foreign_is_not_used() {
        let bytes = encode(&learned(), 0).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], 1000).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed, 1000).is_err(), "byte {at}");
        }
        assert_eq!(read(b"palisade-state 1 x\n{}", 0), Err(BadState::Foreign));
        assert_eq!(read(b"palisade-dns 2 x\n{}", 0), Err(BadState::Version(2)));
    }

    #[test]
    fn content_that_this_version_does_not_write_is_not_used() {
        let file =
            |body: &str| format!("{MAGIC}{VERSION} {}\n{body}", checksum(body.as_bytes())).into_bytes();
        let entry = r#"{"namespace": "a", "pod": "b", "addresses": {"198.51.100.1": 2000}}"#;
        assert_eq!(read(&file(&format!(r#"{{"x.io": {entry}}}"#)), 0).unwrap().addresses(), 1);
        for body in [
            format!(r#"{{"X.io": {entry}}}"#),
            format!(r#"{{"": {entry}}}"#),
            r#"{"x.io": {"namespace": "a", "pod": "b", "addresses": {}, "more": 1}}"#.to_owned(),
            r#"{"x.io": {"namespace": "a", "pod": "b", "addresses": {"x": 1}}}"#.to_owned(),
            "[]".to_owned(),
        ] {
            assert!(matches!(read(&file(&body), 0), Err(BadState::Content(_))), "{body}");
        }
        let limits = LearnLimits { names: 0, ..LearnLimits::default() };
        let full = decode(&file(&format!(r#"{{"x.io": {entry}}}"#)), limits, 0);
        assert_eq!(full, Err(BadState::Content("x.io exceeds the limits".to_owned())));
    }
}
