//! The right to be the only agent of a network namespace.
//!
//! It is an nftables table of its own, without chains, that its netlink socket owns (`flags owner`): the kernel takes it away
//! with the socket, however the process ends, and nobody else can change or remove it. Making one takes `CAP_NET_ADMIN` in
//! the network namespace, which is what changing the rules takes, so a process without that right can't keep the agent
//! from starting. And it belongs to the network namespace, whatever other namespaces and directories agents have.

use nix::libc::{EEXIST, EPERM};

use crate::{
    Error, Kernel,
    encode::{finish, header},
    kernel::{INET, NFTABLES, REQUEST},
    reader::Attributes,
};

/// The table's name, in the family `inet`.
pub const CLAIM: &str = "palisade-agent";

/// `NFT_MSG_NEWTABLE`, `NFT_MSG_GETTABLE`, `NFT_MSG_DELTABLE`.
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x400 | 0x200;
/// `NFTA_TABLE_NAME`, `NFTA_TABLE_FLAGS`, `NFTA_TABLE_OWNER`; `NFT_TABLE_F_OWNER`.
const NAME: u16 = 1;
const FLAGS: u16 = 2;
const OWNER: u16 = 7;
const OWNED: u32 = 2;

/// The right. Dropping it gives it away.
#[derive(Debug)]
pub struct Claim {
    _kernel: Kernel,
}

/// Why the right can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process has it.
    #[error("another process has claimed this network namespace")]
    Held {
        /// The netlink port of its socket; as a rule its process id, as its own process namespace counts.
        port: Option<u32>,
    },
    /// The kernel can't be asked.
    #[error(transparent)]
    Kernel(#[from] Error),
}

impl Claim {
    /// Takes the right in the calling thread's network namespace. Doesn't wait.
    ///
    /// # Errors
    /// When another process has it, the kernel has no nftables, or the caller may not change the firewall.
    pub fn take() -> Result<Self, ClaimError> {
        let mut kernel = Kernel::open()?;
        loop {
            match kernel.change(message(NEW, CREATE, Some(OWNED))) {
                Ok(()) => return Ok(Self { _kernel: kernel }),
                // Of this name and nobody's: what a program with the right to change the firewall has put there.
                Err(error) if error.os_error() == Some(EEXIST) => kernel.change(message(DELETE, 0, None))?,
                Err(error) if error.os_error() == Some(EPERM) => {
                    return Err(ClaimError::Held { port: kernel.owner()? });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn message(kind: u16, flags: u16, table_flags: Option<u32>) -> Vec<u8> {
    let mut message = header((NFTABLES << 8) | kind, REQUEST | flags, INET, 0);
    message.text(NAME, CLAIM);
    if let Some(table_flags) = table_flags {
        message.number(FLAGS, table_flags);
    }
    finish(message)
}

impl Kernel {
    /// Performs one message as a transaction.
    fn change(&mut self, message: Vec<u8>) -> Result<(), Error> {
        self.transaction_of_one(message, || format!("table inet {CLAIM}"))
    }

    /// The netlink port that owns the table; none if it is gone meanwhile.
    fn owner(&mut self) -> Result<Option<u32>, Error> {
        let owner = |attributes: &[u8]| {
            let attributes = Attributes(attributes);
            let is_it = attributes.get(NAME).map(crate::reader::text).as_deref() == Some(CLAIM);
            is_it.then(|| attributes.number(OWNER)).flatten()
        };
        let tables = self.dump_of_family(INET, GET).or_else(|error| match error {
            Error::NeverQuiet(_) => Ok(Vec::new()),
            other => Err(other),
        })?;
        Ok(tables.iter().find_map(|attributes| owner(attributes)))
    }
}
