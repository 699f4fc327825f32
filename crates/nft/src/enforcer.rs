//! The plan in force, and the way from one to the next.

use std::time::Duration;

use palisade_policy::{Delta, NodePlan};

use crate::{
    Error, Kernel, Surroundings,
    base::BaseSets,
    encode::encode,
    features::{Feature, Features},
    kernel::now,
    program::Program,
    reader::Ruleset,
    restart::{self, Found},
    revocation::Remembered,
    ruleset::Message,
    send::{Generation, Sent, send},
    verify::{Verification, verify},
};

/// What is programmed beside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The nflog group that hears of every denied packet; none to log nothing.
    pub log_group: Option<u16>,
    /// Whether egress policies hold for what a pod sends to its own node too. The literal reading of the
    /// documentation, where own-node traffic is exempt both ways, is `false` (SEMANTICS G-5).
    pub egress_to_own_node: bool,
    /// Whether packets are dropped that claim a local pod's address, or come from local pods, and to whose source no
    /// route leads back by the interface on which they came (SEMANTICS G-19).
    pub source_check: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { log_group: Some(DEFAULT_LOG_GROUP), egress_to_own_node: true, source_check: true }
    }
}

/// Out of the way of ulogd's and other programs' small numbers.
const DEFAULT_LOG_GROUP: u16 = 9043;

/// What a change cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Netlink messages sent.
    pub messages: usize,
    /// Set elements added and removed.
    pub elements: usize,
    /// Bytes sent.
    pub bytes: usize,
    /// Transactions: 0 where nothing differed, 1 as a rule, 2 where an address moved between groups, more where the
    /// send buffer forces it.
    pub transactions: usize,
    /// The number in the kernel's table after it; 0 where there is no table.
    pub generation: u32,
    /// From the first byte encoded to the last answer read.
    pub duration: Duration,
}

/// What was in the kernel before the first transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// No table of ours.
    Nothing,
    /// The table of an earlier run: it was led to the plan by what differed.
    Ours,
    /// A table of our name that is not ours, or that another version wrote: it was replaced in one transaction.
    Foreign,
    /// A table that changed each time that it was read: it was replaced in one transaction.
    Unreadable,
}

/// Holds the kernel to a plan.
#[derive(Debug)]
pub struct Enforcer {
    pub(crate) kernel: Kernel,
    plan: NodePlan,
    pub(crate) program: Program,
    pub(crate) generation: Generation,
    /// What was asked for: the program does without what the kernel lacks.
    asked: Surroundings,
    features: Features,
    /// Whether the kernel may hold something else than `plan` says.
    torn: bool,
    left: Left,
}

impl Enforcer {
    /// Takes over the table that an earlier run left, or makes it, and leads it to `plan` by what differs.
    /// At no moment is there less in force than the old rules or the new ones.
    pub fn start(kernel: Kernel, plan: &NodePlan) -> Result<(Self, Commit), Error> {
        Self::start_with(kernel, Options::default(), plan)
    }

    /// [`Enforcer::start`] with other options.
    pub fn start_with(kernel: Kernel, options: Options, plan: &NodePlan) -> Result<(Self, Commit), Error> {
        Self::start_in(kernel, options, Surroundings::default(), plan)
    }

    /// [`Enforcer::start_with`] on a node whose links are known already.
    pub fn start_in(
        mut kernel: Kernel,
        options: Options,
        surroundings: Surroundings,
        plan: &NodePlan,
    ) -> Result<(Self, Commit), Error> {
        let mut features = Features::default();
        let asked = surroundings;
        let options = features.possible_options(&mut kernel, options)?;
        let surroundings = features.possible_surroundings(&mut kernel, &asked)?;
        // Before anything is written: a table that can't be read whole is replaced.
        // Revoked connections that can't be read stay cut until they expire.
        let revoked = Remembered::read(&mut kernel, &BaseSets::new()).unwrap_or_default();
        let beside = (options, surroundings, revoked);
        let (program, generation, commit, left) = lead(&mut kernel, beside, plan, Way::Mend)?;
        let plan = plan.clone();
        Ok((Self { kernel, plan, program, generation, asked, features, torn: false, left }, commit))
    }

