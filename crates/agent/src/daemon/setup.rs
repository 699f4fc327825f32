//! What the daemon and the one-shot commands open: lock, data plane, runtime, watches.

use std::{sync::Arc, time::Duration};

use palisade_api::{Client, Event, WatchOptions, watch};
use palisade_nft::EnforcerOptions;
use tokio::{runtime::Runtime, sync::mpsc};

use super::error::DaemonError;
use crate::{
    DataPlaneError, NftDataPlane,
    config::{Config, DomainNames, EgressToOwnNode, Flows, SourceCheck},
    flow_file::{FlowFile, FlowFileOptions},
    flows::FlowStore,
    lock::{Lock, LockError},
    metrics::Metrics,
    otlp::{Otlp, OtlpSettings},
};

/// Watches the API server with the configured credentials. `services`: whether Services are watched too.
pub(super) fn watch_cluster(client: Client, config: &Config, services: bool) -> mpsc::Receiver<Event> {
    let access = config.access();
    let service_address = access.service_address();
    watch(client, WatchOptions { service_address, services, access: Some(access), ..WatchOptions::default() })
}

/// Whether the agent needs Services: to know which DNS servers it can trust, or to name the Service of a connection that it records. Policies
/// don't depend on them.
pub(super) fn needs_services(config: &Config) -> bool {
    config.domain_names == DomainNames::On || config.flows != Flows::Drops
}

pub(super) fn runtime() -> Result<Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Start)
}

/// Makes the buffer of records, and starts what writes them to a file or sends them to an endpoint if the settings name one.
pub(super) fn flow_store(
    config: &Config,
    node: &str,
    metrics: Arc<Metrics>,
) -> Result<FlowStore, DaemonError> {
    let start = |options| FlowFile::start(options, Arc::clone(&metrics));
    let file = FlowFileOptions::of(config).map(start).transpose().map_err(DaemonError::Start)?;
    let otlp = match &config.otlp_endpoint {
        Some(endpoint) => {
            let settings = OtlpSettings::new(endpoint, |name| std::env::var(name).ok())?;
            Some(Otlp::start(settings, node, Arc::clone(&metrics))?)
        }
        None => None,
    };
    let capacity = usize::try_from(config.flow_buffer).unwrap_or(usize::MAX);
    Ok(FlowStore::new(capacity, file, metrics).with_otlp(otlp))
}

/// Takes the node's lock, waiting for another agent to end for at most `lock-timeout`.
pub(super) fn take_lock(config: &Config) -> Result<Lock, LockError> {
    let timeout = Duration::from_secs(config.lock_timeout);
    Lock::take(&config.beside_socket("agent.lock"), timeout, |held| {
        tracing::info!(err = %held, timeout_seconds = timeout.as_secs(), "waiting for another agent to stop");
    })
}

pub(super) fn open_plane(config: &Config) -> Result<NftDataPlane, DataPlaneError> {
    NftDataPlane::open_with(enforcer_options(config))
}

/// The data plane's options that follow from the settings.
pub(super) fn enforcer_options(config: &Config) -> EnforcerOptions {
    let defaults = EnforcerOptions::default();
    EnforcerOptions {
        log_group: defaults.log_group.filter(|_| config.log_drops),
        egress_to_own_node: config.egress_to_own_node == EgressToOwnNode::Enforce,
        source_check: match config.source_check {
            SourceCheck::Off => palisade_nft::SourceCheck::Off,
            SourceCheck::Enforce => palisade_nft::SourceCheck::Enforce,
            SourceCheck::Strict => palisade_nft::SourceCheck::Strict,
        },
        allowed_sources: config.allow_source.0.clone(),
        reverse_route: defaults.reverse_route,
        early_reverse_route: defaults.early_reverse_route,
        refusals: defaults.refusals,
    }
}
