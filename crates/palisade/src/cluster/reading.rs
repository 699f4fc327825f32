//! Reads a cluster over the API, and shows on a terminal how far it is.

use std::{
    cell::Cell,
    collections::BTreeSet,
    io::{self, IsTerminal as _, Write as _},
};

use anyhow::{Result, bail};
use palisade_api::{
    Access, AccessError, ClusterSnapshot, ReadOptions, ResourceKind,
    read::{self, ReadError},
    read_blocking,
};

use super::{ClusterArguments, Need, warn};
use crate::{connection_ends, output};

/// As [`ClusterArguments::read`].
pub(super) fn read(
    arguments: &ClusterArguments,
    namespace: Option<&str>,
    or: &str,
) -> Result<ClusterSnapshot> {
    let access = Access {
        kubeconfig: arguments.kubeconfig.clone(),
        context: arguments.context.clone(),
        timeout: Some(arguments.request_timeout),
    };
    let line = ProgressLine::default();
    let report = |read: usize, open: &BTreeSet<ResourceKind>| line.show(read, open);
    let report: &read::Progress<'_> = &report;
    let progress = io::stderr().is_terminal().then_some(report);
    let read = read_blocking(&access, ReadOptions { namespace, progress });
    line.clear();
    let live = read.map_err(|error| match error {
        ReadError::Access(AccessError::NoCluster { .. }) => anyhow::anyhow!("{error}; {or}"),
        error => error.into(),
    })?;
    if live.objects.is_empty() {
        warn(&live.missing, Need::Everything);
        bail!(
            "nothing could be read from {}: you need permission to list pods, namespaces and policies, at least in your own \
             namespace (-n); the ClusterRole palisade-explainer grants it",
            live.server
        );
    }
    Ok(live)
}

/// A progress line on a terminal.
#[derive(Default)]
struct ProgressLine {
    shown: Cell<bool>,
}

impl ProgressLine {
    fn show(&self, read: usize, open: &BTreeSet<ResourceKind>) {
        let open: Vec<&str> = open.iter().map(|kind| kind.as_str()).collect();
        let width = output::width().saturating_sub(1);
        let text = format!(
            "{read} objects read; waiting for {}",
            connection_ends::abbreviated(&open, ToString::to_string)
        );
        let text: String = text.chars().take(width).collect();
        _ = write!(io::stderr(), "\r\x1b[K{text}");
        self.shown.set(true);
    }

    fn clear(&self) {
        if self.shown.get() {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
