//! Service translation: destination NAT on every node, as kube-proxy does it, in a table apart from the agent's.
//!
//! ```text
//!  Layout ─► services::frontends ─► Translation::set ─► program ─► one nftables transaction
//! ```
//!
//! One verdict map from address, protocol and port leads to the chain of a service port, which chooses a backend at random. A
//! pod that reaches itself through a service is masqueraded; otherwise it would answer itself directly. A service port
//! without backends is rejected.

mod program;

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

pub use self::program::TABLE;
use self::program::{Rules, program};
use crate::{layout::Layout, namespace::Namespace, services::frontends};

/// Why the service rules of a node could not be programmed.
#[derive(Debug, thiserror::Error)]
pub enum TranslationError {
    /// The socket failed.
    #[error("netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error(
        "the kernel refused to {request}; does it have nf_tables with NAT (CONFIG_NFT_NAT, CONFIG_NFT_MASQ)?"
    )]
    Refused {
        /// The request, as text.
        request: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// The service translation of one node.
pub(crate) struct Translation {
    socket: Socket,
    programmed: Option<Rules>,
}

impl std::fmt::Debug for Translation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translation").field("programmed", &self.programmed).finish_non_exhaustive()
    }
}

impl Translation {
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, TranslationError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = namespace.run(open).and_then(|r| r).map_err(TranslationError::Socket)?;
        Ok(Self { socket, programmed: None })
    }

    /// Programs the services of `layout` in one transaction. Sends nothing if nothing changed.
    pub(crate) fn set(&mut self, layout: &Layout) -> Result<(), TranslationError> {
        let wanted: Rules = frontends(layout)
            .into_iter()
            .map(|(f, (_, backends))| (f, backends.iter().map(|b| (b.address, b.port)).collect()))
            .collect();
        if self.programmed.as_ref() == Some(&wanted) || (self.programmed.is_none() && wanted.is_empty()) {
            return Ok(());
        }
        commit(&self.socket, &wanted)?;
        self.programmed = Some(wanted);
        Ok(())
    }
}

/// Sends the transaction and waits for the kernel's reply.
fn commit(socket: &Socket, rules: &Rules) -> Result<(), TranslationError> {
    let (bytes, texts) = program(rules).finish();
    socket.send(&bytes, 0).map_err(TranslationError::Socket)?;
    // The last message before the end of the batch.
    let last = texts.len() - 2;
    loop {
        let (answer, _) = socket.recv_from_full().map_err(TranslationError::Socket)?;
        // The kernel replies with errors and acknowledgements only; their layout is the same for every netlink protocol.
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|e| TranslationError::Socket(io::Error::other(e.to_string())))?;
        let NetlinkPayload::Error(error) = message.payload else { continue };
        let at = message.header.sequence_number as usize;
        if error.code.is_some() {
            let request = texts.get(at).cloned().unwrap_or_else(|| "program the services".to_owned());
            return Err(TranslationError::Refused { request, source: error.to_io() });
        }
        if at == last {
            return Ok(());
        }
    }
}
