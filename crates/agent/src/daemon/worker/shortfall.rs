//! What is said of pods whose policies the kernel did not take: that they are cut off, or that nothing is enforced.

use std::{net::IpAddr, time::Instant};

use palisade_policy::Direction;

use super::Worker;
use crate::{Report, words};

type Addresses = Vec<(Direction, IpAddr)>;

/// What the kernel holds in the place of the plan, as it was last told.
#[derive(Debug, Default)]
pub(super) struct Shortfall {
    pub(super) cut_off: Addresses,
    pub(super) not_enforced: Addresses,
    /// Why the kernel refuses the plan; none while it holds it.
    refusal: Option<String>,
}

impl Worker {
    /// Takes in what a report says of the kernel. `refused`: how many of its errors are refusals.
    pub(super) fn settle_shortfall(&mut self, report: &mut Report, refused: usize) {
        let is_behind = self.agent.reconciler().is_behind();
        if let Some(error) = report.errors.iter().take(refused).next_back() {
            self.shortfall.refusal = Some(words::with_causes(error));
        }
        if !is_behind {
            self.shortfall.refusal = None;
        }
        let cut_off = std::mem::take(&mut report.cut_off);
        let not_enforced = std::mem::take(&mut report.not_enforced);
        let is_news = (&cut_off, &not_enforced) != (&self.shortfall.cut_off, &self.shortfall.not_enforced);
        let was_short = self.is_short();
        (self.shortfall.cut_off, self.shortfall.not_enforced) = (cut_off, not_enforced);
        if is_news && self.is_short() {
            self.name_shortfall();
        } else if was_short && !self.is_short() {
            tracing::info!("no pod is cut off any more, and every policy is enforced");
        }
        for direction in Direction::BOTH {
            let count = |of: &Addresses| of.iter().filter(|(d, _)| *d == direction).count() as i64;
            let metrics = &self.metrics;
            metrics.cut_off_pods.get_or_create(&direction.into()).set(count(&self.shortfall.cut_off));
            metrics
                .not_enforced_pods
                .get_or_create(&direction.into())
                .set(count(&self.shortfall.not_enforced));
        }
        self.tell_programmed();
    }

    /// Whether a pod has not what its policies say.
    pub(super) fn is_short(&self) -> bool {
        !self.shortfall.cut_off.is_empty() || !self.shortfall.not_enforced.is_empty()
    }

    /// Names the pods, the worst last.
    pub(super) fn name_shortfall(&mut self) {
        const NAMED: usize = 20;
        let Shortfall { cut_off, not_enforced, .. } = &self.shortfall;
        for (direction, address) in cut_off.iter().take(NAMED) {
            let pod = self.agent.reconciler().endpoint(*address);
            tracing::error!(%direction, %pod, "the pod is cut off: the kernel refused its policies");
        }
        for (direction, address) in not_enforced.iter().take(NAMED) {
            let pod = self.agent.reconciler().endpoint(*address);
            tracing::error!(
                %direction,
                %pod,
                "NOT ENFORCED: the kernel refused the pod's policies, and refused to cut it off"
            );
        }
        for (what, of) in [("cut off", cut_off), ("not enforced", not_enforced)] {
            if of.len() > NAMED {
                tracing::error!(what, more = of.len() - NAMED, "and so are more pods");
            }
        }
        self.reminded = Instant::now();
    }

    /// Tells the cluster whether the kernel has taken everything that it was given so far. To be called when that may have
    /// changed, and after findings about policies were handed on.
    pub(super) fn tell_programmed(&self) {
        let Some(reporter) = self.reporter.get() else { return };
        let reconciler = self.agent.reconciler();
        if reconciler.is_waiting() {
            return;
        }
        let refusal = || self.shortfall.refusal.clone().unwrap_or_default();
        match self.shortfall.not_enforced.len() {
            0 if reconciler.is_behind() => reporter.programmed(Err(refusal())),
            0 => reporter.programmed(Ok(())),
            pods => {
                let why = refusal();
                reporter.not_enforced(format!("policies of {pods} pod addresses are NOT ENFORCED: {why}"));
            }
        }
    }

    /// Why the agent isn't ready though it has seen the whole cluster.
    pub(super) fn refused_words(&self) -> String {
        let (cut, open) = (self.shortfall.cut_off.len(), self.shortfall.not_enforced.len());
        let mut words = "the kernel refuses the plan".to_owned();
        if open > 0 {
            words += &format!("; the policies of {open} pod addresses are NOT ENFORCED");
        }
        if cut > 0 {
            words += &format!("; {cut} pod addresses are cut off");
        }
        if open + cut == 0 {
            words += "; what it holds allows no more than the policies do";
        }
        words
    }
}
