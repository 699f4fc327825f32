//! What is wrong with the input, as data. [`crate::render()`] draws it.

use std::{fmt, ops::Range};

use palisade_policy::Origin;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{printable::printable, text::Excerpt};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object, document or file was not taken in.
    Error,
    /// It was taken in, and probably isn't what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Error { "error" } else { "warning" })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What sort of thing is wrong: stable names, which scripts may match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, such as `duplicate-key`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// A file or directory can't be read.
    NotReadable = "not-readable",
    /// A file is not UTF-8.
    NotUtf8 = "not-utf8",
    /// A file, document, or number of pods is over the limit.
    TooLarge = "too-large",
    /// A document is not YAML.
    Syntax = "syntax",
    /// A key occurs twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// An alias contains itself, or aliases expand to too much.
    Alias = "alias",
    /// A document is not a Kubernetes object.
    NotAnObject = "not-an-object",
    /// A known kind in a version that the API server doesn't serve (any longer).
    UnknownVersion = "unknown-version",
    /// A field that the API doesn't have.
    UnknownField = "unknown-field",
    /// A value of the wrong type.
    WrongType = "wrong-type",
    /// A value that the API server rejects.
    Invalid = "invalid-value",
    /// A field that must be there.
    Required = "required",
    /// Fields that exclude each other.
    Forbidden = "forbidden",
    /// A value that the API server accepts, and that doesn't say what it seems to say.
    Ambiguous = "ambiguous-value",
    /// The same object twice.
    DuplicateObject = "duplicate-object",
    /// Two live pods report one address.
    DuplicateAddress = "duplicate-address",
    /// A policy of a kind that is not evaluated.
    NotEvaluated = "not-evaluated",
    /// Something in a cluster-wide policy that the API server admits and that can't be used: its rule fails closed, or
    /// its policy selects nothing.
    Unusable = "unusable",
    /// Something that is valid and that this version doesn't enforce: its rule fails closed.
    NotEnforced = "not-enforced",
    /// Cluster-wide policies of one tier with one priority.
    EqualPriority = "equal-priority",
    /// AdminNetworkPolicies beside ClusterNetworkPolicies.
    MixedApis = "mixed-apis",
    /// A policy in or for a namespace that doesn't exist.
    NoNamespace = "no-such-namespace",
    /// What leads in through a controller names a service, port or pods that aren't there, or may not be used.
    NoBackend = "no-backend",
    /// A route to a gateway that doesn't take it, or isn't known.
    NotAttached = "not-attached",
    /// More pods than addresses.
    NoAddress = "no-address",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What sort of thing it is.
    pub code: Code,
    /// In words, without position, object and path.
    pub message: String,
    /// The file, line and column; line and column are 0 where it concerns a whole file.
    pub origin: Option<Origin>,
    /// The bytes of the file that it is about.
    pub span: Option<Range<u32>>,
    /// The field, such as `spec.ingress[0].from[1]`.
    pub path: Option<String>,
    /// The object, such as `NetworkPolicy shop/allow-web`.
    pub object: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// The line to show. Only the first thousand diagnostics of a load keep them, so memory stays bounded.
    pub excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// A finding that has no place (yet).
    pub fn new(severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            origin: None,
            span: None,
            path: None,
            object: None,
            help: None,
            excerpt: None,
        }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Object, field and message in one line, as the API server words it.
    #[must_use]
    pub fn headline(&self) -> String {
        let parts = [self.object.as_deref(), self.path.as_deref(), Some(&*self.message)];
        parts.into_iter().flatten().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// `file:line:column`, or the file alone.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        let s = self.origin.as_ref()?;
        Some(if s.line == 0 { s.file.to_string() } else { format!("{}:{}:{}", s.file, s.line, s.column) })
    }
}

impl fmt::Display for Diagnostic {
    /// `policies.yaml:7:11: error: NetworkPolicy shop/p: spec.podSelector: …`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location() {
            write!(f, "{}: ", printable(&location))?;
        }
        write!(f, "{}: {}", self.severity, printable(&self.headline()))
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Diagnostic", 10)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("code", self.code.as_str())?;
        out.serialize_field("message", &self.message)?;
        let origin = self.origin.as_ref();
        out.serialize_field("file", &origin.map(|s| &*s.file))?;
        out.serialize_field("line", &origin.map(|s| s.line).filter(|&l| l > 0))?;
        out.serialize_field("column", &origin.map(|s| s.column).filter(|&c| c > 0))?;
        out.serialize_field("span", &self.span.as_ref().map(|s| [s.start, s.end]))?;
        out.serialize_field("path", &self.path)?;
        out.serialize_field("object", &self.object)?;
        out.serialize_field("help", &self.help)?;
        out.end()
    }
}
