//! Pods that have started closed, and when they are opened.

use std::time::{Duration, Instant};

use palisade_policy::Direction;

use crate::runtime_pods::RuntimePod;

/// How long a pod whose policies are programmed waits for the review of older connections. Where connections can't be listed, no review
/// ever ends: without this, the pod would be cut off for good, for the sake of connections that its addresses may never have had.
const UNREVIEWED_PATIENCE: Duration = Duration::from_secs(30);

/// A pod that has started closed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) pod: RuntimePod,
    /// In which directions.
    pub(super) directions: Vec<Direction>,
    /// Since when its policies are programmed. It is opened when the connections that are older are reviewed.
    pub(super) programmed: Option<Instant>,
}

/// Whether a closed pod is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Not yet.
    Waits,
    /// All connections that are older than its policies are reviewed.
    Reviewed,
    /// It has waited long enough for a review.
    Unreviewed,
}

impl Closed {
    pub(super) fn new(pod: &RuntimePod) -> Self {
        Self { pod: pod.clone(), directions: Direction::BOTH.to_vec(), programmed: None }
    }

    /// Whether it is opened now. `unreviewed_for` is the age of the oldest change after which connections are not reviewed.
    pub(super) fn opening(&self, unreviewed_for: Option<Duration>, now: Instant) -> Opening {
        let Some(programmed) = self.programmed else { return Opening::Waits };
        let since = now.saturating_duration_since(programmed);
        if unreviewed_for.is_none_or(|age| age < since) {
            Opening::Reviewed
        } else if since >= UNREVIEWED_PATIENCE {
            Opening::Unreviewed
        } else {
            Opening::Waits
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use palisade_policy::{ObjectKey, Uid};

    use super::*;

    #[test]
    fn a_pod_is_opened_after_a_review_or_when_none_ends() {
        let pod = RuntimePod {
            id: "4f2a".to_owned(),
            key: ObjectKey::new("shop", "db"),
            uid: Uid::parse("u"),
            labels: None,
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            network_namespace: None,
        };
        let (mut closed, begin) = (Closed::new(&pod), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        // However long its policies are unknown.
        assert_eq!(closed.opening(None, at(3600)), Opening::Waits);
        closed.programmed = Some(begin);
        assert_eq!(closed.opening(None, begin), Opening::Reviewed);
        // The oldest change that is not reviewed is younger than its policies.
        assert_eq!(closed.opening(Some(Duration::from_secs(2)), at(5)), Opening::Reviewed);
        // Reviews fail.
        assert_eq!(closed.opening(Some(Duration::from_secs(5)), at(5)), Opening::Waits);
        assert_eq!(closed.opening(Some(Duration::from_secs(90)), at(29)), Opening::Waits);
        assert_eq!(closed.opening(Some(Duration::from_secs(90)), at(30)), Opening::Unreviewed);
    }
}
