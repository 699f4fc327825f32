//! Tens of thousands of connections that a change denies. While they are revoked, another change takes effect, and nothing is forgotten if
//! the agent is killed in between. The speed is measured by `cargo bench -p palisade-agent --bench reviews`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use libtest_mimic::Failed;
use palisade_agent::{NftDataPlane, NodeAgent, Report, source::directory};
use palisade_lab::{Sandbox, with_causes};
use palisade_nft::{Kernel, conntrack};
use palisade_policy::{Cluster, Family};
use serde_json::Value;

use crate::{
    entries::{self, Entry},
    harness::{Test, ensure},
    testbed::{NEAR, PodNetwork, Testbed, ingress_from},
};

pub(crate) const TESTS: &[Test] =
    &[("many_connections::a_change_takes_effect_while_others_are_reviewed", changes_first)];

const CONNECTIONS: u32 = 34_000;
const PORT: u16 = 9000;

type Agent = NodeAgent<NftDataPlane>;

/// The agent's calls, in the node's namespace.
struct Node<'a> {
    testbed: &'a Testbed,
    agent: Agent,
}

impl<'a> Node<'a> {
    fn start(testbed: &'a Testbed) -> Result<Self, Failed> {
        let plane = testbed.within(NEAR, NftDataPlane::open)??;
        Ok(Self { testbed, agent: NodeAgent::new(NEAR.into(), plane) })
    }

    fn call(&mut self, f: impl FnOnce(&mut Agent) -> Report + Send) -> Result<Report, Failed> {
        let mut report = self.testbed.within(NEAR, || f(&mut self.agent))?;
        report.errors.pop().map_or(Ok(report), |e| Err(with_causes(&e).into()))
    }

    /// Commits the difference to a cluster. The review that follows has only begun.
    fn apply(&mut self, cluster: &Cluster) -> Result<Report, Failed> {
        self.call(|agent| agent.snapshot(cluster.clone()))
    }

    /// Continues the review until it has judged connections and has others left.
    fn until_in_the_middle(&mut self) -> Result<usize, Failed> {
        let mut most = 0;
        loop {
            self.call(NodeAgent::tick)?;
            match self.agent.review_state().left {
                Some(left) if left < most => return Ok(left),
                left => most = most.max(left.unwrap_or_default()),
            }
        }
    }

    /// Completes all reviews. Returns how many connections were revoked and restored.
    fn finish(&mut self) -> Result<(usize, usize), Failed> {
        let (mut revoked, mut restored) = (0, 0);
        while self.agent.review_state().unreviewed_for.is_some() {
            let report = self.call(NodeAgent::tick)?;
            (revoked, restored) = (revoked + report.revoked, restored + report.restored);
        }
        Ok((revoked, restored))
    }

    /// The number of entries with the label of revoked connections.
    fn labelled(&self) -> Result<usize, Failed> {
        let count = || Ok(conntrack::list_revoked(&mut Kernel::open()?)?.len());
        self.testbed.within(NEAR, count)?.map_err(|e: palisade_nft::Error| with_causes(&e).into())
    }
}

fn client(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 + n).into()
}

fn changes_first(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
    let mut read = |policies: &[Value]| -> Result<Cluster, Failed> {
        testbed.write_policies(policies)?;
        Ok(directory::read(&testbed.folder().join("manifests"))?.0)
    };
    let (srv, open) = (ingress_from("srv", &["client"]), ingress_from("open", &["client"]));
    let nothing = read(&[])?;
    let one = read(std::slice::from_ref(&srv))?;
    let both = read(&[srv, open])?;
    let (srv, open) = (testbed.address("srv", Family::V4)?, testbed.address("open", Family::V4)?);

    let mut node = Node::start(&testbed)?;
    node.apply(&nothing)?;
    node.finish()?;
    let all = (0..CONNECTIONS).map(|n| Entry::plain([client(n), srv], [40_000, 80]));
    testbed.within(NEAR, || entries::create(all))?;
    let _listener = testbed.within("open", || TcpListener::bind((open, PORT)))??;
    let reaches = || -> Result<bool, Failed> {
        let to = SocketAddr::new(open, PORT);
        testbed.within("bad", || TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok())
    };
    ensure(reaches()?, || "denied without a policy".to_owned())?;

    node.apply(&one)?;
    node.until_in_the_middle()?;
    let report = node.apply(&both)?;
    let left = node.agent.review_state().left.unwrap_or_default();
    ensure(!reaches()?, || "allowed after the commit of the policy that denies it".to_owned())?;
    ensure(report.commits.len() == 1 && left > 0, || format!("{report:?} with {left} connections left"))?;
    let (revoked, _) = node.finish()?;
    // The connection that was made above is one more, if its entry still exists.
    let range = CONNECTIONS as usize..=CONNECTIONS as usize + 1;
    ensure(range.contains(&revoked), || format!("{revoked} of {CONNECTIONS} were revoked"))?;
    let labelled = node.labelled()?;
    ensure(range.contains(&labelled), || format!("{labelled} of {revoked} entries have the label"))?;

    // Killed while it restores them, and again while it revokes them.
    node.apply(&nothing)?;
    let left = node.until_in_the_middle()?;
    drop(node);
    let mut node = Node::start(&testbed)?;
    node.apply(&nothing)?;
    let (_, restored) = node.finish()?;
    let labelled = node.labelled()?;
    ensure(labelled == 0 && restored > 0, || format!("{labelled} are left of {left}, {restored} restored"))?;
    node.apply(&one)?;
    node.until_in_the_middle()?;
    drop(node);
    let mut node = Node::start(&testbed)?;
    node.apply(&one)?;
    node.finish()?;
    let labelled = node.labelled()?;
    ensure(labelled == CONNECTIONS as usize, || format!("{labelled} of {CONNECTIONS} have the label"))
}
