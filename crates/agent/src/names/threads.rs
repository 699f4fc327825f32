//! The threads: one decides about DNS messages, one removes what expires and saves the rest.

use std::{collections::BTreeSet, net::IpAddr, sync::Weak, thread, time::Duration};

use palisade_nft::{
    Kernel,
    conntrack::{self, ConntrackEntry},
    packet_queue::{PacketQueue, Verdicts},
};

use super::{LearnedAnswer, core::Fate, file::NamesFile, link::Link};
use crate::error_chain;

/// How long the reader blocks if no packet arrives. The threads end with their [`super::Names`].
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a read failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often addresses that expire are looked for: each time may list all connections.
const UPKEEP: Duration = Duration::from_secs(5);

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(drop)
}

/// Decides about packets as long as there is a link.
pub(super) fn read(mut queue: PacketQueue, verdicts: &Verdicts, link: &Weak<Link>) {
    loop {
        let read = queue.wait(READ_TIMEOUT).and_then(|_| queue.read());
        let Some(link) = link.upgrade() else { return };
        let decided = read.and_then(|packets| {
            for packet in &packets {
                // Into the inbox before another thread learns something: later changes of a name replace earlier ones.
                let mut core = link.core();
                match core.packet(packet, link.clock.now()) {
                    Fate::Pass => verdicts.decide(packet.id, true)?,
                    Fate::Drop => verdicts.decide(packet.id, false)?,
                    Fate::Reset(reset) => verdicts.replace(packet.id, &reset)?,
                    Fate::Hold(changes) => {
                        link.receiver.receive_learned(LearnedAnswer { changes, packet: Some(packet.id) });
                    }
                }
                drop(core);
            }
            Ok(())
        });
        if let Err(error) = decided {
            let err = error_chain::with_causes(&error);
            tracing::warn!(
                err,
                "reading DNS messages failed, retrying; those of pods with rules by name are dropped"
            );
            thread::sleep(RETRY);
        }
    }
}

/// Removes addresses whose time is over and that no connection uses, and saves the others. Begins with those whose time was over while no
/// agent ran.
pub(super) fn upkeep(mut kernel: Kernel, link: &Weak<Link>, file: Option<&NamesFile>) {
    while let Some(link) = link.upgrade() {
        let now = link.clock.now();
        let expiring = link.core().expiring(now.seconds);
        let listed = if expiring.is_empty() { Some(Vec::new()) } else { connections(&mut kernel, &expiring) };
        let mut core = link.core();
        let used =
            listed.map(|listed| core.used(listed.iter().map(|entry| (entry.source, entry.destination))));
        // What can't be seen is taken to be in use.
        let is_in_use = |address: IpAddr| used.as_ref().is_none_or(|used| used.contains(&address));
        let changes = core.expire(now, is_in_use);
        if !changes.is_empty() {
            link.receiver.receive_learned(LearnedAnswer { changes, packet: None });
        }
        drop(core);
        save(&link, file);
        drop(link);
        thread::sleep(UPKEEP);
    }
}

/// Lists the connections of these addresses.
fn connections(kernel: &mut Kernel, addresses: &BTreeSet<IpAddr>) -> Option<Vec<ConntrackEntry>> {
    match conntrack::list(kernel, addresses) {
        Ok(entries) => Some(entries),
        Err(error) => {
            let err = error_chain::with_causes(&error);
            tracing::warn!(err, "cannot list connections, expired addresses of names stay allowed");
            None
        }
    }
}

/// Writes the names if they have changed.
pub(super) fn save(link: &Link, file: Option<&NamesFile>) {
    let Some(file) = file else { return };
    let Some(unsaved) = link.core().unsaved(link.clock.ahead()) else { return };
    let error = match unsaved {
        Ok(content) => file.write(&content).err().map(|error| error_chain::with_causes(&error)),
        Err(error) => Some(error_chain::with_causes(&error)),
    };
    if let Some(err) = error {
        link.core().keep_unsaved();
        tracing::warn!(err, "cannot save learned names, retrying; they are lost if the agent restarts");
    }
}
