//! Enforces a plan in the kernel.

use std::time::Instant;

use nix::libc::{ENOENT, EOPNOTSUPP};
use palisade_policy::{Delta, NodePlan};

use crate::{
    EnforcerOptions, Error, Kernel, NodeLinks,
    base_sets::BaseSets,
    closed_node, cut_off,
    encode::encode,
    features::{Feature, Features},
    new_pods,
    next_plan::NextPlan,
    program::Program,
    reader::Ruleset,
    reconcile::{Commit, ExistingTable, Inputs, Method, Reconciled, name_owner, reconcile, report},
    restart,
    revoked_tuples::RevokedTuples,
    ruleset::{Message, TABLE},
    send::{Generation, send},
    stand_in,
    verify::{Verification, verify_program},
};

/// Keeps the kernel's tables equal to a plan.
#[derive(Debug)]
pub struct Enforcer {
    pub(crate) kernel: Kernel,
    plan: NodePlan,
    pub(crate) program: Program,
    pub(crate) generation: Generation,
    /// The links that were requested. The program leaves out what the kernel doesn't support.
    requested_links: NodeLinks,
    features: Features,
    /// Whether the kernel may differ from `plan`.
    pub(crate) needs_repair: bool,
    existing_table: ExistingTable,
    /// Why no other table stood in while one was replaced.
    no_stand_in: Option<Error>,
}

impl Enforcer {
    /// Takes over the table that a previous run left, or creates it, and changes what differs from `plan`.
    ///
    /// At every moment either the old rules or the new ones are active.
    pub fn start(kernel: Kernel, plan: &NodePlan) -> Result<(Self, Commit), Error> {
        Self::start_with(kernel, EnforcerOptions::default(), plan)
    }

    /// [`Enforcer::start`] with other options.
    pub fn start_with(
        kernel: Kernel,
        options: EnforcerOptions,
        plan: &NodePlan,
    ) -> Result<(Self, Commit), Error> {
        Self::start_in(kernel, options, NodeLinks::default(), plan)
    }

    /// [`Enforcer::start_with`] on a node whose links are known already.
    pub fn start_in(
        mut kernel: Kernel,
        options: EnforcerOptions,
        node_links: NodeLinks,
        plan: &NodePlan,
    ) -> Result<(Self, Commit), Error> {
        let mut features = Features::default();
        let requested_links = node_links;
        let options = features.supported_options(&mut kernel, options)?;
        let node_links = features.supported_links(&mut kernel, &requested_links)?;
        // Before anything is written, because a table that can't be read completely is replaced. If this fails, revoked
        // connections stay revoked until their elements expire.
        let revoked = RevokedTuples::read(&mut kernel, &BaseSets::new()).unwrap_or_default();
        let mut inputs = Inputs { options, node_links, revoked };
        // Linux 5.10 to 5.18 accept the rule in the trial, and refuse a hook behind prerouting that leads to it when the transaction is committed.
        let reconciled = loop {
            match reconcile(&mut kernel, inputs.clone(), plan, Method::Repair) {
                Err(error) if error.os_error() == Some(EOPNOTSUPP) => {
                    inputs.options = features.without_refused_route(&inputs.options).ok_or(error)?;
                }
                done => break done?,
            }
        };
        let Reconciled { program, generation, commit, existing_table, no_stand_in } = reconciled;
        let (plan, needs_repair) = (plan.clone(), false);
        let enforcer = Self {
            kernel,
            plan,
            program,
            generation,
            requested_links,
            features,
            needs_repair,
            existing_table,
            no_stand_in,
        };
        Ok((enforcer, commit))
    }

    /// Changes the kernel from the programmed plan to the plan after `delta`.
    ///
    /// On an error, the kernel and [`Enforcer::programmed`] are unchanged, with the exception of
    /// [`Error::RollbackFailed`].
    pub fn commit(&mut self, delta: &Delta) -> Result<Commit, Error> {
        self.change(delta, None)
    }

    /// As [`Enforcer::commit`], and applies other node links in the same transactions, as for a pod that starts with its interface.
    ///
    /// If the delta changes the nodes, the links are changed before it, in a transaction of their own. Then they stay changed if only the
    /// delta fails.
    pub fn commit_with_links(&mut self, delta: &Delta, node_links: &NodeLinks) -> Result<Commit, Error> {
        if *node_links == self.requested_links {
            return self.change(delta, None);
        }
        if delta.nodes.is_empty() {
            return self.change(delta, Some(node_links));
        }
        let links = self.set_node_links(node_links)?;
        let plan = self.change(delta, None)?;
        Ok(Commit {
            messages: links.messages + plan.messages,
            elements: links.elements + plan.elements,
            bytes: links.bytes + plan.bytes,
            transactions: links.transactions + plan.transactions,
            generation: plan.generation,
            duration: links.duration + plan.duration,
        })
    }

