//! The right to be the only agent of a network namespace.
//!
//! The claim is a separate nftables table without chains that the agent's netlink socket owns (`flags owner`). The kernel
//! deletes it with the socket, however the process ends, and no other process can change or delete it. Creating it requires
//! `CAP_NET_ADMIN` in the network namespace, as changing the rules does. So a process without that right can't keep the
//! agent from starting. The claim belongs to the network namespace, whatever other namespaces and directories agents use.

use nix::libc::{EEXIST, EPERM};

use crate::{
    Error, Kernel,
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

/// The claim. Dropping it releases it.
#[derive(Debug)]
pub struct Claim {
    _kernel: Kernel,
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
        let mut kernel = Kernel::open()?;
        loop {
            match kernel.change(message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, Some(NFT_TABLE_F_OWNER)))
            {
                Ok(()) => return Ok(Self { _kernel: kernel }),
                // A table of this name without an owner: a program with the right to change the firewall created it.
                Err(error) if error.os_error() == Some(EEXIST) => {
                    kernel.change(message(NFT_MSG_DELTABLE, 0, None))?;
                }
                Err(error) if error.os_error() == Some(EPERM) => {
                    return Err(ClaimError::Held { port: kernel.owner()? });
                }
                Err(error) => return Err(error.into()),
            }
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
