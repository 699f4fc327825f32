//! The smallest edits of policies that would allow a connection, or deny it, as data: which policy, which rule list,
//! what to add or take away. Every suggestion has been tried: with it, the reference answers as wanted.

use std::sync::Arc;

use ipnet::IpNet;
use palisade_policy::{
    Action, Cluster, Direction, Endpoint, Flow, IpBlock, NAMESPACE_NAME_LABEL, NamespaceMatch, ObjectKey,
    Origin, Peer, PeerEntry, Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch, PortSet, Rule, Selector,
    Tier, Traffic, Verdict, reference,
    walk::{Decider, RuleStep, Walk, walk},
};

/// One edit of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The policy; for [`EditAction::NewPolicy`], the new one's key.
    pub policy: PolicyKey,
    /// Where it begins.
    pub origin: Option<Origin>,
    /// Whose rules: those of this direction.
    pub direction: Direction,
    /// What to do.
    pub action: EditAction,
    /// Whether it changes more connections than the one in question, as far as the edited rules alone show.
    pub wider: bool,
}

/// What to do to a policy. Rules, peers and ports are counted from 0 in the list as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditAction {
    /// Put a rule into the list, in front of the one with this index; at the end if there is none.
    AddRule {
        /// Where.
        at: usize,
        /// The rule.
        rule: Rule,
    },
    /// Add a peer to a rule.
    AddPeer {
        /// The rule.
        rule: usize,
        /// The peer.
        peer: Peer,
    },
    /// Add a port to a rule.
    AddPort {
        /// The rule.
        rule: usize,
        /// The port.
        port: PortMatch,
    },
    /// Take these rules away.
    RemoveRules(Vec<usize>),
    /// Make a new policy.
    NewPolicy(Arc<Policy>),
}

/// The edits of one direction: any one of them will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// The direction.
    pub direction: Direction,
    /// The alternatives, the smallest first.
    pub edits: Vec<Edit>,
}

/// What would allow a connection: one edit for each direction that denies it. Empty if it is allowed, or if no edit of
/// one rule list will do (a policy that doesn't say what it means, for one).
#[must_use]
pub fn to_allow(cluster: &Cluster, flow: &Flow) -> Vec<Choices> {
    let denied = Direction::BOTH.into_iter().filter(|d| !side_allows(cluster, flow, *d));
    let choices = denied.map(|direction| {
        let walk = walk_of(cluster, flow, direction);
        let mut edits = Asking { cluster, flow, direction, walk: &walk }.openings();
        edits.retain(|edit| side_allows(&applied(cluster, edit), flow, direction));
        edits.sort_by_key(|edit| (edit.wider, size(&edit.action)));
        Choices { direction, edits }
    });
    choices.collect()
}

/// What would deny a connection: the edits of either direction, any one of which will do. Empty if it is denied, or if
/// nothing can deny it (SEMANTICS A39, A41).
#[must_use]
pub fn to_deny(cluster: &Cluster, flow: &Flow) -> Vec<Choices> {
    if !reference::decide(cluster, flow).verdict().is_allow() {
        return Vec::new();
    }
    let choices = Direction::BOTH.map(|direction| {
        let walk = walk_of(cluster, flow, direction);
        let mut edits = Asking { cluster, flow, direction, walk: &walk }.closings();
        edits.retain(|edit| !side_allows(&applied(cluster, edit), flow, direction));
        edits.sort_by_key(|edit| (edit.wider, size(&edit.action)));
        Choices { direction, edits }
    });
    choices.into_iter().filter(|c| !c.edits.is_empty()).collect()
}

fn side_allows(cluster: &Cluster, flow: &Flow, direction: Direction) -> bool {
    let decision = reference::decide(cluster, flow);
    let side = if direction == Direction::Egress { decision.egress } else { decision.ingress };
    side.verdict == Verdict::Allow
}

fn walk_of(cluster: &Cluster, flow: &Flow, direction: Direction) -> Walk {
    let asked = Traffic::of(flow.protocol, PortSet::range(flow.port, flow.port));
    walk(cluster, &flow.source, &flow.destination, flow.through_service, direction, &asked)
}

/// How much there is to write.
fn size(action: &EditAction) -> usize {
    match action {
        EditAction::AddPort { .. } => 0,
        EditAction::AddPeer { .. } => 1,
        EditAction::RemoveRules(rules) => rules.len(),
        EditAction::AddRule { .. } => 2,
        EditAction::NewPolicy(policy) => 3 + usize::from(policy.tier != Tier::Developer),
    }
}

