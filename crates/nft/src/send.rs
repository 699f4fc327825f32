//! Sends the phases of a change in transactions: in one if possible, otherwise in as few as possible.

use std::{mem, sync::Arc};

use nix::libc::ENOENT;

use crate::{
    Error, Kernel,
    encode::{Encoded, encode, encode_in},
    grace_period::grace_period,
    kernel::too_large,
    phases::{Phases, Step},
    ruleset::{Element, Message, Set},
};

/// The largest batch, even if the socket accepts more: the kernel copies a batch to contiguous memory.
const MAX_BATCH: usize = 16 << 20;

/// The size of what every batch contains: its begin and end, and the two messages of the transaction number.
const OVERHEAD: usize = 512;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) messages: usize,
    pub(crate) elements: usize,
    pub(crate) bytes: usize,
    pub(crate) transactions: usize,
}

impl Sent {
    /// Adds what was sent later.
    pub(crate) fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.elements += more.elements;
        self.bytes += more.bytes;
        self.transactions += more.transactions;
    }
}

/// An encoded step.
struct EncodedStep {
    messages: Vec<Encoded>,
    bytes: usize,
}

impl EncodedStep {
    fn of(step: Step) -> Self {
        let messages: Vec<Encoded> = step.into_iter().map(encode).collect();
        let bytes = messages.iter().map(Encoded::len).sum();
        Self { messages, bytes }
    }
}

/// The transaction number in the agent's table.
#[derive(Debug)]
pub(crate) struct Generation {
    set: Arc<Set>,
    /// The number in the kernel, if the set has one.
    pub(crate) current: Option<u32>,
}

impl Generation {
    pub(crate) fn new(set: Arc<Set>, current: Option<u32>) -> Self {
        Self { set, current }
    }

    fn next(&self) -> u32 {
        self.current.map_or(1, |n| n.wrapping_add(1))
    }

    fn update(&self) -> Vec<Encoded> {
        let old = self.current.map(|n| Message::RemoveElements(self.set.clone(), vec![Element::Number(n)]));
        let new = Message::AddElements(self.set.clone(), vec![Element::Number(self.next())]);
        old.into_iter().chain([new]).map(encode).collect()
    }
}

/// Sends a change. Returns what was sent before the error, if any.
pub(crate) fn send(
    kernel: &mut Kernel,
    phases: Phases,
    generation: &mut Generation,
) -> (Sent, Result<(), Error>) {
    let mut sent = Sent::default();
    let mut limit = kernel.max_datagram().min(MAX_BATCH);
    let mut phases = phases;
    let retired: Vec<EncodedStep> = mem::take(&mut phases.retire).into_iter().map(EncodedStep::of).collect();
    for part in parts(phases, limit) {
        if let Err(error) = send_part(kernel, &part, generation, &mut limit, &mut sent) {
            return (sent, Err(error));
        }
    }
    if retired.is_empty() {
        return (sent, Ok(()));
    }
    let outcome = if sent.transactions > 0 { grace_period(kernel) } else { Ok(()) };
    let outcome = outcome.and_then(|()| send_part(kernel, &retired, generation, &mut limit, &mut sent));
    (sent, outcome)
}

/// Sends messages about the tables with another name, in as many transactions as necessary, in this order.
pub(crate) fn send_in(kernel: &mut Kernel, table: &str, messages: Vec<Message>) -> Result<(), Error> {
    let limit = kernel.max_datagram().min(MAX_BATCH);
    let encoded: Vec<Encoded> = messages.into_iter().map(|message| encode_in(table, message)).collect();
    let mut rest = &encoded[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest.iter().map(Encoded::len), limit));
        kernel.transaction(&now.iter().collect::<Vec<_>>())?;
        rest = later;
    }
    Ok(())
}

/// As [`send_in`], in one transaction. Nothing is sent without messages.
pub(crate) fn send_at_once(kernel: &mut Kernel, table: &str, messages: Vec<Message>) -> Result<(), Error> {
    if messages.is_empty() {
        return Ok(());
    }
    let encoded: Vec<Encoded> = messages.into_iter().map(|message| encode_in(table, message)).collect();
    kernel.transaction(&encoded.iter().collect::<Vec<_>>()).map(drop)
}

