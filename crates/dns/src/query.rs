//! Queries.

use hickory_proto::{
    op::{self, Message, MessageType, OpCode},
    rr::{Name, RecordType},
};
use palisade_policy::DomainName;

/// A query of one name, as far as its answer is compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(crate) id: u16,
    pub(crate) question: op::Query,
}

/// Why a message is no query that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    /// It can't be read.
    #[error("not a DNS message: {0}")]
    Malformed(String),
    /// It is an answer.
    #[error("an answer where a query is expected")]
    Answer,
    /// It has another operation, such as an update or a notification.
    #[error("operation {0} is not a query")]
    Operation(u8),
    /// It has no question, or more than one.
    #[error("{0} questions in one query")]
    Questions(usize),
}

impl Query {
    /// Reads a query. `O(message)`.
    ///
    /// # Errors
    /// [`BadQuery`], if it is no standard query with one question. Such a message should not be forwarded: its answer can't
    /// be compared with it.
    pub fn read(message: &[u8]) -> Result<Self, BadQuery> {
        let message = Message::from_vec(message).map_err(|e| BadQuery::Malformed(e.to_string()))?;
        if message.metadata.message_type != MessageType::Query {
            return Err(BadQuery::Answer);
        }
        if message.metadata.op_code != OpCode::Query {
            return Err(BadQuery::Operation(message.metadata.op_code.into()));
        }
        let id = message.metadata.id;
        match <[op::Query; 1]>::try_from(message.queries) {
            Ok([question]) => Ok(Self { id, question }),
            Err(questions) => Err(BadQuery::Questions(questions.len())),
        }
    }

    /// Returns the name that is asked for; `None` if it is no host name, so that no rule can have it.
    #[must_use]
    pub fn name(&self) -> Option<DomainName> {
        host_name(&self.question.name)
    }

    /// Returns whether an answer may contain addresses.
    #[must_use]
    pub fn asks_for_addresses(&self) -> bool {
        matches!(
            self.question.query_type,
            RecordType::A | RecordType::AAAA | RecordType::ANY | RecordType::HTTPS | RecordType::SVCB
        )
    }
}

/// Returns a name of a message as a host name. `None` if a label contains a dot or anything but printable ASCII: as text,
/// it could be another name.
pub(crate) fn host_name(name: &Name) -> Option<DomainName> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    DomainName::new(&text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(op::Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    pub(crate) fn read(message: &Message) -> Query {
        Query::read(&message.to_vec().unwrap()).unwrap()
    }

    #[test]
    fn a_query_has_one_name_in_canonical_form() {
        let query = read(&query("Api.EXAMPLE.com.", RecordType::AAAA));
        assert_eq!(query.name().unwrap().as_str(), "api.example.com");
        assert!(query.asks_for_addresses());
    }

    #[test]
    fn what_cannot_be_compared_with_its_answer_is_refused() {
        let good = query("a.io.", RecordType::A);
        let bad = |edit: fn(&mut Message)| {
            let mut message = good.clone();
            edit(&mut message);
            Query::read(&message.to_vec().unwrap()).unwrap_err()
        };
        assert_eq!(bad(|m| m.metadata.message_type = MessageType::Response), BadQuery::Answer);
        assert_eq!(bad(|m| m.metadata.op_code = OpCode::Notify), BadQuery::Operation(4));
        assert_eq!(bad(|m| m.queries.clear()), BadQuery::Questions(0));
        assert_eq!(bad(|m| m.queries.push(m.queries[0].clone())), BadQuery::Questions(2));
        assert!(matches!(Query::read(&[0; 11]), Err(BadQuery::Malformed(_))));
    }

    #[test]
    fn a_dot_within_a_label_does_not_make_another_name() {
        // As text, the single label `a.example` before `com` reads like three labels.
        let name = Name::from_labels([&b"a.example"[..], b"com"]).unwrap();
        assert_eq!(host_name(&name), None);
        assert_eq!(host_name(&Name::from_labels([&b"a\xff"[..], b"com"]).unwrap()), None);
        assert_eq!(host_name(&Name::root()), None);
    }
}
