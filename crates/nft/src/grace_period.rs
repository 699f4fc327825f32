//! Waiting for packets that are in the middle of rules.

use nix::libc::ENOENT;

use crate::{Error, Kernel, encode::encode_in, ruleset::Message};

/// Waits until no packet is in the middle of rules that it has met before this call.
///
/// The kernel has no request for that. But before it frees what an aborted transaction has made, it waits for the packets that may have met
/// it. So this sends a transaction whose last message fails.
pub(crate) fn grace_period(kernel: &mut Kernel) -> Result<(), Error> {
    const TRIAL_TABLE: &str = "palisade_trial";
    let messages = [Message::CreateTable, Message::DeleteChain("palisade_no_such_chain".into())];
    let messages = messages.map(|message| encode_in(TRIAL_TABLE, message));
    match kernel.transaction(&messages.iter().collect::<Vec<_>>()) {
        Err(Error::Refused { reason, .. }) if reason.raw_os_error() == Some(ENOENT) => Ok(()),
        other => other.map(drop),
    }
}
