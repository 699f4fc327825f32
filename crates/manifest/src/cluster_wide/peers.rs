//! Peers of cluster-wide policies (SEMANTICS B12 to B14, C12 to C14), and the label selectors of peers and subjects.

use std::{collections::BTreeSet, sync::Arc};

use palisade_policy::{
    Action, Direction, DomainPattern, IpBlock, NamespaceMatch, Peer, PeerEntry, PodMatch, Requirement,
    Selector, Test,
};

use super::{domain_name, unusable::AdmittedReader};
use crate::{
    cidr::{Cidr, NOT_A_CIDR},
    decode::quoted,
    diagnostic::Code,
    names,
    tree::At,
};

impl AdmittedReader<'_, '_> {
    /// Returns the peers of an element of `from` or `to`. `networks` and `domainNames` contain several.
    pub(super) fn peer(&mut self, at: &At<'_>, direction: Direction, action: Action) -> Vec<PeerEntry> {
        let origin = Some(self.cx.origin(at));
        let Some((kind, at)) = self.only_field(at, self.crd.peers(direction), "peer") else {
            return Vec::new();
        };
        let peer = match kind {
            "networks" => return self.networks(&at),
            "nodes" => self.selector(&at).map(Peer::Nodes),
            "domainNames" => return self.domain_names(&at, action),
            _ => self.pod_match(kind, &at).map(Peer::Pods),
        };
        peer.map(|peer| PeerEntry { peer, origin }).into_iter().collect()
    }

    /// Returns the pods of `namespaces` (all pods in them) or of `pods` (selected pods in selected namespaces).
    pub(super) fn pod_match(&mut self, kind: &str, at: &At<'_>) -> Option<PodMatch> {
        if kind == "namespaces" {
            let namespaces = NamespaceMatch::Selected(self.selector(at)?);
            return Some(PodMatch { namespaces, pods: Selector::everything() });
        }
        let fields = self.fields(at, &["namespaceSelector", "podSelector"])?;
        let namespaces = match fields.get("namespaceSelector") {
            Some(at) => self.selector(&at),
            None if self.crd.namespace_selector_is_optional() => Some(Selector::everything()),
            None => self.required(fields, "namespaceSelector").and(None),
        };
        let pods = self.required(fields, "podSelector").and_then(|at| self.selector(&at));
        Some(PodMatch { namespaces: NamespaceMatch::Selected(namespaces?), pods: pods? })
    }

    fn networks(&mut self, at: &At<'_>) -> Vec<PeerEntry> {
        let mut blocks = Vec::new();
        for at in self.non_empty_list(at) {
            let Some(text) = self.cx.string(&at) else { continue };
            let Some(cidr) = Cidr::parse(text).filter(Cidr::is_cidr_to_cel) else {
                self.unusable(&at, format!("{}: {NOT_A_CIDR}", quoted(&at)));
                continue;
            };
            for warning in cidr.warnings(text) {
                self.cx.warn(&at, Code::Ambiguous, warning);
            }
            let block = IpBlock { cidr: cidr.canonical(), except: Arc::from([]) };
            blocks.push(PeerEntry { peer: Peer::Block(block), origin: Some(self.cx.origin(&at)) });
        }
        blocks
    }

    /// Reads domain names. Only rules that accept may have them (SEMANTICS C41).
    fn domain_names(&mut self, at: &At<'_>, action: Action) -> Vec<PeerEntry> {
        if action != Action::Accept {
            self.unusable(at, "domainNames are for rules with action Accept only");
            return Vec::new();
        }
        let mut names = Vec::new();
        for at in self.non_empty_list(at) {
            let Some(text) = self.cx.string(&at) else { continue };
            if !domain_name::is_valid(text, self.crd.v1beta1) {
                self.unusable(&at, format!("{}: not a domain name", quoted(&at)));
                continue;
            }
            let pattern = DomainPattern::new(text);
            if !pattern.can_match() {
                let longest = "labels have at most 63 characters, and names 253";
                let message = format!("{}: no name of DNS, which matches nothing; {longest}", quoted(&at));
                self.cx.warn(&at, Code::Unusable, message);
            }
            names.push(PeerEntry { peer: Peer::DomainName(pattern), origin: Some(self.cx.origin(&at)) });
        }
        if !self.cx.learns_names {
            self.cx.warn(
                at,
                Code::NotEnforced,
                "domainNames are enforced only by agents that learn addresses (--domain-names=on); none are known here, so these names \
                 match nothing",
            );
        }
        names
    }

    /// Reads a label selector. The schema only checks its types (SEMANTICS C4). It is usable if
    /// `LabelSelectorAsSelector` of the Kubernetes libraries accepts it (G-17).
    pub(super) fn selector(&mut self, at: &At<'_>) -> Option<Selector> {
        let fields = self.fields(at, &["matchLabels", "matchExpressions"])?;
        let mut requirements = Vec::new();
        let labels = fields.get("matchLabels");
        for (key, key_at, value_at) in labels.iter().flat_map(At::entries) {
            // The API server drops entries that are null.
            if value_at.is_null() && !self.is_raw() {
                continue;
            }
            self.wrong(&key_at, key, names::label_key(key));
            let value = self.cx.string(&value_at)?;
            self.wrong(&value_at, value, names::label_value(value));
            let value = BTreeSet::from([self.cx.names.name(value)]);
            requirements.push(Requirement { key: self.cx.names.name(key), test: Test::In(value) });
        }
        if let Some(expressions) = fields.get("matchExpressions") {
            for at in self.cx.list(&expressions) {
                requirements.push(self.requirement(&at)?);
            }
        }
        Some(Selector::new(requirements))
    }

    fn requirement(&mut self, at: &At<'_>) -> Option<Requirement> {
        let Some(fields) = self.fields(at, &["key", "operator", "values"]) else {
            self.unusable(at, "not a requirement");
            return None;
        };
        let key_at = self.required(fields, "key")?;
        let key = self.cx.string(&key_at)?;
        self.wrong(&key_at, key, names::label_key(key));
        let mut values = BTreeSet::new();
        if let Some(list) = fields.get("values") {
            for at in self.cx.list(&list) {
                let value = self.cx.string(&at)?;
                self.wrong(&at, value, names::label_value(value));
                values.insert(self.cx.names.name(value));
            }
        }
        let operator_at = self.required(fields, "operator")?;
        let operator = self.cx.string(&operator_at)?;
        let test = match (operator, values.is_empty()) {
            ("In", false) => Test::In(values),
            ("NotIn", false) => Test::NotIn(values),
            ("Exists", true) => Test::Exists,
            ("DoesNotExist", true) => Test::DoesNotExist,
            ("In" | "NotIn", true) => {
                self.unusable(at, format!("operator {operator} needs values"));
                return None;
            }
            ("Exists" | "DoesNotExist", false) => {
                self.unusable(at, format!("operator {operator} takes no values"));
                return None;
            }
            _ => {
                let operator = quoted(&operator_at);
                self.unusable(
                    &operator_at,
                    format!("{operator} is none of the operators In, NotIn, Exists and DoesNotExist"),
                );
                return None;
            }
        };
        Some(Requirement { key: self.cx.names.name(key), test })
    }

    fn wrong<M: AsRef<str>>(&mut self, at: &At<'_>, text: &str, messages: impl IntoIterator<Item = M>) {
        for message in messages {
            self.unusable(at, format!("{text:?}: {}", message.as_ref()));
        }
    }
}
