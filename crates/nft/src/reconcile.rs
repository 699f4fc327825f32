//! Brings the kernel to a plan, whatever it holds: at the start, and after changes by other programs.

use std::{
    mem,
    time::{Duration, Instant},
};

use palisade_policy::NodePlan;

use crate::{
    EnforcerOptions, Error, Kernel, NodeLinks,
    phases::Phases,
    program::Program,
    reader::Ruleset,
    restart::{self, StartingPoint},
    revoked_tuples::RevokedTuples,
    ruleset::TABLE,
    send::{Generation, Sent, send},
    stand_in::{self, Replaced},
};

/// How to bring the kernel to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Read the table, and change what differs.
    Repair,
    /// Replace the table.
    Replace,
}

/// Reads and compares the kernel's table, unless it is to be replaced.
fn starting_point(
    kernel: &mut Kernel,
    program: &Program,
    plan: &NodePlan,
    method: Method,
) -> Result<StartingPoint, Error> {
    if method == Method::Replace {
        return Ok(StartingPoint::Unreadable);
    }
    match Ruleset::read(kernel) {
        Ok(Some(Ruleset { owner: Some(port), .. })) => Err(Error::Owned { table: TABLE, port }),
        Ok(found) => Ok(restart::examine(found.as_ref(), program, plan)),
        Err(Error::KeepsChanging(_)) => Ok(StartingPoint::Unreadable),
        Err(e) => Err(e),
    }
}

/// Replaces a permission error by [`Error::Owned`] if another program owns the table of this name.
pub(crate) fn name_owner(kernel: &mut Kernel, table: &'static str, error: Error) -> Error {
    match error {
        Error::NoPermission(_) => match Ruleset::owner(kernel, table) {
            Ok(Some(port)) => Error::Owned { table, port },
            _ => error,
        },
        other => other,
    }
}

/// The cost of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Netlink messages sent.
    pub messages: usize,
    /// Set elements added and removed.
    pub elements: usize,
    /// Bytes sent.
    pub bytes: usize,
    /// Transactions: 0 if nothing differed, usually 1, 2 if an address moved between peer sets, more if the send buffer is
    /// too small. Without those of the tables that stand in while a table is replaced.
    pub transactions: usize,
    /// The transaction number in the kernel's table after the change, 0 if there is no table.
    pub generation: u32,
    /// The time from the first byte encoded to the last reply read.
    pub duration: Duration,
}

/// The table that was in the kernel before the first transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingTable {
    /// There was none.
    Nothing,
    /// The table left by a previous run. Only what differed from the plan was changed.
    Ours,
    /// A table of another program, or of another format. It was replaced in one transaction, while a copy of the new one decided.
    Foreign,
    /// A table that changed each time that it was read. It was replaced likewise.
    Unreadable,
}

/// What determines a program besides the plan.
#[derive(Clone)]
pub(crate) struct Inputs {
    pub(crate) options: EnforcerOptions,
    pub(crate) node_links: NodeLinks,
    pub(crate) revoked: RevokedTuples,
}

/// The result of [`reconcile`].
pub(crate) struct Reconciled {
    pub(crate) program: Program,
    pub(crate) generation: Generation,
    pub(crate) commit: Commit,
    pub(crate) existing_table: ExistingTable,
    /// Why no other table stood in while one was replaced.
    pub(crate) no_stand_in: Option<Error>,
}

