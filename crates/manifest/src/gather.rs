//! Everything that the documents declare, before it is one cluster.

use std::collections::BTreeMap;

use palisade_policy::{Name, Namespace, Node, ObjectKey, Origin, Policy, PolicyKey};

use crate::{
    decode::Context,
    diagnostic::{Code, Diagnostic, Severity},
    pod::DeclaredPod,
    routes::{DeclaredRoute, Gateway, Grant},
    service::DeclaredService,
    tree::At,
    workload::DeclaredWorkload,
};

/// The objects read so far; of two with the same identity the later one.
#[derive(Default, Debug)]
pub(crate) struct Gathered {
    pub(crate) namespaces: BTreeMap<Name, Namespace>,
    pub(crate) nodes: BTreeMap<Name, Node>,
    pub(crate) pods: BTreeMap<ObjectKey, DeclaredPod>,
    pub(crate) services: BTreeMap<ObjectKey, DeclaredService>,
    /// By kind and key.
    pub(crate) workloads: BTreeMap<(Name, ObjectKey), DeclaredWorkload>,
    pub(crate) policies: BTreeMap<PolicyKey, Policy>,
    /// What leads in through a controller, by kind and key.
    pub(crate) routes: BTreeMap<(Name, ObjectKey), DeclaredRoute>,
    pub(crate) gateways: BTreeMap<ObjectKey, Gateway>,
    pub(crate) grants: BTreeMap<ObjectKey, Grant>,
    /// Where each object begins, for duplicates and for messages that come later.
    pub(crate) sources: BTreeMap<(Name, ObjectKey), Origin>,
}

impl Gathered {
    /// Notes where an object begins, and warns if it is there already.
    pub(crate) fn note(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        kind: &Name,
        key: &ObjectKey,
        source: &Origin,
    ) {
        let Some(before) = self.sources.insert((kind.clone(), key.clone()), source.clone()) else { return };
        // A file over a live object is what an overlay is for.
        if before.line().is_none() && source.line().is_some() {
            return;
        }
        let message = format!("is defined before at {before}; this later one counts");
        let diagnostic = Diagnostic::new(Severity::Warning, Code::DuplicateObject, message);
        // Two lines of a long object are enough to find it.
        let span = at.span();
        cx.report_span(span.start..span.start, diagnostic);
    }
}
