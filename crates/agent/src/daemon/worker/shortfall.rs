//! Logs, counts and reports pods whose policies the kernel rejected.

use std::{net::IpAddr, time::Instant};

use palisade_policy::Direction;

use super::Worker;
use crate::{Report, daemon::shortfall::Transition, error_chain};

impl Worker {
    /// Updates which pods are cut off or not enforced. `rejections`: how many of the report's errors are rejections of the plan.
    pub(super) fn update_shortfall(&mut self, report: &mut Report, rejections: usize) {
        if let Some(error) = report.errors.iter().take(rejections).next_back() {
            self.shortfall.rejection = Some(error_chain::with_causes(error));
        }
        if !self.agent.reconciler().is_behind() {
            self.shortfall.rejection = None;
        }
        match self.shortfall.update(report) {
            Transition::Unchanged => {}
            Transition::Changed => self.log_shortfall(),
            Transition::Ended => tracing::info!("policies of all pods are enforced again"),
        }
        for direction in Direction::BOTH {
            let count =
                |of: &[(Direction, IpAddr)]| of.iter().filter(|(d, _)| *d == direction).count() as i64;
            let metrics = &self.metrics;
            metrics.cut_off_pods.get_or_create(&direction.into()).set(count(&self.shortfall.cut_off));
            metrics
                .not_enforced_pods
                .get_or_create(&direction.into())
                .set(count(&self.shortfall.not_enforced));
        }
        self.report_programmed();
    }

    pub(super) fn log_shortfall(&mut self) {
        self.shortfall.log(self.agent.reconciler());
        self.reminded = Instant::now();
    }

    /// Reports to the cluster whether the kernel holds everything that it was given. Must be called when that may have changed,
    /// and after findings about policies were reported.
    pub(super) fn report_programmed(&self) {
        let Some(reporter) = self.reporter.get() else { return };
        let reconciler = self.agent.reconciler();
        if reconciler.is_waiting() {
            return;
        }
        let rejection = || self.shortfall.rejection.clone().unwrap_or_default();
        match self.shortfall.not_enforced.len() {
            0 if reconciler.is_behind() => reporter.programmed(Err(rejection())),
            0 => reporter.programmed(Ok(())),
            addresses => {
                let why = rejection();
                reporter
                    .not_enforced(format!("policies of {addresses} pod addresses are NOT ENFORCED: {why}"));
            }
        }
    }
}
