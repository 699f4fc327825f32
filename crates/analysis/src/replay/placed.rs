//! Recorded connections as flows of a cluster.

use palisade_policy::{Cluster, Flow};

use super::{
    ends::{PlacedEnds, flow},
    place::Stage,
    record::{NotJudged, RecordedFlow},
};

/// Recorded connections, and the cluster in which they are flows.
#[derive(Clone, Debug)]
pub struct PlacedRecording {
    /// The cluster, with the recorded pods that are gone.
    pub cluster: Cluster,
    /// What each record stands for, in order.
    pub flows: Vec<Result<PlacedFlow, NotJudged>>,
}

/// What a recorded connection stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFlow {
    /// The flow; of a connection to a service, one to each pod behind it. Never empty.
    pub flows: Vec<Flow>,
    /// Whether it is a connection of the pod's own node, which policies always allow (SEMANTICS A39).
    pub from_own_node: bool,
}

/// Places recorded connections in a cluster, as [`super::judge`] does. `O(flows × pods)`; ends that recur are placed once.
#[must_use]
pub fn place_all(cluster: &Cluster, flows: &[RecordedFlow]) -> PlacedRecording {
    let mut stage = Stage::new(cluster);
    let flows = flows.iter().map(|recorded| {
        let RecordedFlow { protocol, port, .. } = *recorded;
        Ok(match stage.ends(recorded)? {
            PlacedEnds::OwnNode { source, destination } => PlacedFlow {
                flows: vec![flow(&source.endpoint, &destination.endpoint, protocol, port, false)],
                from_own_node: true,
            },
            PlacedEnds::Direct { source, destination } => PlacedFlow {
                flows: vec![flow(&source.endpoint, &destination.endpoint, protocol, port, false)],
                from_own_node: false,
            },
            PlacedEnds::Behind { source, backends, .. } | PlacedEnds::HostPort { source, pods: backends } => {
                let each =
                    backends.iter().map(|(to, port)| flow(&source.endpoint, to, protocol, *port, true));
                PlacedFlow { flows: each.collect(), from_own_node: false }
            }
        })
    });
    let flows = flows.collect();
    PlacedRecording { cluster: stage.cluster, flows }
}
