//! Listings.

use std::io;

use nix::libc::{EBUSY, ENOBUFS, ENOENT};

use super::{
    DONE, DUMP, DUMP_ATTEMPTS, INET, INTERRUPTED, Kernel, LOST_IN_A_ROW, NFTABLES, REQUEST, Reply,
    SHORT_DUMP_ATTEMPTS, Writer, replies,
};
use crate::{
    Error,
    encode::{finish, header},
};

impl Kernel {
    /// Lists nf_tables objects of one table or set, which the filter names; gives the attributes of each. What others do to
    /// their tables meanwhile doesn't matter: see [`Witness`].
    pub(crate) fn dump_of_table(&mut self, kind: u16, filter: &[(u16, &str)]) -> Result<Vec<Vec<u8>>, Error> {
        self.dump_of_table_in(INET, kind, filter)
    }

    /// [`Kernel::dump_of_table`] of another family.
    pub(crate) fn dump_of_table_in(
        &mut self,
        family: u8,
        kind: u16,
        filter: &[(u16, &str)],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let body = names(filter);
        for _ in 0..DUMP_ATTEMPTS {
            if let Some((out, _)) =
                self.dump_once((NFTABLES << 8) | kind, family, &body, "nftables", &attributes)?
            {
                return Ok(out);
            }
        }
        Err(Error::NeverQuiet(DUMP_ATTEMPTS))
    }

    /// Lists nf_tables objects where the kernel knows no filter, and counts those of other tables of the family: an
    /// interrupted listing may lack some, and is begun anew. Gives the attributes of each.
    pub(crate) fn dump_of_family(&mut self, family: u8, kind: u16) -> Result<Vec<Vec<u8>>, Error> {
        for _ in 0..SHORT_DUMP_ATTEMPTS {
            let listed = self.dump_once((NFTABLES << 8) | kind, family, &[], "nftables", &attributes)?;
            if let Some((out, true)) = listed {
                return Ok(out);
            }
        }
        Err(Error::NeverQuiet(SHORT_DUMP_ATTEMPTS))
    }

    /// The attributes of one nf_tables object; none if there is none of that name.
    pub(crate) fn get(
        &mut self,
        family: u8,
        kind: u16,
        name: &[(u16, &str)],
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut request = header((NFTABLES << 8) | kind, REQUEST, family, 0);
        request.raw(&names(name));
        let sequence = self.send_request(finish(request))?;
        loop {
            for reply in self.receive(sequence)? {
                match reply.complaint() {
                    Some(complaint) if complaint.errno == ENOENT => return Ok(None),
                    Some(complaint) => return Err(complaint.refused("reading of nftables".to_owned(), 0)),
                    None if reply.kind >> 8 == NFTABLES => return Ok(Some(reply.attributes().to_vec())),
                    None => {}
                }
            }
        }
    }

    /// Lists what a request asks for, as `parse` sees it.
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
        Err(Error::NeverQuiet(DUMP_ATTEMPTS))
    }

    /// Lists everything of a kind. Where it changes during all attempts, the last one counts: some may be missing, or there
    /// twice.
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
        last.ok_or(Error::NeverQuiet(DUMP_ATTEMPTS))
    }

    /// One attempt to list what a request asks for, and whether nothing changed meanwhile; none where part of it was lost.
    fn dump_once<T>(
        &mut self,
        kind: u16,
        family: u8,
        body: &[u8],
        what: &str,
        parse: &impl Fn(&Reply) -> Option<T>,
    ) -> Result<Option<(Vec<T>, bool)>, Error> {
        let mut request = header(kind, REQUEST | DUMP, family, 0);
        request.raw(body);
        let sequence = self.send_request(finish(request))?;
        self.collect(sequence, what, parse)
    }

    /// What a dump lists, and whether nothing changed meanwhile; none where part of it was lost.
    fn collect<T>(
        &mut self,
        sequence: u32,
        what: &str,
        parse: &impl Fn(&Reply) -> Option<T>,
    ) -> Result<Option<(Vec<T>, bool)>, Error> {
        let (mut out, mut whole) = (Vec::new(), true);
        loop {
            self.witness.listen();
            let replies = match self.receive(sequence) {
                // Some of the listing was lost, or couldn't be made; the kernel is still at the rest of it.
                Err(Error::Socket { source, .. }) if source.raw_os_error() == Some(ENOBUFS) => {
                    self.finish_dump()?;
                    return Ok(None);
                }
                other => other?,
            };
            for reply in replies {
                whole &= reply.flags & INTERRUPTED == 0;
                if let Some(complaint) = reply.complaint() {
                    if complaint.errno == EBUSY {
                        // One that was given up earlier goes on, now that its socket is read again.
                        self.finish_dump()?;
                        return Ok(None);
                    }
                    return Err(complaint.refused(format!("listing of {what}"), 0));
                }
                if reply.kind == DONE {
                    return Ok(Some((out, whole)));
                }
                out.extend(parse(&reply));
            }
        }
    }

    /// Reads what is left of a listing that was given up: before its end the kernel begins no other on the same socket.
    fn finish_dump(&mut self) -> Result<(), Error> {
        let mut lost = 0;
        while lost < LOST_IN_A_ROW {
            match self.transport.receive(false) {
                Ok(datagram) if replies(&datagram).any(|reply| reply.kind == DONE) => break,
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

/// The names of a table and of what is in it, as attributes.
fn names(of: &[(u16, &str)]) -> Vec<u8> {
    let mut body = Writer::default();
    for (attribute, name) in of {
        body.text(*attribute, name);
    }
    body.into_bytes()
}

fn attributes(reply: &Reply) -> Option<Vec<u8>> {
    Some(reply.attributes().to_vec())
}
