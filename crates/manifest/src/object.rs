//! Finds the kind of each object in a document, and decodes it.

use crate::{
    decode::Context,
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
    kinds::{self, Found, OtherVersions, ResourceKind},
    loaded::Counts,
    meta::{Meta, Object, meta, provisional_name},
    tree::{At, Value},
};

/// How deeply lists may be nested. kubectl writes one level.
const LIST_DEPTH: usize = 4;

/// The top-level fields that are known for every kind.
const OBJECT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// API groups of policies that affect verdicts and are not evaluated.
const OTHER_POLICY_GROUPS: &[&str] =
    &["policy.networking.k8s.io", "cilium.io", "crd.projectcalico.org", "projectcalico.org", "crd.antrea.io"];

/// Reads the root of a document: an object or a list of objects.
pub(crate) struct ObjectReader<'i> {
    pub(crate) gathered: &'i mut Gathered,
    pub(crate) counts: &'i mut Counts,
    pub(crate) default_namespace: &'i str,
}

impl ObjectReader<'_> {
    /// Reads the root of a document.
    pub(crate) fn root(&mut self, cx: &mut Context<'_>, at: &At<'_>) {
        self.object_or_list(cx, at, None, 0);
    }

    /// Reads an object or a list. `implied` is the version and kind of the elements of a typed list.
    fn object_or_list(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        implied: Option<(&str, &str)>,
        depth: usize,
    ) {
        cx.object = None;
        cx.errors = 0;
        let Value::Mapping(_) = at.value() else {
            let message = format!("expected a Kubernetes object, found {}", article(at.json_type()));
            return cx.error(at, Code::NotAnObject, message);
        };
        let field = |name: &str| at.get(name).filter(|at| !at.is_null());
        let (kind_at, version_at) = (field("kind"), field("apiVersion"));
        let kind = match (&kind_at, implied) {
            (Some(at), _) => cx.string(at),
            (None, Some((_, kind))) => Some(kind),
            (None, None) => None,
        };
        let version = match (&version_at, implied) {
            (Some(at), _) => cx.string(at),
            (None, Some((version, _))) => Some(version),
            (None, None) => None,
        };
        let (Some(kind), Some(version)) = (kind.filter(|k| !k.is_empty()), version.filter(|v| !v.is_empty()))
        else {
            if cx.errors == 0 {
                missing(cx, at, kind.is_none_or(str::is_empty), version.is_none_or(str::is_empty));
            }
            return;
        };
        if let (Some(element), Some(items)) = (kind.strip_suffix("List"), field("items")) {
            return self.list(cx, &items, (version, element), depth);
        }
        self.object(cx, at, version, kind);
    }

    fn list(&mut self, cx: &mut Context<'_>, items: &At<'_>, implied: (&str, &str), depth: usize) {
        if depth >= LIST_DEPTH {
            return cx.error(
                items,
                Code::NotAnObject,
                format!("lists are nested more than {LIST_DEPTH} levels deep"),
            );
        }
        // A `List` holds objects of any kind. The API server omits the kind of the elements of a `PodList`.
        let implied = (!implied.1.is_empty()).then_some(implied);
        for item in cx.list(items) {
            self.object_or_list(cx, &item.as_root(), implied, depth + 1);
        }
    }

    fn object(&mut self, cx: &mut Context<'_>, at: &At<'_>, api_version: &str, kind: &str) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        match kinds::find(group, version, kind) {
            Found::Kind(kind) => self.decode(cx, at, kind, version),
            Found::OtherVersion(kind, recommended) => {
                self.other_version(cx, at, kind, api_version, &recommended);
            }
            Found::Nothing => self.other_kind(cx, at, group, api_version, kind),
        }
    }

    /// Decodes an object, and keeps it if no error was found.
    fn decode(&mut self, cx: &mut Context<'_>, at: &At<'_>, kind: &'static ResourceKind, version: &str) {
        cx.object = Some(kind.name.to_owned());
        let Some(fields) = cx.fields(at, OBJECT) else { return };
        let default_namespace = kind.namespaced.then_some(self.default_namespace);
        let Some(meta) = meta(cx, &fields, kind.name, default_namespace) else { return };
        let object = Object { kind: kind.name, version, meta, fields };
        let declaration = (kind.decode)(cx, &object);
        if cx.errors > 0 {
            *self.counts.rejected.entry(kind.name.to_owned()).or_default() += 1;
            return;
        }
        let (kind_name, Meta { key, origin, .. }) = (cx.names.name(kind.name), &object.meta);
        if let Some(declaration) = declaration {
            self.gathered.add(&kind_name, key, declaration, cx.text.is_of_cluster());
        }
        self.gathered.record_origin(cx, at, &kind_name, key, origin);
        *self.counts.objects.entry(kind.name.to_owned()).or_default() += 1;
    }

    /// Reports an object in a version that isn't read.
    fn other_version(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        kind: &ResourceKind,
        api_version: &str,
        recommended: &str,
    ) {
        let name = kind.name;
        cx.object = Some(provisional_name(name, at));
        let diagnostic = match kind.other_versions {
            OtherVersions::Rejected => {
                let message = format!("no matches for kind \"{name}\" in version \"{api_version}\"");
                Diagnostic::new(Severity::Error, Code::UnknownVersion, message)
            }
            OtherVersions::Skipped => {
                *self.counts.passed_over.entry(name.to_owned()).or_default() += 1;
                let message = format!("{name} of {api_version} is not read: its backends are not shown");
                Diagnostic::new(Severity::Warning, Code::NotEvaluated, message)
            }
        };
        let place = at.get("apiVersion").unwrap_or(*at);
        cx.report(&place, diagnostic.with_help(format!("use apiVersion: {recommended}")));
    }

    /// Counts an object of another kind, and warns if it is a policy.
    fn other_kind(&mut self, cx: &mut Context<'_>, at: &At<'_>, group: &str, version: &str, kind: &str) {
        *self.counts.passed_over.entry(kind.to_owned()).or_default() += 1;
        if OTHER_POLICY_GROUPS.contains(&group) && kind.ends_with("NetworkPolicy") {
            cx.object = Some(provisional_name(kind, at));
            let place = at.get("kind").unwrap_or(*at);
            let message = format!("policies of {version} are not evaluated: verdicts ignore this one");
            cx.warn(&place, Code::NotEvaluated, message);
        }
    }
}

fn missing(cx: &mut Context<'_>, at: &At<'_>, kind: bool, version: bool) {
    let message = match (version, kind) {
        (true, true) => "not a Kubernetes object: apiVersion and kind are not set",
        (false, true) => "not a Kubernetes object: kind is not set",
        _ => "not a Kubernetes object: apiVersion is not set",
    };
    let diagnostic = Diagnostic::new(Severity::Error, Code::NotAnObject, message);
    let span = at.span();
    cx.report_span(span.start..span.start, diagnostic);
}

fn article(noun: &str) -> String {
    match noun {
        "null" => noun.to_owned(),
        "array" | "object" => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}