/// Brings the kernel to a plan, whatever it holds.
pub(crate) fn reconcile(
    kernel: &mut Kernel,
    Inputs { options, node_links, revoked }: Inputs,
    plan: &NodePlan,
    method: Method,
) -> Result<Reconciled, Error> {
    let start = Instant::now();
    let empty = NodePlan::default();
    let mut program = Program::new(options, node_links);
    program.revoked = revoked;
    let (new_table, _) = program.change(&empty, &empty.delta_to(plan))?;
    let (existing_table, mut change, current) = change_of_main(kernel, &program, plan, method, new_table)?;
    let mut generation = Generation::new(program.sets.generation.clone(), current);
    let mut sent = Sent::default();
    if method == Method::Replace {
        // There is no table that another could stand in for, and until there is one everything passes. So nothing comes before it.
        let phases = mem::take(&mut change).phases(&program, false);
        sent = send_all(kernel, phases, &mut generation)?;
    }
    let bridge = match Ruleset::read_bridge(kernel) {
        Err(Error::KeepsChanging(_)) => None,
        found => Some(found?),
    };
    let bridge_change = restart::bridge(bridge.as_ref().map(Option::as_ref), &program, plan);
    let replaced = Replaced {
        inet: matches!(change, MainChange::Replace(_)),
        bridge: !bridge_change.is_empty() && bridge != Some(None) && program.node_links.has_pod_ports(),
    };
    let (more, no_stand_in) = stand_in::during(kernel, (&program, plan), replaced, |kernel, stands_in| {
        let mut phases = change.phases(&program, stands_in);
        phases.bridge = bridge_change;
        send_all(kernel, phases, &mut generation)
    })?;
    sent.add(more);
    if !replaced.any() {
        // What a run has left that ended while it replaced a table.
        stand_in::remove(kernel)?;
    }
    let commit = report(sent, &generation, start.elapsed());
    Ok(Reconciled { program, generation, commit, existing_table, no_stand_in })
}

/// The change of the main table.
enum MainChange {
    /// These steps.
    Steps(Phases),
    /// The table is replaced by one with this change from an empty plan.
    Replace(Phases),
}

impl Default for MainChange {
    fn default() -> Self {
        Self::Steps(Phases::default())
    }
}

impl MainChange {
    /// Returns what is sent. `stands_in` is whether another table decides meanwhile.
    fn phases(self, program: &Program, stands_in: bool) -> Phases {
        match self {
            Self::Steps(phases) => phases,
            Self::Replace(mut phases) => {
                restart::replace_foreign(&mut phases, program, stands_in);
                phases
            }
        }
    }
}

/// Reads the main table, unless it is to be replaced. Returns what was there, the change to the program's table, and the transaction number in
/// the kernel. `new_table` is the change from an empty plan.
fn change_of_main(
    kernel: &mut Kernel,
    program: &Program,
    plan: &NodePlan,
    method: Method,
    mut new_table: Phases,
) -> Result<(ExistingTable, MainChange, Option<u32>), Error> {
    // It has a comparison of its own.
    new_table.bridge.clear();
    Ok(match starting_point(kernel, program, plan, method)? {
        StartingPoint::Ours { changes, generation } => {
            (ExistingTable::Ours, MainChange::Steps(*changes), generation)
        }
        StartingPoint::Nothing => {
            // No rules are active that could apply to packets in between.
            restart::create_table(&mut new_table, program);
            (ExistingTable::Nothing, MainChange::Steps(new_table), None)
        }
        StartingPoint::Foreign => (ExistingTable::Foreign, MainChange::Replace(new_table), None),
        StartingPoint::Unreadable => (ExistingTable::Unreadable, MainChange::Replace(new_table), None),
    })
}

/// Sends a change, if it is one.
fn send_all(kernel: &mut Kernel, phases: Phases, generation: &mut Generation) -> Result<Sent, Error> {
    if phases.is_empty() {
        return Ok(Sent::default());
    }
    let (sent, outcome) = send(kernel, phases, generation);
    outcome.map_err(|error| name_owner(kernel, TABLE, error))?;
    Ok(sent)
}

pub(crate) fn report(sent: Sent, generation: &Generation, duration: Duration) -> Commit {
    Commit {
        messages: sent.messages,
        elements: sent.elements,
        bytes: sent.bytes,
        transactions: sent.transactions,
        generation: generation.current.unwrap_or(0),
        duration,
    }
}
