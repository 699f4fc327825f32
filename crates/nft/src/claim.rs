//! The right to be the only agent of a network namespace.
//!
//! The claim is a separate nftables table without chains that the agent's netlink socket owns (`flags owner`). The kernel
//! deletes it with the socket, however the process ends, and no other process can change or delete it. Creating it requires
//! `CAP_NET_ADMIN` in the network namespace, as changing the rules does. So a process without that right can't keep the
//! agent from starting. The claim belongs to the network namespace, whatever other namespaces and directories agents use.
//!
//! Before Linux 5.12 tables had no owners. There the claim is the binding of an nflog group to which nothing is logged: it too
//! requires `CAP_NET_ADMIN`, belongs to the network namespace, and ends with its socket.

use std::fs;

use nix::libc::{EBUSY, EEXIST, EINVAL, EPERM};

use crate::{
    Error, Kernel,
    drops::DropEventReader,
    encode::{finish, header},
    reader::Attributes,
    uapi::{
        netfilter::NFPROTO_INET,
        netlink::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST},
        nf_tables::{
            NFT_MSG_DELTABLE, NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, NFT_TABLE_F_OWNER, NFTA_TABLE_FLAGS,
            NFTA_TABLE_NAME, NFTA_TABLE_OWNER,
        },
        nfnetlink::{NFNL_SUBSYS_NFTABLES, message_type},
    },
};

/// The table's name, in the family `inet`.
pub const CLAIM: &str = "palisade-agent";

/// The nflog group that is the claim on kernels without table owners. It follows the group of denied packets.
const CLAIM_GROUP: u16 = 9044;

/// The claim. Dropping it releases it.
#[derive(Debug)]
pub struct Claim {
    _holder: Holder,
}

/// The socket with which the claim ends.
#[derive(Debug)]
enum Holder {
    Table { _kernel: Kernel },
    LogGroup { _reader: DropEventReader },
}

/// Why the claim could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process holds it.
    #[error("another process has claimed this network namespace")]
    Held {
        /// The netlink port of its socket, usually its process id in its own PID namespace.
        port: Option<u32>,
    },
    /// A request to the kernel failed.
    #[error(transparent)]
    Kernel(#[from] Error),
}

impl Claim {
    /// Takes the claim in the calling thread's network namespace. Doesn't wait.
    ///
    /// # Errors
    /// If another process holds it, the kernel has no nftables, or the caller may not change the firewall.
    pub fn take() -> Result<Self, ClaimError> {
        Self::take_with(Kernel::open()?)
    }

    /// [`Claim::take`] with an open connection to the kernel, whose network namespace must be that of the calling thread.
    ///
    /// # Errors
    /// As [`Claim::take`].
    pub fn take_with(mut kernel: Kernel) -> Result<Self, ClaimError> {
        loop {
            match kernel.change(message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, Some(NFT_TABLE_F_OWNER)))
            {
                Ok(()) => return Ok(Self { _holder: Holder::Table { _kernel: kernel } }),
                // A table of this name without an owner: a program with the right to change the firewall created it.
                Err(error) if error.os_error() == Some(EEXIST) => {
                    kernel.change(message(NFT_MSG_DELTABLE, 0, None))?;
                }
                Err(error) if error.os_error() == Some(EPERM) => {
                    return Err(ClaimError::Held { port: kernel.owner()? });
                }
                Err(error) if error.os_error() == Some(EINVAL) => {
                    // Its port is the process id, by which others name the holder.
                    drop(kernel);
                    return Self::take_log_group();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_log_group() -> Result<Self, ClaimError> {
        match DropEventReader::open(CLAIM_GROUP) {
            Ok(reader) => Ok(Self { _holder: Holder::LogGroup { _reader: reader } }),
            Err(Error::LogGroupBusy { source, .. })
                if matches!(source.raw_os_error(), Some(EPERM | EBUSY)) =>
            {
                let groups = fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log");
                Err(ClaimError::Held { port: groups.ok().and_then(|groups| reader_of(CLAIM_GROUP, &groups)) })
            }
            Err(Error::LogGroupBusy { source, .. }) => {
                let object = "claiming this network namespace needs Linux 5.12, or the module nfnetlink_log";
                Err(Error::Refused { object: object.into(), reason: source, kernel_message: None, more: 0 }
                    .into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn message(kind: u16, flags: u16, table_flags: Option<u32>) -> Vec<u8> {
    let kind = message_type(NFNL_SUBSYS_NFTABLES, kind);
    let mut message = header(kind, NLM_F_REQUEST | flags, NFPROTO_INET, 0);
    message.text(NFTA_TABLE_NAME, CLAIM);
    if let Some(table_flags) = table_flags {
        message.number(NFTA_TABLE_FLAGS, table_flags);
    }
    finish(message)
}

/// Returns the netlink port of a group's reader: the second column of `/proc/net/netfilter/nfnetlink_log`, after the group.
fn reader_of(group: u16, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let is_group = columns.next()?.parse() == Ok(group);
        is_group.then(|| columns.next()?.parse().ok()).flatten()
    })
}

impl Kernel {
    /// Sends one message as a transaction.
    fn change(&mut self, message: Vec<u8>) -> Result<(), Error> {
        self.transaction_of_one(message, || format!("table inet {CLAIM}"))
    }

    /// Returns the netlink port that owns the table, or `None` if the table was deleted meanwhile.
    fn owner(&mut self) -> Result<Option<u32>, Error> {
        let owner = |attributes: &[u8]| {
            let attributes = Attributes(attributes);
            let is_claim = attributes.text(NFTA_TABLE_NAME).as_deref() == Some(CLAIM);
            is_claim.then(|| attributes.number(NFTA_TABLE_OWNER)).flatten()
        };
        let tables = self.dump_of_family(NFPROTO_INET, NFT_MSG_GETTABLE).or_else(|error| match error {
            Error::KeepsChanging(_) => Ok(Vec::new()),
            other => Err(other),
        })?;
        Ok(tables.iter().find_map(|attributes| owner(attributes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_of_a_group_is_in_the_second_column() {
        let groups = " 9043   4711     0 2   256      5  1\n 9044     17     0 2   256      5  1\n";
        assert_eq!(reader_of(9044, groups), Some(17));
        assert_eq!(reader_of(9043, groups), Some(4711));
        assert_eq!(reader_of(1, groups), None);
        assert_eq!(reader_of(1, "1\n"), None);
    }
}
