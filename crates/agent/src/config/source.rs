//! The choice of a source: `api` or `dir:PATH`.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// The source of pods and policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SourceChoice {
    /// The API server.
    Api,
    /// A directory of manifests including its subdirectories, or a file.
    Directory(PathBuf),
}

/// A text that is not a source.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a source: use api, or dir:PATH for a directory of manifests")]
pub struct SourceError(String);

impl FromStr for SourceChoice {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.split_once(':') {
            None if text == "api" => Ok(Self::Api),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            _ => Err(SourceError(text.to_owned())),
        }
    }
}

impl fmt::Display for SourceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

impl TryFrom<String> for SourceChoice {
    type Error = SourceError;

    fn try_from(text: String) -> Result<Self, SourceError> {
        text.parse()
    }
}

impl From<SourceChoice> for String {
    fn from(source: SourceChoice) -> Self {
        source.to_string()
    }
}
