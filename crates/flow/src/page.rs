//! Requests for records, and pages of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Filter, Record};

/// A request for records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRequest {
    /// Only records with a greater id; 0 for all.
    #[serde(default)]
    pub after: u64,
    /// Only this many of the latest records that match.
    #[serde(default)]
    pub last: Option<usize>,
    /// Which records.
    #[serde(default)]
    pub filter: Filter,
    /// How long to wait for a record if there is none, in milliseconds.
    #[serde(default)]
    pub wait_milliseconds: u64,
}

/// Records of one node, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// The records.
    pub records: Vec<Record>,
    /// To be given as [`FlowRequest::after`] to go on. Less than that if the agent has started again since.
    pub next: u64,
    /// Whether there are more right now.
    pub more: bool,
    /// How many records have made room for others since the agent started.
    pub evicted: u64,
    /// How many packets have no record since the agent started, because there were too many at once.
    pub unrecorded: u64,
    /// How many forwarded connections have no record since the agent started, for the same reason.
    #[serde(default)]
    pub connections_unrecorded: u64,
    /// How often announcements of connections were lost since the agent started. Each time, at least one connection has no record.
    #[serde(default)]
    pub connection_overruns: u64,
    /// When the agent started. Ids start from 1 again when the agent restarts.
    pub started: Timestamp,
    /// When the page was written, by the node's clock. `None` from agents that don't tell.
    #[serde(default)]
    pub now: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::example;

    #[test]
    fn a_page_is_one_line_and_pages_of_older_agents_are_read() {
        let page = FlowPage { records: vec![example()], next: 7, ..FlowPage::default() };
        let line = serde_json::to_string(&page).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<FlowPage>(&line).unwrap(), page);
        let newer = r#","connections_unrecorded":0,"connection_overruns":0"#;
        let without = line.replace(r#","now":null"#, "").replace(newer, "");
        assert!(!without.contains("now") && !without.contains("overruns"), "{without}");
        assert_eq!(serde_json::from_str::<FlowPage>(&without).unwrap(), page);
    }
}
