//! The smallest policy edits that would allow or deny a connection, as data: which policy, which list of rules, and
//! what to add or remove. Every suggestion is verified by applying it and evaluating the connection with the reference.

use std::sync::Arc;

use ipnet::IpNet;
use palisade_policy::{
    Action, Cluster, Direction, Endpoint, Flow, IpBlock, NAMESPACE_NAME_LABEL, NamespaceMatch, ObjectKey,
    Origin, Peer, PeerEntry, Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch, PortSet, Rule, Selector,
    Tier, Traffic, Verdict, reference,
    walk::{Decider, RuleStep, Walk, walk},
};

/// An edit of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The policy. For [`EditAction::NewPolicy`], the key of the new policy.
    pub policy: PolicyKey,
    /// The position of the policy.
    pub origin: Option<Origin>,
    /// The direction of the edited rules.
    pub direction: Direction,
    /// The action.
    pub action: EditAction,
    /// Whether the edit affects other connections, judging by the edited rules.
    pub wider: bool,
}

/// The action of an edit. Indexes of rules refer to the unedited list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditAction {
    /// Insert a rule before the one with this index, or append it.
    AddRule {
        /// The index.
        at: usize,
        /// The rule.
        rule: Rule,
    },
    /// Add a peer to a rule.
    AddPeer {
        /// The index of the rule.
        rule: usize,
        /// The peer.
        peer: Peer,
    },
    /// Add a port to a rule.
    AddPort {
        /// The index of the rule.
        rule: usize,
        /// The port.
        port: PortMatch,
    },
    /// Remove the rules with these indexes.
    RemoveRules(Vec<usize>),
    /// Add a policy.
    NewPolicy(Arc<Policy>),
}

/// Alternative edits for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// The direction.
    pub direction: Direction,
    /// The alternatives, with the smallest first. Each one suffices.
    pub edits: Vec<Edit>,
}

/// Returns edits that would allow a connection: alternatives for each direction that denies it. Empty if it is allowed,
/// or if no edit of a single list of rules can allow it.
#[must_use]
pub fn to_allow(cluster: &Cluster, flow: &Flow) -> Vec<Choices> {
    let denied = Direction::BOTH.into_iter().filter(|d| !is_allowed_in(cluster, flow, *d));
    let choices = denied.map(|direction| {
        let walk = walk_of(cluster, flow, direction);
        let mut edits = DirectionQuery { cluster, flow, direction, walk: &walk }.allowing_edits();
        edits.retain(|edit| is_allowed_in(&applied(cluster, edit), flow, direction));
        edits.sort_by_key(|edit| (edit.wider, size(&edit.action)));
        Choices { direction, edits }
    });
    choices.collect()
}

/// Returns edits that would deny a connection: alternatives for each direction, of which one suffices. Empty if it is
/// denied, or if nothing can deny it (SEMANTICS A39, A41).
#[must_use]
pub fn to_deny(cluster: &Cluster, flow: &Flow) -> Vec<Choices> {
    if !reference::decide(cluster, flow).verdict().is_allow() {
        return Vec::new();
    }
    let choices = Direction::BOTH.map(|direction| {
        let walk = walk_of(cluster, flow, direction);
        let mut edits = DirectionQuery { cluster, flow, direction, walk: &walk }.denying_edits();
        edits.retain(|edit| !is_allowed_in(&applied(cluster, edit), flow, direction));
        edits.sort_by_key(|edit| (edit.wider, size(&edit.action)));
        Choices { direction, edits }
    });
    choices.into_iter().filter(|c| !c.edits.is_empty()).collect()
}

fn is_allowed_in(cluster: &Cluster, flow: &Flow, direction: Direction) -> bool {
    let decision = reference::decide(cluster, flow);
    let side = if direction == Direction::Egress { decision.egress } else { decision.ingress };
    side.verdict == Verdict::Allow
}

fn walk_of(cluster: &Cluster, flow: &Flow, direction: Direction) -> Walk {
    let requested = Traffic::of(flow.protocol, PortSet::range(flow.port, flow.port));
    walk(cluster, &flow.source, &flow.destination, flow.through_service, direction, &requested)
}

/// Returns the size of an edit, for sorting.
fn size(action: &EditAction) -> usize {
    match action {
        EditAction::AddPort { .. } => 0,
        EditAction::AddPeer { .. } => 1,
        EditAction::RemoveRules(rules) => rules.len(),
        EditAction::AddRule { .. } => 2,
        EditAction::NewPolicy(policy) => 3 + usize::from(policy.tier != Tier::Developer),
    }
}

/// Returns the cluster with an edit applied.
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

