//! The elements of `protocols` (ClusterNetworkPolicy, SEMANTICS C15, C16) and `ports` (v1alpha1, B11, B12).

use palisade_policy::{PortEntry, PortMatch, Protocol};

use super::unusable::AdmittedReader;
use crate::{
    decode::{Fields, quoted},
    names,
    tree::At,
};

impl AdmittedReader<'_, '_> {
    pub(super) fn port(&mut self, at: &At<'_>) -> Option<PortEntry> {
        let origin = Some(self.cx.origin(at));
        let (kind, at) = self.only_field(at, self.crd.ports(), "port")?;
        let port = match kind {
            "tcp" => self.destination_port(&at, Protocol::Tcp),
            "udp" => self.destination_port(&at, Protocol::Udp),
            "sctp" => self.destination_port(&at, Protocol::Sctp),
            "portNumber" => {
                let fields = self.fields(&at, &["protocol", "port"])?;
                let (protocol, port) = (self.protocol(fields), self.number_field(fields, "port"));
                port.zip(protocol).map(|(n, protocol)| PortMatch::Numbers { protocol, first: n, last: n })
            }
            "portRange" => {
                let fields = self.fields(&at, &["protocol", "start", "end"])?;
                let protocol = self.protocol(fields);
                self.range(fields).zip(protocol).map(|(r, p)| numbers(p, r))
            }
            // destinationNamedPort, namedPort
            _ => self.named(&at),
        };
        Some(PortEntry { port: port?, origin })
    }

    /// Reads `tcp: {destinationPort: …}`. A missing destination port doesn't match all ports (SEMANTICS C1).
    fn destination_port(&mut self, at: &At<'_>, protocol: Protocol) -> Option<PortMatch> {
        let (_, at) = self.only_field(at, &["destinationPort"], "protocol match")?;
        let (kind, at) = self.only_field(&at, &["number", "range"], "port")?;
        if kind == "number" {
            return self.number(&at).map(|n| numbers(protocol, (n, n)));
        }
        let fields = self.fields(&at, &["start", "end"])?;
        self.range(fields).map(|range| numbers(protocol, range))
    }

    /// Reads a named port. It has no protocol: it matches what the destination pod declares under the name (SEMANTICS
    /// B12, C15).
    fn named(&mut self, at: &At<'_>) -> Option<PortMatch> {
        let name = self.cx.string(at)?;
        if name.is_empty() {
            self.unusable(at, "an empty port name");
            return None;
        }
        Some(PortMatch::Named { protocol: None, name: self.cx.names.name(name) })
    }

    /// Reads `protocol` of v1alpha1: TCP if it is absent. The API server admits any string (SEMANTICS B1).
    fn protocol(&mut self, fields: Fields<'_>) -> Option<Protocol> {
        let Some(at) = fields.get("protocol") else { return Some(Protocol::Tcp) };
        match self.cx.string(&at)? {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => {
                self.unusable(&at, format!("{} is none of the protocols TCP, UDP and SCTP", quoted(&at)));
                None
            }
        }
    }

    /// Reads `start` and `end`, which v1alpha1 admits in the wrong order (SEMANTICS B1, B.3).
    fn range(&mut self, fields: Fields<'_>) -> Option<(u16, u16)> {
        let (first, last) = (self.number_field(fields, "start"), self.number_field(fields, "end"));
        let (first, last) = first.zip(last)?;
        if first > last {
            self.unusable(fields.at, format!("the range ends at {last}, before its start {first}"));
            return None;
        }
        Some((first, last))
    }

    fn number_field(&mut self, fields: Fields<'_>, name: &str) -> Option<u16> {
        let at = self.required(fields, name)?;
        self.number(&at)
    }

    fn number(&mut self, at: &At<'_>) -> Option<u16> {
        let number = self.cx.int32(at)?;
        if let Some(message) = names::port_number(number.into()) {
            self.unusable(at, format!("{number}: {message}"));
            return None;
        }
        u16::try_from(number).ok()
    }
}

fn numbers(protocol: Protocol, (first, last): (u16, u16)) -> PortMatch {
    PortMatch::Numbers { protocol, first, last }
}
