//! The options of `--probe`. Every build has them, so that one without a Kubernetes client can say why it can't probe.

use std::time::Duration;

use clap::Args;

use crate::cluster;

const HEADING: &str = "Probe options";

/// The options of `--probe`.
#[derive(Debug, Args)]
pub(super) struct ProbeArguments {
    /// Also try the connections between pods of the cluster, by a container that is added to one pod of each kind and ends by
    /// itself; its record stays until the pod is replaced
    #[arg(long, conflicts_with_all = ["lab", "watch", "init", "schema"], help_heading = HEADING)]
    pub(super) probe: bool,
    /// The image of these containers, with /usr/local/bin/palisade [default: that of Palisade's agents]
    #[arg(long, value_name = "IMAGE", requires = "probe", help_heading = HEADING)]
    pub(super) probe_image: Option<String>,
    /// Add containers to pods of this namespace only; may be repeated [default: wherever an assertion has sources]
    #[arg(long, value_name = "NAME", requires = "probe", help_heading = HEADING)]
    pub(super) probe_namespace: Vec<String>,
    /// How long a container may take from its start to its end
    #[arg(long, value_name = "TIME", requires = "probe", default_value = "90s", value_parser = cluster::time, help_heading = HEADING)]
    pub(super) probe_timeout: Duration,
}