    /// Leads the kernel from the plan as programmed to the plan after `delta`. On an error, the kernel and
    /// [`Enforcer::programmed`] are as before; see [`Error::Torn`] for the one exception.
    pub fn commit(&mut self, delta: &Delta) -> Result<Commit, Error> {
        if self.torn {
            self.repair()?;
        }
        let start = now();
        let (phases, undo) = self.program.change(&self.plan, delta)?;
        let (sent, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        match outcome {
            Ok(()) => {
                self.plan.apply(delta);
                Ok(report(sent, &self.generation, start.elapsed()))
            }
            Err(cause) => {
                self.program.undo(undo);
                let cause = name_the_owner(&mut self.kernel, cause);
                Err(self.take_back(cause, sent.transactions))
            }
        }
    }

    /// Takes other surroundings into account. On an error, the kernel and [`Enforcer::surroundings`] are as before, as
    /// with [`Enforcer::commit`].
    pub fn set_surroundings(&mut self, surroundings: &Surroundings) -> Result<Commit, Error> {
        if self.torn {
            self.repair()?;
        }
        let start = now();
        let possible = self.features.possible_surroundings(&mut self.kernel, surroundings)?;
        let phases = self.program.surround(&self.plan, &possible);
        let (sent, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        match outcome {
            Ok(()) => {
                self.program.surroundings = possible;
                self.asked = surroundings.clone();
                Ok(report(sent, &self.generation, start.elapsed()))
            }
            Err(cause) => {
                let cause = name_the_owner(&mut self.kernel, cause);
                Err(self.take_back(cause, sent.transactions))
            }
        }
    }

    /// The surroundings that were set last.
    #[must_use]
    pub fn surroundings(&self) -> &Surroundings {
        &self.asked
    }

    /// What was asked for and this kernel has not: enforcement goes on without.
    pub fn lacking(&self) -> impl Iterator<Item = Feature> {
        self.features.lacking()
    }

    /// Reads the kernel and mends what differs from the plan as programmed, whoever changed it. Where the table changes
    /// each time that it is read, it is replaced without being read.
    ///
    /// # Errors
    /// What the kernel refuses; [`Error::Owned`] where the table belongs to another program.
    pub fn repair(&mut self) -> Result<Commit, Error> {
        self.go(Way::Mend)
    }

    /// Makes the table anew as the plan as programmed needs it, whatever is there, without reading it: for a table that is
    /// known to be gone. One transaction as a rule; `O(plan)`.
    ///
    /// # Errors
    /// As [`Enforcer::repair`].
    pub fn remake(&mut self) -> Result<Commit, Error> {
        self.go(Way::Replace)
    }

    /// What is programmed beside the plan.
    fn beside(&self) -> Beside {
        let Program { options, surroundings, revoked, .. } = &self.program;
        (options.clone(), surroundings.clone(), revoked.clone())
    }

    fn go(&mut self, way: Way) -> Result<Commit, Error> {
        let beside = self.beside();
        let (program, generation, commit, _) = lead(&mut self.kernel, beside, &self.plan, way)?;
        self.program = program;
        self.generation = generation;
        self.torn = false;
        Ok(commit)
    }

    /// Reads what the kernel really holds, whoever put it there, and leads it to `plan` by what differs from that. On an
    /// error, [`Enforcer::programmed`] is as before, and so is the kernel unless the change took several transactions.
    ///
    /// # Errors
    /// If the kernel can't be read, and whatever it refuses.
    pub fn lead_to(&mut self, plan: &NodePlan) -> Result<Commit, Error> {
        let beside = self.beside();
        match lead(&mut self.kernel, beside, plan, Way::Mend) {
            Ok((program, generation, commit, _)) => {
                self.plan = plan.clone();
                self.program = program;
                self.generation = generation;
                self.torn = false;
                Ok(commit)
            }
            Err(error) => {
                // Where the table still has the number of the last commit, nothing of this change has got in.
                let number = restart::generation(&mut self.kernel);
                self.torn |= number.map_or(true, |number| number != self.generation.current);
                Err(error)
            }
        }
    }

    /// Reads the kernel and says where it differs from the plan as programmed, see [`verify()`]. Changes nothing.
    pub fn verify(&mut self) -> Result<Verification, Error> {
        verify(&mut self.kernel, &self.program.options, &self.program.surroundings, &self.plan)
    }

    /// Whether the kernel's table is still the one that this enforcer wrote last. Cheap: reads one number. Does not
    /// see edits by those who leave the number alone; [`Enforcer::repair`] does.
    pub fn in_step(&mut self) -> Result<bool, Error> {
        Ok(!self.torn && restart::generation(&mut self.kernel)? == self.generation.current)
    }

    /// What is programmed beside the plan.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.program.options
    }

    /// What was in the kernel when this enforcer started.
    #[must_use]
    pub fn left(&self) -> Left {
        self.left
    }

    /// The plan in the kernel.
    #[must_use]
    pub fn programmed(&self) -> &NodePlan {
        &self.plan
    }

    /// How many elements the table's sets and maps hold, an interval counted as one: members and ranges of groups, the
    /// unions and port sets that look-ups need, and what leads local pods to their chains. `O(1)`.
    #[must_use]
    pub fn elements(&self) -> usize {
        // And the number of the last transaction.
        let Program { holdings, surroundings, revoked, .. } = &self.program;
        let number = usize::from(self.generation.current.is_some());
        holdings.total() + surroundings.count(&self.plan) + 2 * revoked.len() + number
    }

    /// The connection, for [`crate::conntrack`] and [`crate::reader`].
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Removes the table with everything in it; all traffic passes. The next commit makes it anew.
    pub fn remove(&mut self) -> Result<(), Error> {
        remove(&mut self.kernel)?;
        self.plan = NodePlan::default();
        self.program = Program::new(self.program.options.clone(), self.program.surroundings.clone());
        self.generation.current = None;
        // There is no table to change: the next commit has to find that out.
        self.torn = true;
        Ok(())
    }

    /// After a failure: if earlier transactions of the same change went through, goes back to the plan as programmed.
    fn take_back(&mut self, cause: Error, transactions: usize) -> Error {
        let uncertain = matches!(cause, Error::Answer(_) | Error::Socket { doing: "receiving", .. });
        if transactions == 0 && !uncertain {
            return cause;
        }
        self.torn = true;
        match self.repair() {
            Ok(_) => cause,
            Err(repair) => Error::Torn { cause: Box::new(cause), repair: Box::new(repair) },
        }
    }
}

/// Removes our table from the namespace, and the one of [`crate::cut_off`]; says whether there was one of ours.
pub fn remove(kernel: &mut Kernel) -> Result<bool, Error> {
    crate::cut_off::remove(kernel)?;
    if Ruleset::read_bridge(kernel)?.is_some_and(|found| found.is_ours()) {
        let bridge = encode(Message::Bridged(Box::new(Message::DeleteTable)));
        match kernel.transaction(&[&bridge]) {
            Err(e) if e.os_error() != Some(nix::libc::ENOENT) => return Err(e),
            _ => {}
        }
    }
    match kernel.transaction(&[&encode(Message::DeleteTable)]) {
        Ok(_) => Ok(true),
        Err(e) if e.os_error() == Some(nix::libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// How to come from what is in the kernel to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Read it, and send what differs.
    Mend,
    /// Replace it.
    Replace,
}

/// What there is; errors that reading can't get over.
fn look(kernel: &mut Kernel, program: &Program, plan: &NodePlan, way: Way) -> Result<Found, Error> {
    if way == Way::Replace {
        return Ok(Found::Unreadable);
    }
    match Ruleset::read(kernel) {
        Ok(Some(Ruleset { owner: Some(port), .. })) => Err(Error::Owned { port }),
        Ok(found) => Ok(restart::examine(found.as_ref(), program, plan)),
        Err(Error::NeverQuiet(_)) => Ok(Found::Unreadable),
        Err(e) => Err(e),
    }
}

/// A refusal for lack of rights has another cause where somebody owns the table.
fn name_the_owner(kernel: &mut Kernel, error: Error) -> Error {
    match error {
        Error::NoPermission(_) => match Ruleset::owner(kernel) {
            Ok(Some(port)) => Error::Owned { port },
            _ => error,
        },
        other => other,
    }
}

/// What is programmed beside the plan.
type Beside = (Options, Surroundings, Remembered);

/// Leads whatever is in the kernel to a plan.
fn lead(
    kernel: &mut Kernel,
    (options, surroundings, revoked): Beside,
    plan: &NodePlan,
    way: Way,
) -> Result<(Program, Generation, Commit, Left), Error> {
    let start = now();
    let empty = NodePlan::default();
    let mut program = Program::new(options, surroundings);
    program.revoked = revoked;
    let (mut phases, _) = program.change(&empty, &empty.delta_to(plan))?;
    let mut current = None;
    let left = match look(kernel, &program, plan, way)? {
        Found::Nothing => {
            let base = program.make_base().into_iter().chain(program.remember()).collect::<Vec<_>>();
            phases.make.splice(0..0, base).for_each(drop);
            phases.join.extend(program.make_surroundings());
            // Nothing is in force that packets could meet in between.
            phases.indivisible = true;
            Left::Nothing
        }
        Found::Foreign => {
            restart::replace_foreign(&mut phases, &program);
            phases.join.extend(program.make_surroundings());
            Left::Foreign
        }
        Found::Unreadable => {
            restart::replace_foreign(&mut phases, &program);
            phases.join.extend(program.make_surroundings());
            Left::Unreadable
        }
        Found::Ours { changes, generation } => {
            phases = changes;
            current = generation;
            Left::Ours
        }
    };
    let bridge = match (way, Ruleset::read_bridge(kernel)) {
        (Way::Replace, _) | (_, Err(Error::NeverQuiet(_))) => None,
        (_, found) => Some(found?),
    };
    phases.bridge = restart::bridge(bridge.as_ref().map(Option::as_ref), &program, plan);
    let mut generation = Generation::new(program.sets.generation.clone(), current);
    let sent = if phases.is_empty() {
        Sent::default()
    } else {
        let (sent, outcome) = send(kernel, phases, &mut generation);
        outcome.map_err(|error| name_the_owner(kernel, error))?;
        sent
    };
    let commit = report(sent, &generation, start.elapsed());
    Ok((program, generation, commit, left))
}

fn report(sent: Sent, generation: &Generation, duration: Duration) -> Commit {
    Commit {
        messages: sent.messages,
        elements: sent.elements,
        bytes: sent.bytes,
        transactions: sent.transactions,
        generation: generation.current.unwrap_or(0),
        duration,
    }
}