/// Removes a table of the family `inet`. Returns whether it existed.
pub(crate) fn remove_table(kernel: &mut Kernel, table: &str) -> Result<bool, Error> {
    match send_at_once(kernel, table, vec![Message::DeleteTable]) {
        Ok(()) => Ok(true),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Divides a change into parts. Each is one transaction unless it exceeds the size limit.
///
/// * Usually there is one part.
/// * If new chains come into use, they are sent first. The kernel decides once per packet which generation of rules it
///   evaluates, but looks up maps as they are at that moment. A packet that is in the base chain when the transaction takes
///   effect would follow the new element to the new chain, find it empty, as it was in the packet's generation, and pass.
///   (Seen with Linux 6.18: 14 of 1.4 million denied packets in 1,641 transactions, and none with the chain one
///   transaction earlier.) Unused chains keep their rules for such packets.
/// * If addresses only move between peer sets, additions come first, then removals. At every moment an address is in its
///   old set, in its new one, or in both, in whichever order a packet looks them up.
/// * If everything exceeds one transaction, what is not in use yet is sent first, and what is no longer in use is deleted
///   last, in as many transactions as necessary. What affects packets stays in one transaction in between.
/// * If that alone exceeds one transaction (some thousand members change at once, and a larger buffer is not permitted), it
///   is split in the order of [`Phases`]. If dispatch changes too, a packet between two of these transactions may be
///   evaluated by an old table with new members.
fn parts(mut phases: Phases, limit: usize) -> Vec<Vec<EncodedStep>> {
    let encoded = |phase: Vec<Step>| phase.into_iter().map(EncodedStep::of).collect::<Vec<_>>();
    let moves_only = phases.moves_addresses && phases.switch.is_empty();
    let if_too_large = phases.if_too_large.take();
    phases.join.append(&mut phases.bridge);
    let creates_chains = phases.create.iter().flatten().any(|m| matches!(m, Message::CreateChain(_)));
    let changes_dispatch = !(phases.switch.is_empty() && phases.hairpin.is_empty());
    let chains_first = creates_chains && changes_dispatch && !phases.atomic;
    let [create, mut join, hairpin, switch, leave, delete] =
        [phases.create, phases.join, phases.hairpin, phases.switch, phases.leave, phases.delete].map(encoded);
    join.extend(hairpin);
    if moves_only && !chains_first {
        return vec![concat([create, join]), concat([leave, delete])];
    }
    if moves_only {
        return vec![create, join, concat([leave, delete])];
    }
    join.extend(switch);
    join.extend(leave);
    let fits = |parts: &[&Vec<EncodedStep>]| OVERHEAD + parts.iter().map(|p| size(p)).sum::<usize>() <= limit;
    if !chains_first && fits(&[&create, &join, &delete]) {
        return vec![concat([create, join, delete])];
    }
    if let Some(instead) = if_too_large {
        return parts(*instead, limit);
    }
    if fits(&[&join, &delete]) {
        return vec![create, concat([join, delete])];
    }
    vec![create, join, delete]
}

fn concat<const N: usize>(steps: [Vec<EncodedStep>; N]) -> Vec<EncodedStep> {
    steps.into_iter().flatten().collect()
}

fn size(steps: &[EncodedStep]) -> usize {
    steps.iter().map(|p| p.bytes).sum()
}

fn send_part(
    kernel: &mut Kernel,
    mut steps: &[EncodedStep],
    generation: &mut Generation,
    limit: &mut usize,
    sent: &mut Sent,
) -> Result<(), Error> {
    while !steps.is_empty() {
        let take = fitting(steps.iter().map(|step| step.bytes), *limit);
        let (now, later) = steps.split_at(take);
        let number = generation.update();
        // Before it is sent, because the kernel notifies watchers before it replies.
        kernel.own_transactions().record(generation.next());
        let messages: Vec<&Encoded> = now.iter().flat_map(|p| &p.messages).chain(&number).collect();
        match kernel.transaction(&messages) {
            Ok(bytes) => {
                sent.messages += messages.len();
                sent.elements +=
                    now.iter().flat_map(|p| &p.messages).map(|m| m.message.elements()).sum::<usize>();
                sent.bytes += bytes;
                sent.transactions += 1;
                generation.current = Some(generation.next());
                steps = later;
            }
            // The kernel has less memory than the buffer size suggests.
            Err(e) if too_large(&e) => {
                let bytes = size(now);
                if take == 1 {
                    let object = now[0].messages.first().map_or_else(String::new, |m| m.message.describe());
                    return Err(match e.os_error() {
                        Some(nix::libc::EMSGSIZE) => {
                            Error::TooLarge { object, bytes, limit: kernel.max_datagram() }
                        }
                        _ => e,
                    });
                }
                *limit = bytes / 2 + OVERHEAD;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Returns how many of the steps with these sizes fit one transaction, but at least one.
fn fitting(sizes: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut bytes = OVERHEAD;
    let fit = sizes.take_while(|size| {
        bytes += size;
        bytes <= limit
    });
    fit.count().max(1)
}