/// A connection whose verdict in one direction should change.
struct DirectionQuery<'a> {
    cluster: &'a Cluster,
    flow: &'a Flow,
    direction: Direction,
    walk: &'a Walk,
}

impl DirectionQuery<'_> {
    fn allowing_edits(&self) -> Vec<Edit> {
        match self.walk.parts.first().map(|part| &part.decider) {
            Some(Decider::Isolated(_)) => self.additions(),
            // Insert before the denying rule, since the first matching rule decides (SEMANTICS C21).
            Some(Decider::Rule(rule)) => {
                let accept = self.rule(Action::Accept, &rule.policy.namespace);
                let action = EditAction::AddRule { at: rule.index, rule: accept };
                vec![self.edit(&rule.policy, action, self.peer_is_wide())]
            }
            _ => Vec::new(),
        }
    }

    /// For each isolating policy: adds the port to rules that match the peer, the peer to rules that match the port, or
    /// a rule.
    fn additions(&self) -> Vec<Edit> {
        let mut out = Vec::new();
        for step in self.walk.policies.iter().filter(|p| p.tier == Tier::Developer) {
            let key = &step.policy;
            for rule in &step.rules {
                if let (true, Some(port)) = (rule.peer_matches && rule.ports.is_some(), self.port()) {
                    let others = rule.peers.as_ref().is_none_or(|peers| peers.len() > 1);
                    let wider = others || !self.has_only_this_peer(key, rule);
                    out.push(self.edit(key, EditAction::AddPort { rule: rule.rule.index, port }, wider));
                }
                if !rule.peer_matches && !rule.holds.is_none() {
                    let wider = !self.has_only_this_port(key, rule) || self.peer_is_wide();
                    let peer = self.peer(&key.namespace);
                    out.push(self.edit(key, EditAction::AddPeer { rule: rule.rule.index, peer }, wider));
                }
            }
            let rule = self.rule(Action::Accept, &key.namespace);
            let action = EditAction::AddRule { at: step.rules.len(), rule };
            // The rule also applies to other pods that the policy selects. Sorting puts the narrowest edit first.
            out.push(self.edit(key, action, self.peer_is_wide()));
        }
        out
    }

    fn denying_edits(&self) -> Vec<Edit> {
        let mut out = Vec::new();
        match self.walk.parts.first().map(|part| &part.decider) {
            None | Some(Decider::NoSubject | Decider::Itself | Decider::OwnNode | Decider::Hairpin) => {
                return out;
            }
            Some(Decider::Rule(rule)) => {
                // NetworkPolicies are additive, so all matching rules of the policy must go.
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

    /// Returns a policy that denies the connection before all others; `None` if it can't refer to the other end
    /// (SEMANTICS C7).
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

    /// Returns the other end as a peer in a policy of this namespace.
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

    /// Returns whether the peer would match all pods of the other end's namespace.
    fn peer_is_wide(&self) -> bool {
        matches!(self.peer(""), Peer::Pods(choice) if choice.pods.is_everything())
    }

    /// Returns the port as a rule specifies it; `None` for protocols without ports, which only a rule without ports can
    /// allow.
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

    /// Returns whether the suggested peer is the rule's only peer.
    fn has_only_this_peer(&self, key: &PolicyKey, rule: &RuleStep) -> bool {
        let peers = self.original(key, rule).and_then(|rule| rule.peers.as_deref());
        matches!(peers, Some([only]) if only.peer == self.peer(&key.namespace))
    }

    /// Returns whether the suggested port is the rule's only port.
    fn has_only_this_port(&self, key: &PolicyKey, rule: &RuleStep) -> bool {
        let ports = self.original(key, rule).and_then(|rule| rule.ports.as_deref());
        matches!(ports, Some([only]) if Some(&only.port) == self.port().as_ref())
    }
}

/// Labels that a controller sets for each generation or replica, so that policies should not select them.
const EPHEMERAL_LABELS: [&str; 7] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
];

/// Returns pods that share a pod's permanent labels, as a peer in a policy of `namespace`. Without such labels, all
/// pods of its namespace.
fn pods_like(pod: &Pod, namespace: &str) -> PodMatch {
    let ObjectKey { namespace: own_namespace, .. } = &pod.key;
    let namespaces = if **own_namespace == *namespace {
        NamespaceMatch::Named(own_namespace.clone())
    } else {
        NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, &**own_namespace)]))
    };
    let permanent = pod.labels.iter().filter(|(key, _)| !EPHEMERAL_LABELS.contains(&&***key));
    PodMatch { namespaces, pods: Selector::of_labels(permanent.map(|(k, v)| (&**k, &**v))) }
}

fn block(at: &Endpoint) -> IpBlock {
    IpBlock { cidr: IpNet::from(at.address()), except: [].into() }
}
