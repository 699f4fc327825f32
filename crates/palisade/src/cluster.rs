//! Selects a cluster, and reports kinds that could not be read.

#[cfg(feature = "live")]
mod reading;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use palisade_api::{ClusterSnapshot, Missing, NeededFor};
use serde::Serialize;

use crate::{
    connection_ends,
    output::{self, Style, styled},
};

/// The heading of the cluster's options in the help.
pub(crate) const HEADING: &str = "Cluster options";

/// The options that select a cluster.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ClusterArguments {
    /// The kubeconfig context to use [default: the current one]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub(crate) context: Option<String>,
    /// The kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Timeout of a single request to the API server
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, help_heading = HEADING)]
    pub(crate) request_timeout: Duration,
    /// Accept an incomplete answer if some kinds or, with --keep-going, documents could not be read
    #[arg(long, help_heading = HEADING)]
    pub(crate) allow_incomplete: bool,
}

/// Parses a duration: `30`, `30s`, `500ms`, `2m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("invalid duration `{text}`; use 30s, 500ms or 2m");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = match unit {
        "" | "s" => Duration::from_secs(number),
        "ms" => Duration::from_millis(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(wrong()),
    };
    if time.is_zero() { Err("the timeout must be greater than zero".to_owned()) } else { Ok(time) }
}

impl ClusterArguments {
    /// Whether the user selected a cluster.
    pub(crate) fn is_named(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }

    /// Reads the cluster. `namespace` is read if the user may not list all. `or` is what to do instead if no cluster is
    /// configured.
    ///
    /// # Errors
    /// When no cluster is configured, or it can't be reached.
    #[cfg(feature = "live")]
    pub(crate) fn read(&self, namespace: Option<&str>, or: &str) -> Result<ClusterSnapshot> {
        reading::read(self, namespace, or)
    }

    /// A build without a client can't read a cluster.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "live"))]
    #[expect(clippy::unused_self, reason = "the signature is that of a build with a client")]
    pub(crate) fn read(&self, _namespace: Option<&str>, or: &str) -> Result<ClusterSnapshot> {
        Err(crate::left_out::no_client(or))
    }
}

/// The kinds that an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Those that affect verdicts.
    Verdicts,
    /// Those that affect any connection, including connections from outside the cluster.
    Everything,
}

impl Need {
    fn needs(self, missing: &Missing) -> bool {
        match missing.kind.needed_for() {
            NeededFor::Verdicts => true,
            NeededFor::ExternalTraffic => self == Self::Everything,
            NeededFor::WorkloadNames => false,
        }
    }
}

/// Returns the kinds of `missing` without which the answer may be wrong.
pub(crate) fn needed(missing: &[Missing], need: Need) -> Vec<Missing> {
    missing.iter().filter(|m| need.needs(m)).cloned().collect()
}

/// Reports the kinds that could not be read, and the consequence.
pub(crate) fn warn(missing: &[Missing], need: Need) {
    let names = |m: &&Missing| m.kind.needed_for() == NeededFor::WorkloadNames;
    for missing in missing.iter().filter(|m| need.needs(m) || names(m)) {
        let heading = if need.needs(missing) {
            styled(Style::Bad, "incomplete:")
        } else {
            styled(Style::Strong, "note:")
        };
        let Missing { kind, error, only_in } = missing;
        let except = match &only_in[..] {
            [] => String::new(),
            some => format!(" except in {}", connection_ends::abbreviated(some, Clone::clone)),
        };
        output::note(&format!(
            "{heading} {} could not be read{except}: {}.\n  {}\n",
            kind.plural(),
            kind.if_missing(),
            error.with_advice()
        ));
    }
}

/// A kind that could not be read, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonMissing<'a> {
    pub(crate) kind: &'a str,
    pub(crate) resource: &'static str,
    pub(crate) group: &'static str,
    pub(crate) why: String,
    pub(crate) means: &'a str,
    /// The namespaces in which it could be read.
    pub(crate) only_in: &'a [String],
}

impl<'a> From<&'a Missing> for JsonMissing<'a> {
    fn from(missing: &'a Missing) -> Self {
        let Missing { kind, error, only_in } = missing;
        Self {
            kind: kind.as_str(),
            resource: kind.plural(),
            group: kind.group(),
            why: error.with_advice(),
            means: kind.if_missing(),
            only_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "0", "1h30m", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
