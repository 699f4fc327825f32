//! Learned names on their way to the kernel.

use std::sync::Arc;

use palisade_manifest::{Code, Diagnostic};
use palisade_nft::{Kernel, dns_table};
use palisade_policy::Change;

use super::{Inbox, Worker};
use crate::{
    config::{Config, DnsFail, DomainNames, SourceChoice},
    error_chain,
    metrics::ResultLabel,
    names::{LearnedAnswer, Names, NamesSettings},
};

/// Returns `None` if `domain-names` is off, and removes the table of an agent that had it on: no program reads its queue any more, so
/// the kernel would drop its packets.
pub(super) fn wanted(config: &Config, inbox: &Arc<Inbox>) -> Option<Names> {
    if config.domain_names == DomainNames::Off {
        if let Err(error) = Kernel::open().and_then(|mut kernel| dns_table::remove(&mut kernel)) {
            let err = error_chain::with_causes(&error);
            tracing::error!(
                err,
                "cannot remove table inet palisade_dns, DNS of pods with rules by name may fail"
            );
        }
        return None;
    }
    let settings = NamesSettings {
        resolvers: config.dns_resolver.0.iter().map(|server| server.0).collect(),
        is_open: config.dns_fail == DnsFail::Open,
        // A directory is read at once.
        awaits_services: matches!(config.source, SourceChoice::Api),
        allowed: config.dns_allow.0.iter().copied().collect(),
        state_dir: config.state_dir.clone(),
    };
    Some(Names::new(&settings, Arc::<Inbox>::clone(inbox)))
}

/// Whether a finding is that domain names match nothing: it is made for readers of manifests, which know no addresses of names. This agent does.
pub(super) fn is_solved(finding: &Diagnostic) -> bool {
    finding.code == Code::NotEnforced
        && finding.path.as_deref().is_some_and(|path| path.ends_with(".domainNames"))
}

impl Worker {
    /// Commits what was learned, in one transaction, and then releases the answers that wait for it.
    pub(super) fn apply_learned(&mut self, learned: &[LearnedAnswer]) {
        let changes: Vec<Change> = learned.iter().flat_map(|answer| answer.changes.iter().cloned()).collect();
        if !changes.is_empty() {
            let report = self.agent.apply(changes);
            self.apply_report(report, None);
        }
        let is_current = self.holds_plan();
        if let Some(names) = &mut self.names {
            names.release(learned, is_current);
        }
    }

    /// Whether the kernel holds the plan.
    fn holds_plan(&self) -> bool {
        let reconciler = self.agent.reconciler();
        !reconciler.is_waiting() && !reconciler.is_behind() && self.repairs.failure().is_none()
    }

    /// Follows changes that were applied; `None` for a snapshot.
    pub(super) fn follow_names(&mut self, changes: Option<&[Change]>) {
        if let Some(names) = &mut self.names {
            names.follow(changes, self.agent.reconciler());
        }
    }

    /// Whether Services are known after these states of watches, and what came with them. Those that are known stay so if their watch fails.
    pub(super) fn follow_watch_of_services(&mut self, is_watched: bool) {
        if let Some(names) = self.names.as_mut().filter(|_| is_watched) {
            names.know_services(self.agent.reconciler());
        }
    }

    /// Programs which pods' DNS messages are handed over, and updates the metrics.
    pub(super) fn keep_names(&mut self) {
        let (is_current, is_waiting) = (self.holds_plan(), self.agent.reconciler().is_waiting());
        let Some(names) = &mut self.names else { return };
        names.set_current(is_current);
        if is_waiting {
            return;
        }
        if let Some(err) = names.tick(self.agent.reconciler()) {
            tracing::error!(
                err,
                "cannot read DNS answers, retrying; rules with domain names match what was learned before"
            );
            self.errors.record("dns", err);
        }
        let (counts, (known, addresses)) = names.take_counts();
        for (result, count) in [
            ("passed", counts.passed),
            ("learned", counts.learned),
            ("dropped", counts.dropped),
            ("reset", counts.reset),
            ("over_share", counts.over_share),
        ] {
            self.metrics.dns_messages.get_or_create(&ResultLabel { result }).inc_by(count);
        }
        self.metrics.learned_names.set(i64::try_from(known).unwrap_or(i64::MAX));
        self.metrics.learned_addresses.set(i64::try_from(addresses).unwrap_or(i64::MAX));
    }

    /// Saves the names at the end.
    pub(super) fn save_names(&self) {
        if let Some(names) = &self.names {
            names.save();
        }
    }
}
