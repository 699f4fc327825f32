//! The cluster-wide policies of `policy.networking.k8s.io`: ClusterNetworkPolicy (v1alpha2, v1beta1; SEMANTICS C) and its
//! predecessors AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1; SEMANTICS B).
//!
//! They are read in two steps, as in a cluster:
//! * `admission` does what the API server does with the CustomResourceDefinition: what it rejects is an error. `schema`
//!   has the single checks.
//! * `normal_form` does what an implementation does with an admitted object, of which the definitions leave a lot
//!   unchecked: what can't be used fails closed (SEMANTICS C23, C24, G-15 to G-17) and is a warning.
//!
//! Objects from an API server have been admitted, perhaps by a newer definition than ours, so the first step can be left
//! out ([`crate::Admission::Passed`]); the second then meets fields that it doesn't know.

use crate::{declared::Declaration, decode::Context, meta::Object, options::Admission};

mod admission;
mod crd;
mod domain_name;
mod normal_form;
mod peers;
mod ports;
mod schema;
mod side_by_side;
mod unusable;

use crd::Crd;
pub(crate) use side_by_side::side_by_side;

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
    Some(Declaration::Policy(Box::new(policy)))
}
