//! Labels and annotations of namespaces and pods by which other projects put pods into further networks. The network
//! itself is often defined in another repository, so they may be all that shows it.

use crate::{
    decode::Context,
    diagnostic::Code,
    kinds::foreign::{NETWORK, OWN_NETWORK},
    scalar::Scalar,
    tree::{At, Value},
};

/// The field of the metadata, the key in it, what the key is called, and the effect as the end of a warning.
const DECIDING: &[(&str, &str, &str, &str)] = &[
    ("labels", "k8s.ovn.org/primary-user-defined-network", "label", OWN_NETWORK),
    ("annotations", "k8s.v1.cni.cncf.io/networks", "annotation", NETWORK),
    ("annotations", "v1.multus-cni.io/default-network", "annotation", OWN_NETWORK),
    ("annotations", "networking.gke.io/interfaces", "annotation", NETWORK),
];

/// Warns about the keys of a namespace, a pod or a pod template that no verdict takes into account.
pub(crate) fn warn(cx: &mut Context<'_>, metadata: Option<&At<'_>>) {
    for (field, key, called, effect) in DECIDING {
        let Some(map) = metadata.and_then(|metadata| metadata.get(field)) else { continue };
        let Some(at) = map.get(key) else { continue };
        // An empty annotation names no network; the label's value has no meaning.
        let names_none = matches!(at.value(), Value::Scalar(Scalar::Null))
            || (*field == "annotations"
                && matches!(at.value(), Value::Scalar(Scalar::Str(text)) if text.is_empty()));
        if !names_none {
            cx.warn(&at, Code::NotEvaluated, format!("{called} {key} is not evaluated: {effect}"));
        }
    }
}
