//! The outcome of an input: logged, counted and reported.

use std::time::Instant;

use super::Worker;
use crate::{Report, error_chain, metrics::ResultLabel};

impl Worker {
    /// Logs, counts and reports the outcome of an input.
    pub(super) fn apply_report(&mut self, mut report: Report, received: Option<Instant>) {
        self.review_due = report.review_due;
        let metrics = &self.metrics;
        if !report.compile.is_zero() && received.is_some() {
            metrics.compile_duration.observe(report.compile.as_secs_f64());
        }
        let rejections = report.errors.len() - usize::from(report.review_failed);
        if !report.commits.is_empty() || rejections > 0 {
            metrics.transaction_duration.observe(report.commit.as_secs_f64());
        }
        if let (Some(received), Some(committed), 0) = (received, report.committed, rejections) {
            metrics.apply_latency.observe(committed.saturating_duration_since(received).as_secs_f64());
        }
        if !report.review.is_zero() {
            metrics.review_duration.observe(report.review.as_secs_f64());
        }
        for commit in &report.commits {
            metrics.commits.get_or_create(&ResultLabel { result: "ok" }).inc();
            self.generation = commit.generation;
            tracing::debug!(
                generation = commit.generation,
                transactions = commit.transactions,
                elements = commit.elements,
                duration_us = report.commit.as_micros() as u64,
                "programmed a change"
            );
        }
        metrics.generation.set(i64::try_from(self.generation).unwrap_or(i64::MAX));
        metrics.connections_revoked.inc_by(report.revoked as u64);
        metrics.connections_restored.inc_by(report.restored as u64);
        if report.revoked > 0 || report.restored > 0 {
            tracing::info!(
                revoked = report.revoked,
                restored = report.restored,
                "re-evaluated established connections"
            );
        }
        if report.not_remembered > 0 {
            let connections = report.not_remembered;
            tracing::warn!(
                connections,
                "too many revoked connections, these are dropped only while connection tracking keeps their entries"
            );
            self.errors
                .record("connections", format!("{connections} revoked connections are not remembered"));
        }
        metrics.commits.get_or_create(&ResultLabel { result: "refused" }).inc_by(rejections as u64);
        for (index, error) in report.errors.iter().enumerate() {
            let err = error_chain::with_causes(error);
            if index < rejections {
                tracing::error!(err, "programming the kernel failed");
                self.errors.record("commit", err);
            } else if self.reviews.failed(&err, Instant::now()) {
                tracing::error!(err, "re-evaluating established connections failed, retrying");
                self.errors.record("connections", err);
            }
        }
        if report.review_succeeded && self.reviews.succeeded() {
            tracing::info!("re-evaluating established connections works again");
        }
        self.update_shortfall(&mut report, rejections);
        let (reconciler, reporter) = (self.agent.reconciler(), self.reporter.get());
        self.over_budget.update(&self.node, reconciler, &self.metrics, reporter, &mut self.errors);
        self.refused_sources.update(&self.node, reconciler, &self.metrics, reporter, &mut self.errors);
    }
}
