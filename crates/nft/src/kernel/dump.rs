//! Dumps: listing kernel objects.

use std::io;

use nix::libc::{EBUSY, ENOBUFS, ENOENT};

use super::{Kernel, Reply, replies};
use crate::{
    Error,
    encode::{AttributeWriter, finish, header},
    uapi::{
        netfilter::NFPROTO_INET,
        netlink::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE},
        nfnetlink::{NFNL_SUBSYS_NFTABLES, message_type, subsystem_of},
    },
};

/// How often a dump is repeated because changes by other programs interrupted it.
const DUMP_ATTEMPTS: usize = 8;

/// The same for short dumps, most of which complete before the next transaction of a busy program.
const SHORT_DUMP_ATTEMPTS: usize = 1024;

/// How many losses in a row end the reading of an abandoned dump.
const MAX_LOSSES_IN_A_ROW: usize = 64;

impl Kernel {
    /// Lists nf_tables objects of the table or set that the filter names. Returns the attributes of each.
    ///
    /// Changes of other tables meanwhile don't matter: see [`crate::reader::ChangeDetector`].
    pub(crate) fn dump_of_table(&mut self, kind: u16, filter: &[(u16, &str)]) -> Result<Vec<Vec<u8>>, Error> {
        self.dump_of_table_in(NFPROTO_INET, kind, filter)
    }

    /// [`Kernel::dump_of_table`] in another family.
    pub(crate) fn dump_of_table_in(
        &mut self,
        family: u8,
        kind: u16,
        filter: &[(u16, &str)],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let (kind, body) = (message_type(NFNL_SUBSYS_NFTABLES, kind), names(filter));
        for _ in 0..DUMP_ATTEMPTS {
            if let Some((out, _)) = self.dump_once(kind, family, &body, "nftables", &attributes)? {
                return Ok(out);
            }
        }
        Err(Error::KeepsChanging(DUMP_ATTEMPTS))
    }

    /// Lists nf_tables objects of all tables of a family, for requests without a filter. Returns the attributes of each.
    ///
    /// Such a dump may lack objects if it is interrupted, so it is repeated.
    pub(crate) fn dump_of_family(&mut self, family: u8, kind: u16) -> Result<Vec<Vec<u8>>, Error> {
        let kind = message_type(NFNL_SUBSYS_NFTABLES, kind);
        for _ in 0..SHORT_DUMP_ATTEMPTS {
            let listed = self.dump_once(kind, family, &[], "nftables", &attributes)?;
            if let Some((out, true)) = listed {
                return Ok(out);
            }
        }
        Err(Error::KeepsChanging(SHORT_DUMP_ATTEMPTS))
    }

    /// Returns the attributes of one nf_tables object, or `None` if it doesn't exist.
    pub(crate) fn get(
        &mut self,
        family: u8,
        kind: u16,
        name: &[(u16, &str)],
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut request = header(message_type(NFNL_SUBSYS_NFTABLES, kind), NLM_F_REQUEST, family, 0);
        request.raw(&names(name));
        let sequence = self.send_request(finish(request))?;
        loop {
            for reply in self.receive(sequence)? {
                match reply.error() {
                    Some(error) if error.errno == ENOENT => return Ok(None),
                    Some(error) => return Err(error.refused("reading of nftables".to_owned(), 0)),
                    None if subsystem_of(reply.kind) == NFNL_SUBSYS_NFTABLES => {
                        return Ok(Some(reply.attributes().to_vec()));
                    }
                    None => {}
                }
            }
        }
    }

    /// Lists what a request selects, parsed by `parse`.
    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        family: u8,
        body: &[u8],
        what: &str,
        parse: impl Fn(&Reply) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some((out, true)) = self.dump_once(kind, family, body, what, &parse)? {
                return Ok(out);
            }
        }
        Err(Error::KeepsChanging(DUMP_ATTEMPTS))
    }

    /// Lists all objects of a kind, consistently if possible.
    ///
    /// If all attempts are interrupted, the last one is returned. It may lack objects, or contain some twice.
    pub(crate) fn dump_loosely<T>(
        &mut self,
        kind: u16,
        family: u8,
        what: &str,
        parse: impl Fn(&Reply) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut last = None;
        for _ in 0..DUMP_ATTEMPTS {
            match self.dump_once(kind, family, &[], what, &parse)? {
                Some((out, true)) => return Ok(out),
                Some((out, false)) => last = Some(out),
                None => {}
            }
        }
        last.ok_or(Error::KeepsChanging(DUMP_ATTEMPTS))
    }

    /// Sends a dump request and reads the result: see [`Kernel::collect`].
    fn dump_once<T>(
        &mut self,
        kind: u16,
        family: u8,
        body: &[u8],
        what: &str,
        parse: &impl Fn(&Reply) -> Option<T>,
    ) -> Result<Option<(Vec<T>, bool)>, Error> {
        let mut request = header(kind, NLM_F_REQUEST | NLM_F_DUMP, family, 0);
        request.raw(body);
        let sequence = self.send_request(finish(request))?;
        self.collect(sequence, what, parse)
    }

    /// Returns what a dump lists, and whether it was uninterrupted; `None` if a part was lost.
    fn collect<T>(
        &mut self,
        sequence: u32,
        what: &str,
        parse: &impl Fn(&Reply) -> Option<T>,
    ) -> Result<Option<(Vec<T>, bool)>, Error> {
        let (mut out, mut consistent) = (Vec::new(), true);
        loop {
            self.change_detector.drain();
            let replies = match self.receive(sequence) {
                // A part was lost or could not be built. The kernel is still sending the rest.
                Err(Error::Socket { source, .. }) if source.raw_os_error() == Some(ENOBUFS) => {
                    self.finish_dump()?;
                    return Ok(None);
                }
                other => other?,
            };
            for reply in replies {
                consistent &= reply.flags & NLM_F_DUMP_INTR == 0;
                if let Some(error) = reply.error() {
                    if error.errno == EBUSY {
                        // An abandoned dump continues now that its socket is read again.
                        self.finish_dump()?;
                        return Ok(None);
                    }
                    return Err(error.refused(format!("listing of {what}"), 0));
                }
                if reply.kind == NLMSG_DONE {
                    return Ok(Some((out, consistent)));
                }
                out.extend(parse(&reply));
            }
        }
    }

    /// Reads the rest of an abandoned dump. The kernel starts no other dump on the same socket before its end.
    fn finish_dump(&mut self) -> Result<(), Error> {
        let mut lost = 0;
        while lost < MAX_LOSSES_IN_A_ROW {
            match self.transport.receive(false) {
                Ok(datagram) if replies(&datagram).any(|reply| reply.kind == NLMSG_DONE) => break,
                Ok(_) => lost = 0,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted || e.raw_os_error() == Some(ENOBUFS) => {
                    lost += 1;
                }
                Err(source) => return Err(Error::Socket { doing: "receiving", source }),
            }
        }
        Ok(())
    }
}

/// Returns names, of a table and of an object in it, as attributes.
fn names(of: &[(u16, &str)]) -> Vec<u8> {
    let mut body = AttributeWriter::default();
    for (attribute, name) in of {
        body.text(*attribute, name);
    }
    body.into_bytes()
}

fn attributes(reply: &Reply) -> Option<Vec<u8>> {
    Some(reply.attributes().to_vec())
}
