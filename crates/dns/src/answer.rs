//! Answers, compared with their queries.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};

use crate::{
    Query,
    chain::{self, BadRecords},
};

/// An answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses of the name that was asked for, each with its time to live in seconds: the shortest of the records
    /// that lead to it.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Whether it didn't fit; the client usually asks again over TCP. What it contains counts nevertheless, since some
    /// clients use it.
    pub truncated: bool,
}

/// Why an answer is not one to the query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It can't be read.
    #[error("not a DNS message: {0}")]
    Malformed(String),
    /// It is a query.
    #[error("a query where an answer is expected")]
    Query,
    /// It has another id.
    #[error("the id is not that of the query")]
    Id,
    /// It repeats another question, or none, or several.
    #[error("the question is not that of the query")]
    Question,
    /// The answers to the pod are too long for as many as there are.
    #[error("the pod gets too many long answers")]
    PodLimit,
    /// Its records lead to no definite addresses.
    #[error(transparent)]
    Records(#[from] BadRecords),
}

impl Answer {
    /// Reads the answer to `query`. An answer that contains no address of the name is not an error. `O(n log n)` in the
    /// message.
    ///
    /// # Errors
    /// [`BadAnswer`]. Such a message must not be released to the client: it could contain an address that was not learned.
    pub fn read(message: &[u8], query: &Query) -> Result<Self, BadAnswer> {
        let message = Message::from_vec(message).map_err(|e| BadAnswer::Malformed(e.to_string()))?;
        let head = &message.metadata;
        if head.message_type != MessageType::Response || head.op_code != OpCode::Query {
            return Err(BadAnswer::Query);
        }
        if head.id != query.id {
            return Err(BadAnswer::Id);
        }
        let truncated = head.truncation;
        // Some servers leave out the question of an error.
        if message.queries.is_empty() && head.response_code != ResponseCode::NoError {
            return match message.answers.is_empty() {
                true => Ok(Self { addresses: Vec::new(), truncated }),
                false => Err(BadAnswer::Question),
            };
        }
        let [question] = &message.queries[..] else { return Err(BadAnswer::Question) };
        // Names compare without case.
        let is_asked = question.name == query.question.name
            && question.query_type == query.question.query_type
            && question.query_class == query.question.query_class;
        if !is_asked {
            return Err(BadAnswer::Question);
        }
        let addresses = chain::addresses(&query.question.name, &message.answers, &message.additionals)?;
        Ok(Self { addresses, truncated })
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RData, Record, RecordType, rdata::A};

    use super::*;
    use crate::query::tests::{query, read};

    fn answer(name: &str) -> Message {
        let mut message = query(name, RecordType::A).into_response();
        let data = RData::A(A::new(198, 51, 100, 1));
        message.add_answer(Record::from_rdata(Name::from_ascii(name).unwrap(), 60, data));
        message
    }

    #[test]
    fn only_the_answer_to_the_query_is_read() {
        let asked = read(&query("a.io.", RecordType::A));
        let check = |edit: fn(&mut Message)| {
            let mut message = answer("A.io.");
            edit(&mut message);
            Answer::read(&message.to_vec().unwrap(), &asked)
        };
        let expected = Answer { addresses: vec![("198.51.100.1".parse().unwrap(), 60)], truncated: false };
        assert_eq!(check(|_| {}), Ok(expected.clone()));
        assert_eq!(check(|m| m.metadata.truncation = true), Ok(Answer { truncated: true, ..expected }));
        assert_eq!(check(|m| m.metadata.id += 1), Err(BadAnswer::Id));
        assert_eq!(check(|m| m.metadata.message_type = MessageType::Query), Err(BadAnswer::Query));
        assert_eq!(check(|m| m.queries.clear()), Err(BadAnswer::Question));
        assert_eq!(check(|m| m.queries[0].query_type = RecordType::AAAA), Err(BadAnswer::Question));
        assert_eq!(
            check(|m| m.queries[0].name = Name::from_ascii("b.io.").unwrap()),
            Err(BadAnswer::Question)
        );
        assert_eq!(check(|m| m.queries.push(m.queries[0].clone())), Err(BadAnswer::Question));
    }

    #[test]
    fn an_error_contains_no_address() {
        let asked = read(&query("a.io.", RecordType::A));
        let mut refused = answer("a.io.");
        refused.metadata.response_code = ResponseCode::Refused;
        refused.queries.clear();
        let check = |m: &Message| Answer::read(&m.to_vec().unwrap(), &asked);
        assert_eq!(check(&refused), Err(BadAnswer::Question));
        refused.answers.clear();
        assert_eq!(check(&refused), Ok(Answer { addresses: Vec::new(), truncated: false }));
    }
}
