//! The cluster-wide policies of `policy.networking.k8s.io`: ClusterNetworkPolicy (v1alpha2, v1beta1; SEMANTICS C) and
//! its predecessors AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1; SEMANTICS B).
//!
//! They are decoded in two steps, as in a cluster:
//! 1. `admission` validates the object like the API server does with the CustomResourceDefinition. What it would reject
//!    is an error. `schema` has the individual checks.
//! 2. `normal_form` interprets the admitted object. The definitions leave much unchecked. Anything unusable fails
//!    closed, with a warning (SEMANTICS C23, C24, G-15 to G-17).
//!
//! For objects from an API server, the first step is skipped ([`crate::Admission::Passed`]). They may have been
//! admitted by a newer definition, so the second step can find unknown fields.

use crate::{declared::Declaration, decode::Context, meta::Object, options::Admission};

mod admission;
mod crd;
mod domain_name;
mod normal_form;
mod ordering;
mod peers;
mod ports;
mod refused;
mod schema;
mod unusable;

use crd::Crd;
pub(crate) use ordering::warn_about_undefined_order;
pub(crate) use refused::refused;

/// The API group.
pub(crate) const GROUP: &str = "policy.networking.k8s.io";

/// Decodes a cluster-wide policy.
pub(crate) fn cluster_wide_policy(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let crd = Crd::of(object.kind, object.version, cx.channel, cx.admission)?;
    if cx.admission == Admission::Check {
        admission::admit(cx, object, crd);
        if cx.errors > 0 {
            return None;
        }
    }
    let policy = normal_form::policy(cx, object, crd)?;
    Some(Declaration::Policy(Box::new(policy), Vec::new()))
}
