//! Five-tuples as CSV, as flow collectors and firewalls write them. The first line names the columns.

use palisade_analysis::replay::{RecordedEnd, RecordedFlow, RecordedOwner};

use super::{
    line::{Line, Seen, port, protocol},
    names,
};

/// The names of a column. Others than these are ignored.
const COLUMNS: [(Column, &[&str]); 7] = [
    (Column::Source, &["source", "src", "source_ip", "src_ip", "srcaddr", "source_address"]),
    (
        Column::Destination,
        &["destination", "dst", "destination_ip", "dst_ip", "dstaddr", "destination_address"],
    ),
    (Column::Protocol, &["protocol", "proto"]),
    (Column::Port, &["port", "destination_port", "dst_port", "dstport", "dport"]),
    (Column::Verdict, &["verdict", "action"]),
    (Column::Count, &["count", "packets", "connections"]),
    (Column::Name, &["destination_name", "dst_name", "destination_host", "dst_host"]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Source,
    Destination,
    Protocol,
    Port,
    Verdict,
    Count,
    Name,
}

/// The columns of a file, by place.
#[derive(Debug)]
pub(super) struct Columns {
    places: [Option<usize>; 7],
    number: usize,
}

impl Columns {
    /// Reads the first line.
    pub(super) fn of(header: &str) -> Result<Self, String> {
        let names: Vec<String> = fields(header)?.iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut places = [None; 7];
        for (place, (column, known)) in places.iter_mut().zip(COLUMNS) {
            let mut found = (0..names.len()).filter(|at| known.contains(&&*names[*at]));
            *place = found.next();
            if found.next().is_some() {
                return Err(format!("more than one column is named {}", known.join(" or ")));
            }
            if place.is_none() && !matches!(column, Column::Verdict | Column::Count | Column::Name) {
                return Err(format!(
                    "neither JSON nor CSV with a header: no column is named {}",
                    known.join(" or ")
                ));
            }
        }
        Ok(Self { places, number: names.len() })
    }

    /// Reads another line.
    pub(super) fn record(&self, line: &str) -> Result<Line, String> {
        let fields = fields(line)?;
        if fields.len() != self.number {
            return Err(format!("{} fields, but the header has {}", fields.len(), self.number));
        }
        let field = |column: Column| {
            let place = COLUMNS.iter().position(|(known, _)| *known == column);
            place.and_then(|place| self.places[place]).map(|at| fields[at]).filter(|field| !field.is_empty())
        };
        let end = |column: Column| {
            let text = field(column).unwrap_or_default();
            let address = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
            Ok::<_, String>(RecordedEnd { address, owner: RecordedOwner::Unknown })
        };
        let (source, destination) = (end(Column::Source)?, end(Column::Destination)?);
        if source.address.is_ipv4() != destination.address.is_ipv4() {
            return Err("the addresses are of different IP families".to_owned());
        }
        let name = field(Column::Protocol).unwrap_or_default();
        let protocol =
            protocol(name, source.address.is_ipv6()).ok_or_else(|| format!("{name:?} is not a protocol"))?;
        let number =
            field(Column::Port).map(|text| text.parse().map_err(|_| format!("{text:?} is not a port")));
        let port = port(protocol, number.transpose()?)?;
        let passed = match field(Column::Verdict).map(str::to_ascii_lowercase).as_deref() {
            None | Some("forwarded" | "allowed" | "allow" | "accept" | "audited") => true,
            Some("dropped" | "denied" | "deny" | "drop" | "reject") => false,
            Some(other) => return Err(format!("{other:?} is not a verdict: forwarded or dropped")),
        };
        let count = field(Column::Count).map_or(Ok(1), |text| {
            text.parse().map_err(|_| format!("{text:?} is not a number of connections"))
        })?;
        let flow = RecordedFlow { source, destination, protocol, port };
        let names = field(Column::Name).map(|text| names::of_record(&[text.to_owned()])).unwrap_or_default();
        Ok(Line::Flow(Box::new(Seen { flow, passed, count, names })))
    }
}

/// Returns the fields of a line. Addresses, numbers and words need no commas or quotes, so a field is at most quoted as a
/// whole.
fn fields(line: &str) -> Result<Vec<&str>, String> {
    line.split(',')
        .map(|field| {
            let field = field.trim();
            let bare = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(field);
            if bare.contains('"') { Err(format!("{field:?} is not a field of CSV")) } else { Ok(bare.trim()) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(header: &str, line: &str) -> Result<(String, bool, u64), String> {
        match Columns::of(header)?.record(line)? {
            Line::Flow(seen) => {
                let RecordedFlow { source, destination, protocol, port } = seen.flow;
                let text = format!("{} {} {protocol} {port}", source.address, destination.address);
                Ok((text, seen.passed, seen.count))
            }
            Line::Skipped(_) | Line::Lost(_) => Err("no flow".to_owned()),
        }
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let header = "proto, src_ip,src_port,dst_ip,\"dst_port\",bytes";
        let found = record(header, "6,10.0.0.1,40000,10.0.0.2,\"80\",99");
        assert_eq!(found, Ok(("10.0.0.1 10.0.0.2 TCP 80".to_owned(), true, 1)));
        let found = record("source,destination,protocol,port,verdict,count", "fd00::1,fd00::2,icmp,,DROP,7");
        assert_eq!(found, Ok(("fd00::1 fd00::2 ICMPv6 0".to_owned(), false, 7)));
    }

    #[test]
    fn what_is_no_five_tuple_is_refused() {
        for header in ["source,destination,protocol", "10.0.0.1,10.0.0.2,TCP,80", "src,source,dst,proto,port"]
        {
            assert!(record(header, "").is_err(), "{header}");
        }
        let header = "source,destination,protocol,port,verdict,count";
        for line in [
            "10.0.0.1,10.0.0.2,TCP,80,,,",
            "10.0.0.1,10.0.0.2,TCP,80",
            "web,10.0.0.2,TCP,80,,",
            "10.0.0.1,fd00::1,TCP,80,,",
            "10.0.0.1,10.0.0.2,TPC,80,,",
            "10.0.0.1,10.0.0.2,TCP,0,,",
            "10.0.0.1,10.0.0.2,TCP,65536,,",
            "10.0.0.1,10.0.0.2,TCP,,,",
            "10.0.0.1,10.0.0.2,TCP,80,maybe,",
            "10.0.0.1,10.0.0.2,TCP,80,,-1",
            "10.0.0.1,10.0.0.2,TCP,80,\"a\"b,",
        ] {
            assert!(record(header, line).is_err(), "{line}");
        }
    }
}