    fn change(&mut self, delta: &Delta, node_links: Option<&NodeLinks>) -> Result<Commit, Error> {
        if self.needs_repair {
            self.repair()?;
        }
        let start = Instant::now();
        let supported =
            node_links.map(|links| self.features.supported_links(&mut self.kernel, links)).transpose()?;
        let (mut phases, undo) = self.program.change(&self.plan, delta)?;
        if let Some(supported) = &supported {
            let next = NextPlan { plan: &self.plan, delta };
            self.program.add_links(&next, supported, &mut phases);
        }
        let (sent, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        match outcome {
            Ok(()) => {
                self.plan.apply(delta);
                if let (Some(supported), Some(requested)) = (supported, node_links) {
                    self.program.node_links = supported;
                    self.requested_links = requested.clone();
                }
                Ok(report(sent, &self.generation, start.elapsed()))
            }
            Err(cause) => {
                self.program.undo(undo);
                let cause = name_owner(&mut self.kernel, TABLE, cause);
                Err(self.roll_back(cause, sent.transactions))
            }
        }
    }

    /// Applies other node links. On an error, the kernel and [`Enforcer::node_links`] are unchanged, as with
    /// [`Enforcer::commit`].
    pub fn set_node_links(&mut self, node_links: &NodeLinks) -> Result<Commit, Error> {
        if self.needs_repair {
            self.repair()?;
        }
        let start = Instant::now();
        let supported = self.features.supported_links(&mut self.kernel, node_links)?;
        let phases = self.program.change_links(&self.plan, &supported);
        let (sent, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        match outcome {
            Ok(()) => {
                self.program.node_links = supported;
                self.requested_links = node_links.clone();
                Ok(report(sent, &self.generation, start.elapsed()))
            }
            Err(cause) => {
                let cause = name_owner(&mut self.kernel, TABLE, cause);
                Err(self.roll_back(cause, sent.transactions))
            }
        }
    }

    /// Returns the node links that were set last.
    #[must_use]
    pub fn node_links(&self) -> &NodeLinks {
        &self.requested_links
    }

    /// Returns the features that are needed but that this kernel lacks. Enforcement works without them.
    pub fn missing_features(&self) -> impl Iterator<Item = Feature> {
        self.features.missing()
    }

    /// Reads the kernel and repairs differences from the programmed plan, whichever program caused them.
    ///
    /// A table that changes each time that it is read is replaced.
    ///
    /// # Errors
    /// What the kernel refuses, and [`Error::Owned`] if the table belongs to another program.
    pub fn repair(&mut self) -> Result<Commit, Error> {
        self.restore_table(Method::Repair)
    }

    /// Replaces the table without reading it, usually in one transaction: for a table that is known to be deleted.
    /// `O(plan)`.
    ///
    /// # Errors
    /// As [`Enforcer::repair`].
    pub fn recreate(&mut self) -> Result<Commit, Error> {
        self.restore_table(Method::Replace)
    }

    fn inputs(&self) -> Inputs {
        let Program { options, node_links, revoked, .. } = &self.program;
        Inputs { options: options.clone(), node_links: node_links.clone(), revoked: revoked.clone() }
    }

    fn restore_table(&mut self, method: Method) -> Result<Commit, Error> {
        let inputs = self.inputs();
        match reconcile(&mut self.kernel, inputs, &self.plan, method) {
            Ok(reconciled) => Ok(self.accept(reconciled)),
            Err(error) => Err(self.unfinished(error)),
        }
    }

    /// Notes that a change failed which may have taken several transactions.
    fn unfinished(&mut self, error: Error) -> Error {
        // If the table still has the number of the last commit, no transaction of this change succeeded.
        let number = restart::generation(&mut self.kernel);
        self.needs_repair |= number.map_or(true, |number| number != self.generation.current);
        error
    }

    fn accept(&mut self, reconciled: Reconciled) -> Commit {
        self.program = reconciled.program;
        self.generation = reconciled.generation;
        self.needs_repair = false;
        self.no_stand_in = reconciled.no_stand_in;
        reconciled.commit
    }

    /// Reads the kernel's table, and changes what differs from `plan`.
    ///
    /// On an error, [`Enforcer::programmed`] is unchanged, and so is the kernel unless the change took several transactions.
    ///
    /// # Errors
    /// If the kernel can't be read, and what it refuses.
    pub fn reconcile(&mut self, plan: &NodePlan) -> Result<Commit, Error> {
        let inputs = self.inputs();
        match reconcile(&mut self.kernel, inputs, plan, Method::Repair) {
            Ok(reconciled) => {
                self.plan = plan.clone();
                Ok(self.accept(reconciled))
            }
            Err(error) => Err(self.unfinished(error)),
        }
    }

    /// Reads the kernel, and returns the differences from the programmed plan: see [`crate::verify()`]. Changes nothing.
    pub fn verify(&mut self) -> Result<Verification, Error> {
        verify_program(&mut self.kernel, self.program.alike(), &self.plan)
    }

    /// Returns whether the kernel's table has the number that this enforcer wrote last.
    ///
    /// This reads a single number. It misses changes by programs that leave the number alone, which
    /// [`Enforcer::repair`] detects.
    pub fn is_in_sync(&mut self) -> Result<bool, Error> {
        Ok(!self.needs_repair && restart::generation(&mut self.kernel)? == self.generation.current)
    }

    /// Returns the options. A feature that the kernel lacks is off.
    #[must_use]
    pub fn options(&self) -> &EnforcerOptions {
        &self.program.options
    }

    /// Returns the table that was in the kernel when this enforcer started.
    #[must_use]
    pub fn existing_table(&self) -> ExistingTable {
        self.existing_table
    }

    /// Returns why the last start or repair has replaced a table without another one that stood in for it, if it had to: a packet on its way
    /// through the rules at that moment may have passed. Once.
    pub fn take_no_stand_in(&mut self) -> Option<Error> {
        self.no_stand_in.take()
    }

    /// Returns the plan in the kernel.
    #[must_use]
    pub fn programmed(&self) -> &NodePlan {
        &self.plan
    }

    /// Returns how many elements the table's sets and maps hold. An interval counts as one. `O(1)`.
    ///
    /// These are members and ranges of peer sets, the unions and port sets that lookups need, and the dispatch maps.
    #[must_use]
    pub fn elements(&self) -> usize {
        let Program { element_counts, node_links, options, revoked, .. } = &self.program;
        let generation = usize::from(self.generation.current.is_some());
        // Revoked connections have an element per orientation.
        element_counts.total()
            + node_links.count(&self.plan, options.source_check)
            + 2 * revoked.len()
            + self.program.link_elements().len()
            + generation
    }

    /// Returns the connection to the kernel, for [`crate::conntrack`] and [`crate::reader`].
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Removes the table with its content, so that all traffic passes. The next commit creates it again.
    pub fn remove(&mut self) -> Result<(), Error> {
        remove(&mut self.kernel)?;
        self.plan = NodePlan::default();
        self.program = Program::new(self.program.options.clone(), self.program.node_links.clone());
        self.generation.current = None;
        // Makes the next commit create the table.
        self.needs_repair = true;
        Ok(())
    }

    /// Returns to the programmed plan after a failure, if earlier transactions of the same change succeeded.
    pub(crate) fn roll_back(&mut self, cause: Error, transactions: usize) -> Error {
        let is_uncertain = matches!(cause, Error::InvalidReply(_) | Error::Socket { doing: "receiving", .. });
        if transactions == 0 && !is_uncertain {
            return cause;
        }
        self.needs_repair = true;
        match self.repair() {
            Ok(_) => cause,
            Err(repair) => Error::RollbackFailed { cause: Box::new(cause), repair: Box::new(repair) },
        }
    }
}

/// Removes all tables of the agent from the namespace, including those of [`crate::cut_off`], [`crate::new_pods`] and [`crate::close_node`], and
/// those that stood in for others. Returns whether the main table existed.
pub fn remove(kernel: &mut Kernel) -> Result<bool, Error> {
    stand_in::remove(kernel)?;
    cut_off::remove(kernel)?;
    new_pods::remove(kernel)?;
    closed_node::open_node(kernel)?;
    if Ruleset::read_bridge(kernel)?.is_some_and(|found| found.is_ours()) {
        let bridge = encode(Message::Bridged(Box::new(Message::DeleteTable)));
        match kernel.transaction(&[&bridge]) {
            Err(e) if e.os_error() != Some(ENOENT) => return Err(e),
            _ => {}
        }
    }
    match kernel.transaction(&[&encode(Message::DeleteTable)]) {
        Ok(_) => Ok(true),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
