//! The token that a request must have.

use anyhow::{Result, anyhow};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// The number of random bytes: 256 bits can't be guessed.
const BYTES: usize = 32;

/// A secret that is new each time the server starts.
pub(super) struct Token {
    text: String,
}

impl Token {
    /// Makes a token of the kernel's random numbers.
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn new() -> Result<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("can't make a token: {error}"))?;
        Ok(Self { text: URL_SAFE_NO_PAD.encode(bytes) })
    }

    /// Returns its text, which needs no escapes in a URL.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a text is the token. The time that it takes depends on nothing that helps to guess it: digests are compared.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        Sha256::digest(text) == Sha256::digest(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_fit_into_a_url() {
        let (a, b) = (Token::new().unwrap(), Token::new().unwrap());
        assert_ne!(a.text(), b.text());
        assert_eq!(a.text().len(), 43);
        assert!(a.text().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert!(a.is(a.text().as_bytes()));
        assert!(!a.is(b.text().as_bytes()) && !a.is(b"") && !a.is(&a.text().as_bytes()[1..]));
    }
}
