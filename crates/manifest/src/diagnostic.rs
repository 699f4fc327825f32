//! Findings about the input, as data. [`crate::render()`] turns them into text.

use std::{fmt, ops::Range};

use palisade_policy::Origin;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{printable::printable, text::Excerpt, unrendered};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object, document or file is left out.
    Error,
    /// The object is used, but is probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Error { "error" } else { "warning" })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The category of a finding. The names are stable, so that scripts can match on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name, such as `duplicate-key`.
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
    /// A file, a document, or a number of pods exceeds its limit.
    TooLarge = "too-large",
    /// A document is not YAML.
    Syntax = "syntax",
    /// A mapping has the same key twice, of which the last is used.
    DuplicateKey = "duplicate-key",
    /// Text follows the end of a document and is ignored.
    AfterEnd = "after-end",
    /// An alias contains itself, or the aliases of a document expand to too many values.
    Alias = "alias",
    /// A kustomization or a Helm chart has to be rendered first.
    NotRendered = "not-rendered",
    /// An object is encrypted.
    Encrypted = "encrypted",
    /// A document is not a Kubernetes object.
    NotAnObject = "not-an-object",
    /// The API server doesn't serve this version of a known kind.
    UnknownVersion = "unknown-version",
    /// A field is not in the API.
    UnknownField = "unknown-field",
    /// A value has the wrong type.
    WrongType = "wrong-type",
    /// The API server rejects a value.
    Invalid = "invalid-value",
    /// A required field is missing.
    Required = "required",
    /// Fields exclude each other.
    Forbidden = "forbidden",
    /// The API server accepts a value that can be misunderstood.
    Ambiguous = "ambiguous-value",
    /// An object is defined twice.
    DuplicateObject = "duplicate-object",
    /// Two running pods report the same address.
    DuplicateAddress = "duplicate-address",
    /// A policy of this kind is not evaluated.
    NotEvaluated = "not-evaluated",
    /// A cluster-wide policy has something unusable that the API server admits. The rule fails closed, or the policy
    /// selects nothing.
    Unusable = "unusable",
    /// This version doesn't enforce a valid field. What it would match isn't matched.
    NotEnforced = "not-enforced",
    /// Cluster-wide policies of the same tier have the same priority, and may select the same pods.
    EqualPriority = "equal-priority",
    /// The cluster has both AdminNetworkPolicies and ClusterNetworkPolicies.
    MixedApis = "mixed-apis",
    /// A policy is in, or refers to, a namespace that doesn't exist. In manifests, one whose name is nearly that of another counts.
    NoNamespace = "no-such-namespace",
    /// A route refers to a service, port or pods that don't exist, or that it may not use.
    NoBackend = "no-backend",
    /// A route refers to a gateway that doesn't accept it or isn't known.
    NotAttached = "not-attached",
    /// An address range is too small.
    NoAddress = "no-address",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A finding about the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How severe it is.
    pub severity: Severity,
    /// Its category.
    pub code: Code,
    /// The text, without position, object and path.
    pub message: String,
    /// The file, line and column. Line and column are 0 if it is about a whole file.
    pub origin: Option<Origin>,
    /// The bytes of the file that it is about.
    pub span: Option<Range<u32>>,
    /// The field, such as `spec.ingress[0].from[1]`.
    pub path: Option<String>,
    /// The object, such as `NetworkPolicy shop/allow-web`.
    pub object: Option<String>,
    /// How to correct it.
    pub help: Option<String>,
    /// The line of the file. Only the first thousand diagnostics of a load keep it, which bounds memory.
    pub excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// Makes a finding without position.
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

    /// Adds how to correct it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns object, field and message in one line, as the API server formats them.
    #[must_use]
    pub fn headline(&self) -> String {
        let parts = [self.object.as_deref(), self.path.as_deref(), Some(&*self.message)];
        parts.into_iter().flatten().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// Returns whether what was read is not what would be applied: it has to be rendered, decrypted, merged or fetched first.
    #[must_use]
    pub fn is_unrendered(&self) -> bool {
        let marked = || self.help.as_deref().is_some_and(unrendered::begins_with_marker);
        self.severity == Severity::Error
            && (matches!(self.code, Code::NotRendered | Code::Encrypted) || marked())
    }

    /// Returns `file:line:column`, or only the file.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        let s = self.origin.as_ref()?;
        Some(if s.line == 0 { s.file.to_string() } else { format!("{}:{}:{}", s.file, s.line, s.column) })
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `policies.yaml:7:11: error: NetworkPolicy shop/p: spec.podSelector: …`
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
