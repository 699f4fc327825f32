//! Sources that pods may use beside their own addresses, as annotations set them ([`palisade_policy::ALLOW_SOURCE_KEY`]).

use palisade_policy::{ALLOW_SOURCE_KEY, ALLOW_SOURCE_WITHIN_KEY, AnnotatedSources};

use crate::{decode::Context, diagnostic::Code, meta::Object, scalar::Scalar, tree::Value};

/// An annotation that lists sources: the key, and what a wrong value does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Annotation {
    key: &'static str,
    effect: &'static str,
}

/// That of a pod.
pub(crate) const POD: Annotation =
    Annotation { key: ALLOW_SOURCE_KEY, effect: "the pod may use no further source" };

/// That of a namespace.
pub(crate) const NAMESPACE: Annotation =
    Annotation { key: ALLOW_SOURCE_WITHIN_KEY, effect: "its pods may use no further source" };

/// Parses a value.
///
/// # Errors
/// What is wrong with it, and the effect of that.
pub(crate) fn parse(value: &str, Annotation { key, effect }: Annotation) -> Result<AnnotatedSources, String> {
    AnnotatedSources::parse(value).map_err(|error| format!("{key}: {error}; {effect}"))
}

/// Returns what the annotation of a pod asks for. A wrong value asks for nothing, with a warning.
pub(crate) fn of_pod(cx: &mut Context<'_>, object: &Object<'_>) -> AnnotatedSources {
    read(cx, object, POD)
}

/// Returns what the annotation of a namespace permits. A wrong value permits nothing, with a warning.
pub(crate) fn of_namespace(cx: &mut Context<'_>, object: &Object<'_>) -> AnnotatedSources {
    read(cx, object, NAMESPACE)
}

fn read(cx: &mut Context<'_>, object: &Object<'_>, annotation: Annotation) -> AnnotatedSources {
    let Some(metadata) = object.fields.at.get("metadata") else { return AnnotatedSources::default() };
    let Some(annotations) = metadata.get("annotations") else { return AnnotatedSources::default() };
    let Some(at) = annotations.get(annotation.key) else { return AnnotatedSources::default() };
    let text = match at.value() {
        Value::Scalar(Scalar::Str(text)) => text.to_string(),
        // Nothing, or what the API server refuses.
        _ => return AnnotatedSources::default(),
    };
    parse(&text, annotation).unwrap_or_else(|message| {
        cx.warn(&at, Code::Ambiguous, message);
        AnnotatedSources::default()
    })
}
