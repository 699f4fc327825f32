//! A second copy of the agent's tables, which decides while these are replaced.
//!
//! A transaction that deletes a table and creates it again is no moment without rules for a packet that comes before it, or after it. But a
//! packet that meets the hook just then may pass:
//!
//! * The kernel fixes at the start of each base chain which generation of rules a packet meets, but looks up maps as they are at that
//!   moment. The maps of a deleted table are empty from the moment of the commit, so a packet in the middle of the old rules finds no chain
//!   of its pod.
//! * The new base chain comes before the old one. A packet may find the new one still without rules, and the old one without rules already.
//! * A packet that has begun a hook meets only the chains that were there then.
//!
//! So the tables are first created under another name, with everything that they need to decide, and removed when the replacement is
//! done. In between, the kernel is given the time to finish the packets that have begun before ([`grace_period`]). So every packet meets at
//! least one complete table from its first rule to its last. Where it meets two, it passes if both allow it, and they are equal.
//!
//! Sets and rules come first, the base chains in a transaction of their own: the kernel publishes the elements of some sets of ranges only after
//! the rules.

use std::sync::Arc;

use nix::libc::ENOENT;
use palisade_policy::{Delta, NodePlan};

use crate::{
    Error, Kernel,
    bridge::bridged,
    encode::encode_in,
    expected,
    grace_period::grace_period,
    next_plan::NextPlan,
    phases::{Step, add},
    program::Program,
    reader::Attributes,
    restart,
    ruleset::Message,
    send::send_in,
    uapi::{
        netfilter::{NFPROTO_BRIDGE, NFPROTO_INET},
        nf_tables::{NFT_MSG_GETTABLE, NFTA_TABLE_NAME, NFTA_TABLE_OWNER},
    },
};

/// The name of the tables, of the families `inet` and `bridge`. They exist while the tables that they copy are replaced.
pub const STAND_IN_TABLE: &str = "palisade_stand_in";

/// Which tables are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// `inet palisade`.
    pub(crate) inet: bool,
    /// `bridge palisade`.
    pub(crate) bridge: bool,
}

impl Replaced {
    pub(crate) fn any(self) -> bool {
        self.inet || self.bridge
    }
}

/// Creates a copy of the program's tables, runs `replace`, which replaces the tables, and removes the copy. `replace` receives whether the copy
/// exists.
///
/// If the copy can't be created, because the kernel has too little memory for both or for another reason, the tables are replaced without
/// it. Returns that reason beside the result.
pub(crate) fn during<T>(
    kernel: &mut Kernel,
    (program, plan): (&Program, &NodePlan),
    replaced: Replaced,
    replace: impl FnOnce(&mut Kernel, bool) -> Result<T, Error>,
) -> Result<(T, Option<Error>), Error> {
    if !replaced.any() {
        return Ok((replace(kernel, false)?, None));
    }
    let refused = set_up(kernel, program, plan, replaced).err();
    let done = replace(kernel, refused.is_none());
    if done.is_ok() && refused.is_none() {
        // The packets that have met the old tables only.
        grace_period(kernel)?;
    }
    let removed = remove(kernel);
    let done = done?;
    removed?;
    Ok((done, refused))
}

/// As [`during`], for a small table of the family `inet` that is replaced by this content in one transaction.
pub(crate) fn replace_small(kernel: &mut Kernel, table: &str, content: Vec<Message>) -> Result<(), Error> {
    let exists = kernel.get(NFPROTO_INET, NFT_MSG_GETTABLE, &[(NFTA_TABLE_NAME, table)])?.is_some();
    let stands_in = exists && create(kernel, content.clone()).is_ok();
    // An existing table can be created again, but a missing one can't be deleted.
    let replacement: Vec<Message> =
        [Message::CreateTable, Message::DeleteTable].into_iter().chain(content).collect();
    let encoded: Vec<_> = replacement.into_iter().map(|message| encode_in(table, message)).collect();
    let done = kernel.transaction(&encoded.iter().collect::<Vec<_>>()).map(drop);
    if !exists {
        return done;
    }
    if done.is_ok() && stands_in {
        grace_period(kernel)?;
    }
    let removed = remove(kernel);
    done.and(removed)
}

fn set_up(kernel: &mut Kernel, program: &Program, plan: &NodePlan, replaced: Replaced) -> Result<(), Error> {
    let mut messages = Vec::new();
    if replaced.inet {
        messages.extend(main_table(program, plan));
    }
    if replaced.bridge {
        let next = NextPlan { plan, delta: &Delta::default() };
        messages.extend(program.bridge.create(&program.node_links, &next, program.isolating()));
    }
    create(kernel, messages)
}

/// Creates tables with this name, and waits until every packet meets them.
fn create(kernel: &mut Kernel, messages: Vec<Message>) -> Result<(), Error> {
    remove(kernel)?;
    let (hooks, content): (Step, Step) = messages.into_iter().partition(of_base_chain);
    send_in(kernel, STAND_IN_TABLE, content)?;
    send_in(kernel, STAND_IN_TABLE, hooks)?;
    grace_period(kernel)
}

/// Returns whether a message creates a base chain, or a rule of one.
fn of_base_chain(message: &Message) -> bool {
    match message {
        Message::CreateChain(chain) | Message::AddRule(chain, _) => chain.hook.is_some(),
        Message::Bridged(message) => of_base_chain(message),
        _ => false,
    }
}

/// Returns the messages that create the main table with the content that the program needs.
fn main_table(program: &Program, plan: &NodePlan) -> Vec<Message> {
    let next = NextPlan { plan, delta: &Delta::default() };
    let sets: Vec<_> = program.sets.all().chain(program.registry.sets()).collect();
    let base = program.base_chains();
    let chains = restart::in_order_of_use(program, &base);
    let mut out = vec![Message::CreateTable];
    out.extend(sets.iter().map(|set| Message::CreateSet(Arc::clone(set))));
    out.extend(chains.iter().map(|chain| Message::CreateChain(Arc::clone(chain))));
    out.extend(chains.iter().flat_map(|chain| Message::add_rules(chain)));
    out.extend(sets.iter().flat_map(|set| add(set, expected::elements(program, &next, set))).flatten());
    out
}

/// Removes the tables, also those that an earlier run has left. Tables that another program owns are left alone.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn remove(kernel: &mut Kernel) -> Result<(), Error> {
    for (family, message) in
        [(NFPROTO_INET, vec![Message::DeleteTable]), (NFPROTO_BRIDGE, bridged(vec![Message::DeleteTable]))]
    {
        let found = match kernel.get(family, NFT_MSG_GETTABLE, &[(NFTA_TABLE_NAME, STAND_IN_TABLE)]) {
            // The kernel may lack the family.
            Err(error) if error.os_error().is_some() => None,
            other => other?,
        };
        let Some(found) = found else { continue };
        if Attributes(&found).number(NFTA_TABLE_OWNER).is_some() {
            continue;
        }
        match send_in(kernel, STAND_IN_TABLE, message) {
            Err(error) if error.os_error() != Some(ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
