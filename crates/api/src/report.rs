//! Reports back to the cluster: Events, and the conditions of cluster-wide policies.
//!
//! ```text
//!  agent                                                            API server
//!  ─────                                                            ──────────
//!  Event::Findings ──▶ ┌──────────┐     ┌─────────────┐   Lease   ┌──────────────────────────┐
//!  kernel accepted,    │ Reporter │     │ writer      │◀─────────▶│ palisade-status-writer   │
//!  refused, unknown ──▶│          │     │ each 250 ms │           │ (Election: one leader)   │
//!  over budget ──────▶ └────┬─────┘     └──┬───────▲──┘           └──────────────────────────┘
//!                           ▼              │       │
//!                      ┌───────────────────┴───────┴──┐  leader   ┌──────────────────────────┐
//!                      │ ReportQueue                  │──────────▶│ conditions of policies   │
//!                      │ findings, enforcement,       │           └──────────────────────────┘
//!                      │ EventLog (repeats, rate)     │  everyone ┌──────────────────────────┐
//!                      │                              │──────────▶│ Events                   │
//!                      └──────────────────────────────┘           └──────────────────────────┘
//! ```
//!
//! The queue and the election only decide; the writer sends the requests.

use std::sync::Arc;

use kube::Client;

mod conditions;
mod election;
mod event_log;
mod options;
mod queue;
mod reporter;
mod writer;

use crate::client::ClientPool;
pub use options::ReportOptions;
pub use reporter::Reporter;

/// Starts reporting, on the current tokio runtime.
///
/// * Each agent reports the problems of its node: as an Event about the Node if the kernel refuses a transaction or does not enforce
///   policies, and as Events about policies that exceed the node's budget.
/// * All agents see problems with objects. One of them, elected by the Lease `palisade-status-writer`, reports them as Events about the
///   objects, and writes the conditions `palisade.dev/Accepted` and `palisade.dev/Programmed` of cluster-wide policies if they
///   differ, with the generation that they are about. `Programmed` describes the leader's node; the other agents report an Event
///   if it does not hold for theirs.
/// * Events are reported by `palisade.dev/agent`. Each problem is one Event whose count increases; at most 25 are sent at once, and then
///   one in ten seconds.
///
/// The rights that it needs: `create` and `patch` on `events.events.k8s.io`; `get` and `patch` on the `status` of
/// `clusternetworkpolicies`, `adminnetworkpolicies` and `baselineadminnetworkpolicies` in `policy.networking.k8s.io`; in its own
/// namespace `create` on `leases.coordination.k8s.io`, and `get` and `update` on the Lease `palisade-status-writer`. A missing
/// right is logged once and affects only that kind of report.
#[must_use]
pub fn report(client: Client, options: ReportOptions) -> Reporter {
    let reporter = Reporter::new(Arc::clone(&options.node), options.max_event_delay);
    let clients = ClientPool::new(client, options.access.clone());
    tokio::spawn(writer::run(clients, options, Arc::downgrade(reporter.shared())));
    reporter
}
