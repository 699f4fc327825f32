//! Revoking and restoring connections: see [`crate::base::revoked`] for the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::libc::ENFILE;

use crate::{
    Enforcer, Error,
    base::Conditions,
    conntrack::{self, ConntrackEntry, FiveTuple, Revocation},
    phases::{Phases, add, chunks},
    revoked_tuples::RevokedTuples,
    ruleset::Message,
    send::send,
};

/// How many connections are remembered and then revoked at once, so that none waits long for those before it.
const BATCH: usize = 2000;

/// How often the remembered tuples are read from the kernel's sets again, because elements expire.
const REREAD_INTERVAL: Duration = Duration::from_secs(3600);

/// The outcome of [`Enforcer::revoke`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevocationSummary {
    /// The connections that still existed.
    pub revoked: usize,
    /// The connections that could not be remembered because too many are.
    ///
    /// They stay revoked as long as their entries carry the label. If the entry of a TCP connection disappears, the ports
    /// of its next packet decide.
    pub not_remembered: usize,
}

impl Enforcer {
    /// Revokes connections: no further packet of them passes in either direction.
    ///
    /// They stay revoked, even if their entries disappear, until [`Enforcer::restore`] or for
    /// [`conntrack::REVOKED_TIMEOUT`]. Each entry comes with the orientation that is denied, because an entry may have the
    /// opener wrong. `O(connections)`.
    ///
    /// # Errors
    /// What the kernel refuses. Another call can revoke the rest.
    pub fn revoke(
        &mut self,
        connections: &[(FiveTuple, &ConntrackEntry)],
    ) -> Result<RevocationSummary, Error> {
        self.match_revoked(true)?;
        self.forget_expired();
        let mut out = RevocationSummary::default();
        for chunk in connections.chunks(BATCH) {
            // The tuples come first: a packet that arrives after its entry is gone must match one.
            out.not_remembered += self.remember(chunk.iter().map(|(tuple, _)| *tuple))?;
            for (_, entry) in chunk {
                if conntrack::revoke(&mut self.kernel, entry)? != Revocation::Gone {
                    out.revoked += 1;
                }
            }
        }
        Ok(out)
    }

    /// Tells that no connection is revoked: packets are no longer compared with revoked ones, until [`Enforcer::revoke`] or a repair. Before
    /// this call they are, because a previous run may have revoked some.
    ///
    /// The caller has listed all entries and found none that carries the label. Nothing changes if the kernel remembers any revoked
    /// connection. `O(remembered)`.
    ///
    /// # Errors
    /// If the kernel's sets can't be read, and what it refuses. Packets are compared then as before.
    pub fn none_revoked(&mut self) -> Result<(), Error> {
        // The next change repairs the tables first, which adds the rules again.
        if !self.needs_repair
            && self.program.may_be_revoked
            && RevokedTuples::read(&mut self.kernel, &self.program.sets)?.is_empty()
        {
            self.match_revoked(false)?;
        }
        Ok(())
    }

    /// Adds or removes the rules that match revoked connections.
    fn match_revoked(&mut self, may_be_revoked: bool) -> Result<(), Error> {
        if self.needs_repair {
            self.repair()?;
        }
        if self.program.may_be_revoked == may_be_revoked {
            return Ok(());
        }
        let conditions = Conditions { may_be_revoked, ..self.program.conditions() };
        let phases =
            Phases { switch: vec![self.program.change_conditions(&conditions)], ..Phases::default() };
        let (sent, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        match outcome {
            Ok(()) => {
                self.program.may_be_revoked = may_be_revoked;
                Ok(())
            }
            Err(cause) => Err(self.roll_back(cause, sent.transactions)),
        }
    }

    /// Allows revoked connections to continue: forgets their tuples, and removes the label from their entries.
    /// `O(tuples + entries)`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn restore(&mut self, tuples: &[FiveTuple], entries: &[&ConntrackEntry]) -> Result<(), Error> {
        for entry in entries {
            conntrack::restore(&mut self.kernel, entry)?;
        }
        let mut phases = Phases::default();
        for ((family, has_ports), elements) in RevokedTuples::elements(self.to_forget(tuples)) {
            let set = self.program.sets.revoked(family, has_ports);
            // Removing an element that has expired would fail, so it is added first.
            phases.leave.extend(chunks(elements).map(|part| {
                vec![
                    Message::AddElements(set.clone(), part.clone()),
                    Message::RemoveElements(set.clone(), part),
                ]
            }));
        }
        send(&mut self.kernel, phases, &mut self.generation).1?;
        for tuple in tuples {
            self.program.revoked.remove(tuple);
        }
        Ok(())
    }

    /// Returns the remembered revoked connections, from opener to answerer.
    pub fn revoked(&self) -> impl Iterator<Item = FiveTuple> {
        self.program.revoked.tuples()
    }

    /// Returns up to `count` of the remembered revoked connections, in order, after the one given. `O(count + log connections)`.
    pub fn revoked_after(&self, after: Option<&FiveTuple>, count: usize) -> impl Iterator<Item = FiveTuple> {
        self.program.revoked.tuples_after(after).take(count)
    }

    /// Returns whether any connection is remembered as revoked.
    #[must_use]
    pub fn has_revoked(&self) -> bool {
        !self.program.revoked.is_empty()
    }

    /// Returns whether a connection is remembered as revoked in this orientation.
    #[must_use]
    pub fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        self.program.revoked.contains(tuple)
    }

    /// Returns the tuples whose elements can be removed. The other orientation may be revoked as well, and needs them.
    fn to_forget<'a>(&'a self, tuples: &'a [FiveTuple]) -> impl Iterator<Item = FiveTuple> + 'a {
        let restored: BTreeSet<&FiveTuple> = tuples.iter().collect();
        let is_needed = move |tuple: &FiveTuple| {
            let other = tuple.reversed();
            self.is_revoked(&other) && !restored.contains(&other)
        };
        tuples.iter().copied().filter(move |tuple| tuple.outlives_its_entry() && !is_needed(tuple))
    }

    /// Adds tuples to the kernel's sets. Returns how many exceeded the limits.
    fn remember(&mut self, tuples: impl Iterator<Item = FiveTuple>) -> Result<usize, Error> {
        let (mut new, mut without_room) = (BTreeSet::new(), 0);
        for tuple in tuples {
            if self.is_revoked(&tuple) || !tuple.outlives_its_entry() {
                continue;
            }
            if self.program.revoked.has_room_for(&tuple) {
                self.program.revoked.insert(tuple);
                new.insert(tuple);
            } else {
                without_room += 1;
            }
        }
        let mut phases = Phases::default();
        for ((family, has_ports), elements) in RevokedTuples::elements(new.iter().copied()) {
            phases.join.extend(add(self.program.sets.revoked(family, has_ports), elements));
        }
        let (_, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        if outcome.is_err() {
            new.iter().for_each(|tuple| self.program.revoked.remove(tuple));
        }
        match outcome {
            Ok(()) => Ok(without_room),
            // Another program has filled the set.
            Err(e) if e.os_error() == Some(ENFILE) => Ok(without_room + new.len()),
            Err(e) => Err(e),
        }
    }

    fn forget_expired(&mut self) {
        if self.program.revoked.is_empty() {
            self.program.revoked.mark_read();
        } else if self.program.revoked.is_older_than(REREAD_INTERVAL) {
            // Tuples that can't be read are kept: without them, the connections could not be restored.
            if let Ok(read) = RevokedTuples::read(&mut self.kernel, &self.program.sets) {
                self.program.revoked = read;
            }
        }
    }
}