/// The cluster with an edit made.
#[must_use]
pub fn applied(cluster: &Cluster, edit: &Edit) -> Cluster {
    let mut out = cluster.clone();
    if let EditAction::NewPolicy(policy) = &edit.action {
        out.policies.insert(policy.key.clone(), policy.clone());
        return out;
    }
    let Some(policy) = out.policies.get_mut(&edit.policy).map(Arc::make_mut) else { return out };
    let rules = match edit.direction {
        Direction::Ingress => policy.ingress.get_or_insert_default(),
        Direction::Egress => policy.egress.get_or_insert_default(),
    };
    match &edit.action {
        EditAction::AddRule { at, rule } => rules.insert((*at).min(rules.len()), rule.clone()),
        EditAction::AddPeer { rule, peer } => {
            if let Some(peers) = rules.get_mut(*rule).and_then(|r| r.peers.as_mut()) {
                peers.push(PeerEntry { peer: peer.clone(), origin: None });
            }
        }
        EditAction::AddPort { rule, port } => {
            if let Some(ports) = rules.get_mut(*rule).and_then(|r| r.ports.as_mut()) {
                ports.push(PortEntry { port: port.clone(), origin: None });
            }
        }
        EditAction::RemoveRules(gone) => {
            let mut index = 0;
            rules.retain(|_| {
                index += 1;
                !gone.contains(&(index - 1))
            });
        }
        EditAction::NewPolicy(_) => {}
    }
    out
}

/// One direction of a connection that should be decided otherwise.
struct Asking<'a> {
    cluster: &'a Cluster,
    flow: &'a Flow,
    direction: Direction,
    walk: &'a Walk,
}

