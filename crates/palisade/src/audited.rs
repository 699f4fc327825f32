//! What policies in audit mode would deny of the connections that an answer is about.

use std::collections::{BTreeMap, BTreeSet};

use palisade_analysis::explain;
use palisade_policy::{Cluster, Endpoint, Mode, PolicyKey, Traffic, Verdict};
use serde::Serialize;

/// Traffic that passes, and that would be denied if every policy were enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Audited {
    /// The traffic.
    pub(crate) traffic: Traffic,
    /// The policies that would deny it, and whether each is in audit mode. One that is enforced can be among them: a rule
    /// in audit mode may pass traffic to it that a rule of another tier accepts now.
    pub(crate) policies: BTreeMap<PolicyKey, Mode>,
}

/// [`Audited`] as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct JsonAudited {
    traffic: crate::traffic::JsonTraffic,
    policies: Vec<JsonPolicyMode>,
}

#[derive(Debug, Serialize)]
struct JsonPolicyMode {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
    mode: &'static str,
}

/// A cluster beside itself with every policy enforced.
pub(crate) struct AuditQuestion<'c> {
    cluster: &'c Cluster,
    /// `None`: no policy is in audit mode.
    enforced: Option<Cluster>,
    found: Audited,
}

impl<'c> AuditQuestion<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        let enforced = cluster.audited().next().is_some().then(|| cluster.all_enforced());
        let found = Audited { traffic: Traffic::none(), policies: BTreeMap::new() };
        Self { cluster, enforced, found }
    }

    /// Adds the connections of one pair of endpoints.
    pub(crate) fn add(&mut self, from: &Endpoint, to: &Endpoint, through_service: bool, asked: &Traffic) {
        let Some(enforced) = &self.enforced else { return };
        let now = explain(self.cluster, from, to, through_service, asked);
        let allowed = now.parts.iter().filter(|part| part.verdict.is_allow());
        let allowed = allowed.fold(Traffic::none(), |sum, part| sum.union(&part.traffic));
        if allowed.is_none() {
            return;
        }
        for part in explain(enforced, from, to, through_service, &allowed).parts {
            if part.verdict.is_allow() {
                continue;
            }
            self.found.traffic = self.found.traffic.union(&part.traffic);
            for (verdict, decider) in [&part.egress, &part.ingress] {
                let deciding = decider.policies().filter(|_| *verdict == Verdict::Deny);
                let mode = |key: &PolicyKey| self.cluster.policies.get(key).map(|p| self.cluster.mode_of(p));
                self.found.policies.extend(deciding.filter_map(|key| Some((key.clone(), mode(key)?))));
            }
        }
    }

    /// Returns what was found; `None` if nothing would be denied.
    pub(crate) fn finish(self) -> Option<Audited> {
        (!self.found.traffic.is_none()).then_some(self.found)
    }
}

impl Audited {
    /// Returns the sentence that says it: `would be denied by NetworkPolicy shop/db, which is in audit mode`.
    pub(crate) fn text(&self) -> String {
        let of_mode = |mode| self.policies.iter().filter(move |(_, m)| **m == mode).map(|(key, _)| key);
        let audited: BTreeSet<&PolicyKey> = of_mode(Mode::Audit).collect();
        let names = |keys: &mut dyn Iterator<Item = &PolicyKey>| {
            keys.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match audited.len() {
            0 => format!(
                "would be denied by {} if the policies in audit mode were enforced",
                names(&mut of_mode(Mode::Enforce))
            ),
            1 => format!("would be denied by {}, which is in audit mode", names(&mut audited.into_iter())),
            _ => format!("would be denied by {}, which are in audit mode", names(&mut audited.into_iter())),
        }
    }

    pub(crate) fn json(&self) -> JsonAudited {
        let policy = |(key, mode): (&PolicyKey, &Mode)| JsonPolicyMode {
            kind: key.kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            mode: mode.as_str(),
        };
        JsonAudited { traffic: (&self.traffic).into(), policies: self.policies.iter().map(policy).collect() }
    }
}