impl Asking<'_> {
    fn openings(&self) -> Vec<Edit> {
        match self.walk.parts.first().map(|part| &part.decider) {
            Some(Decider::Isolated(_)) => self.additions(),
            // In front of the rule that denies; the first match wins there (SEMANTICS C21).
            Some(Decider::Rule(rule)) => {
                let accept = self.rule(Action::Accept, &rule.policy.namespace);
                let action = EditAction::AddRule { at: rule.index, rule: accept };
                vec![self.edit(&rule.policy, action, self.peer_is_wide())]
            }
            _ => Vec::new(),
        }
    }

    /// To each isolating policy: a port for a rule with the right peer, the peer for a rule with the right port, or a
    /// rule.
    fn additions(&self) -> Vec<Edit> {
        let mut out = Vec::new();
        for step in self.walk.policies.iter().filter(|p| p.tier == Tier::Developer) {
            let key = &step.policy;
            for rule in &step.rules {
                if let (true, Some(port)) = (rule.peer_matches && rule.ports.is_some(), self.port()) {
                    let others = rule.peers.as_ref().is_none_or(|peers| peers.len() > 1);
                    let wider = others || !self.is_named_exactly(key, rule);
                    out.push(self.edit(key, EditAction::AddPort { rule: rule.rule.index, port }, wider));
                }
                if !rule.peer_matches && !rule.holds.is_none() {
                    let wider = !self.holds_no_more(key, rule) || self.peer_is_wide();
                    let peer = self.peer(&key.namespace);
                    out.push(self.edit(key, EditAction::AddPeer { rule: rule.rule.index, peer }, wider));
                }
            }
            let rule = self.rule(Action::Accept, &key.namespace);
            let action = EditAction::AddRule { at: step.rules.len(), rule };
            // A policy may select other pods too, which a rule of it opens as well: the narrowest goes first.
            out.push(self.edit(key, action, self.peer_is_wide()));
        }
        out
    }

    fn closings(&self) -> Vec<Edit> {
        let mut out = Vec::new();
        match self.walk.parts.first().map(|part| &part.decider) {
            None | Some(Decider::NoSubject | Decider::Itself | Decider::OwnNode | Decider::Hairpin) => {
                return out;
            }
            Some(Decider::Rule(rule)) => {
                // All matching rules of the policy: NetworkPolicies add up.
                let step = self.walk.policies.iter().find(|p| p.policy == rule.policy);
                let rules = step.iter().flat_map(|s| &s.rules);
                let matching =
                    rules.filter(|r| r.action == Action::Accept && r.peer_matches && !r.holds.is_none());
                let indexes = matching.map(|r| r.rule.index).collect();
                out.push(self.edit(&rule.policy, EditAction::RemoveRules(indexes), true));
            }
            Some(Decider::NotIsolated | Decider::Isolated(_)) => {}
        }
        out.extend(self.new_policy().map(|policy| {
            let key = policy.key.clone();
            self.edit(&key, EditAction::NewPolicy(Arc::new(policy)), self.peer_is_wide())
        }));
        out
    }

    /// A policy before all others that denies this; `None` where its kind can't name the other end (SEMANTICS C7).
    fn new_policy(&self) -> Option<Policy> {
        let subject = self.walk.subject.as_ref().and_then(|key| self.cluster.pods.get(key))?;
        if self.direction == Direction::Ingress && !matches!(self.flow.source, Endpoint::Pod { .. }) {
            return None;
        }
        let name = |n: usize| match n {
            0 => format!("deny-{}", subject.key.name),
            n => format!("deny-{}-{n}", subject.key.name),
        };
        let key = |name: String| PolicyKey {
            kind: "ClusterNetworkPolicy".into(),
            namespace: "".into(),
            name: name.into(),
        };
        let key = (0..).map(|n| key(name(n))).find(|key| !self.cluster.policies.contains_key(key))?;
        let rules = Some(vec![self.rule(Action::Deny, "")]);
        let (ingress, egress) =
            if self.direction == Direction::Ingress { (rules, None) } else { (None, rules) };
        let subject = pods_like(subject, "");
        Some(Policy { key, tier: Tier::Admin, priority: 0, subject, ingress, egress, origin: None })
    }

    fn edit(&self, policy: &PolicyKey, action: EditAction, wider: bool) -> Edit {
        let origin = self.cluster.policies.get(policy).and_then(|p| p.origin.clone());
        Edit { policy: policy.clone(), origin, direction: self.direction, action, wider }
    }

    fn other_end(&self) -> &Endpoint {
        if self.direction == Direction::Ingress { &self.flow.source } else { &self.flow.destination }
    }

    /// The other end as a policy of this namespace would name it.
    fn peer(&self, namespace: &str) -> Peer {
        let at = self.other_end();
        match at {
            Endpoint::Pod { key, .. } => match self.cluster.pods.get(key) {
                Some(pod) => Peer::Pods(pods_like(pod, namespace)),
                None => Peer::Block(block(at)),
            },
            Endpoint::Node { .. } | Endpoint::External(_) => Peer::Block(block(at)),
        }
    }

    /// Whether the other end can't be named without naming all pods of its namespace.
    fn peer_is_wide(&self) -> bool {
        matches!(self.peer(""), Peer::Pods(choice) if choice.pods.is_everything())
    }

    /// The port as a rule names it; `None` for protocols without, which only a rule without ports can allow.
    fn port(&self) -> Option<PortMatch> {
        let (protocol, port) = (self.flow.protocol, self.flow.port);
        protocol.has_ports().then_some(PortMatch::Numbers { protocol, first: port, last: port })
    }

    fn rule(&self, action: Action, namespace: &str) -> Rule {
        let peers = vec![PeerEntry { peer: self.peer(namespace), origin: None }];
        let ports = self.port().map(|port| vec![PortEntry { port, origin: None }]);
        Rule { name: None, action, peers: Some(peers), ports, origin: None }
    }

    fn original(&self, key: &PolicyKey, rule: &RuleStep) -> Option<&Rule> {
        self.cluster.policies.get(key)?.rules(self.direction)?.get(rule.rule.index)
    }

    /// Whether a rule's only peer names what we would name.
    fn is_named_exactly(&self, key: &PolicyKey, rule: &RuleStep) -> bool {
        let peers = self.original(key, rule).and_then(|rule| rule.peers.as_deref());
        matches!(peers, Some([only]) if only.peer == self.peer(&key.namespace))
    }

    /// Whether a rule's only port is the one in question.
    fn holds_no_more(&self, key: &PolicyKey, rule: &RuleStep) -> bool {
        let ports = self.original(key, rule).and_then(|rule| rule.ports.as_deref());
        matches!(ports, Some([only]) if Some(&only.port) == self.port().as_ref())
    }
}

/// Labels that a controller gives to each generation or replica: no policy should name them.
const PASSING_LABELS: [&str; 7] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
];

/// The pods that share a pod's lasting labels, as a policy of `namespace` names them; all pods of its namespace if it
/// has none.
fn pods_like(pod: &Pod, namespace: &str) -> PodMatch {
    let ObjectKey { namespace: home, .. } = &pod.key;
    let namespaces = if **home == *namespace {
        NamespaceMatch::Named(home.clone())
    } else {
        NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, &**home)]))
    };
    let lasting = pod.labels.iter().filter(|(key, _)| !PASSING_LABELS.contains(&&***key));
    PodMatch { namespaces, pods: Selector::of_labels(lasting.map(|(k, v)| (&**k, &**v))) }
}

fn block(at: &Endpoint) -> IpBlock {
    IpBlock { cidr: IpNet::from(at.address()), except: [].into() }
}
