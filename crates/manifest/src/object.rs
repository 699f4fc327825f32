//! Finds the kind of each object in a document, and decodes it.

use crate::{
    callers::{self, Caller},
    decode::Context,
    diagnostic::{Code, Diagnostic, Severity},
    embedded,
    gather::Gathered,
    kinds::{self, Found, NETWORK_POLICY, OtherVersions, ResourceKind, foreign},
    list,
    loaded::Counts,
    meta::{Meta, Object, meta, provisional_name},
    references, refused,
    tree::{At, Value},
    unrendered,
};

/// How deeply lists may be nested. kubectl writes one level.
const LIST_DEPTH: usize = 4;

/// The top-level fields that are known for every kind.
const OBJECT: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Reads the root of a document: an object or a list of objects.
pub(crate) struct ObjectReader<'i> {
    pub(crate) gathered: &'i mut Gathered,
    pub(crate) counts: &'i mut Counts,
    pub(crate) default_namespace: &'i str,
    /// Whether the hosts that settings name are read.
    pub(crate) references: bool,
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
        if let Some(marker) = unrendered::in_value(kind).or_else(|| unrendered::in_value(version)) {
            let place = kind_at.as_ref().or(version_at.as_ref()).unwrap_or(at);
            let message = "the kind of the object is not known";
            let diagnostic = Diagnostic::new(Severity::Error, Code::NotAnObject, message);
            return cx.report(place, diagnostic.with_help(marker.help()));
        }
        if list::is_list(cx, at, version, kind) {
            return self.list(cx, at, (version, kind), depth);
        }
        self.object(cx, at, version, kind);
    }

    fn list(&mut self, cx: &mut Context<'_>, at: &At<'_>, (version, kind): (&str, &str), depth: usize) {
        cx.object = Some(kind.to_owned());
        let items = list::items(cx, at, version, kind);
        let elements = items.as_ref().map(|items| cx.list(items)).unwrap_or_default();
        if cx.errors > 0 {
            self.reject_elements(cx, at, (version, kind), false);
        }
        let Some(items) = &items else { return };
        if depth >= LIST_DEPTH {
            let message = format!("lists are nested more than {LIST_DEPTH} levels deep");
            return cx.error(items, Code::NotAnObject, message);
        }
        // A `List` holds objects of any kind. The API server omits the kind of the elements of a `PodList`.
        let element = kind.strip_suffix("List").filter(|element| !element.is_empty());
        let implied = element.map(|element| (version, element));
        for item in elements {
            self.object_or_list(cx, &item.as_root(), implied, depth + 1);
        }
    }

    fn object(&mut self, cx: &mut Context<'_>, at: &At<'_>, api_version: &str, kind: &str) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = kinds::find(group, version, kind);
        if let Found::Other | Found::Nonexistent = found
            && !cx.text.is_of_cluster()
            && let Some(list) = list::meant(api_version, kind)
        {
            no_matches(cx, at, api_version, kind, Some(format!("did you mean {list}?")));
            return self.reject_elements(cx, at, (api_version, kind), true);
        }
        match found {
            Found::Kind(kind) => {
                self.decode(cx, at, kind, version);
                if cx.errors > 0 {
                    self.reject(cx, at, kind);
                }
            }
            Found::OtherVersion(kind, recommended) => {
                self.other_version(cx, at, kind, api_version, &recommended);
            }
            // An API server doesn't send kinds that it doesn't have.
            Found::Misspelled(_) | Found::Nonexistent if cx.text.is_of_cluster() => self.pass_over(kind),
            Found::Misspelled(meant) => {
                no_matches(cx, at, api_version, kind, Some(format!("did you mean {meant}?")));
                self.reject(cx, at, meant);
            }
            Found::Nonexistent => {
                no_matches(cx, at, api_version, kind, None);
                if let Some(kind) = kinds::named(NETWORK_POLICY) {
                    self.reject(cx, at, kind);
                }
            }
            Found::Other => self.other_kind(cx, at, (group, api_version), kind),
        }
    }

    /// Decodes an object, and keeps it if no error was found.
    fn decode(&mut self, cx: &mut Context<'_>, at: &At<'_>, kind: &'static ResourceKind, version: &str) {
        cx.object = Some(kind.called.to_owned());
        let Some(fields) = cx.fields(at, &[&OBJECT, kind.fields].concat()) else { return };
        let default_namespace = kind.namespaced.then_some(self.default_namespace);
        let Some(meta) = meta(cx, &fields, kind.called, default_namespace) else { return };
        let object = Object { kind: kind.called, version, meta, fields };
        let declaration = (kind.decode)(cx, &object);
        if cx.errors > 0 {
            return;
        }
        let (kind_name, Meta { key, origin, .. }) = (cx.names.name(kind.called), &object.meta);
        if kind.called == "Service" {
            let labels = callers::labels(at);
            if !labels.is_empty() {
                self.gathered.service_labels.insert(key.clone(), labels);
            }
        }
        if self.references {
            let containers = references::of_pod_spec(cx, at, kind.called);
            if !containers.is_empty() {
                self.gathered.references.pods.insert((kind_name.clone(), key.clone()), containers);
            }
        }
        if let Some(declaration) = declaration {
            self.gathered.add(&kind_name, key, declaration, cx.text.is_of_cluster());
        }
        self.gathered.record_origin(cx, at, &kind_name, key, origin);
        *self.counts.objects.entry(kind.called.to_owned()).or_default() += 1;
    }

    /// Reports an object in a version that isn't read.
    fn other_version(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        kind: &'static ResourceKind,
        api_version: &str,
        recommended: &str,
    ) {
        let name = kind.name;
        let help = format!("use apiVersion: {recommended}");
        match kind.other_versions {
            OtherVersions::Rejected => {
                no_matches(cx, at, api_version, name, Some(help));
                self.reject(cx, at, kind);
            }
            OtherVersions::Skipped => {
                self.pass_over(name);
                cx.object = Some(provisional_name(name, at));
                let message = format!("{name} of {api_version} is not read: its backends are not shown");
                let diagnostic = Diagnostic::new(Severity::Warning, Code::NotEvaluated, message);
                cx.report(&at.get("apiVersion").unwrap_or(*at), diagnostic.with_help(help));
            }
        }
    }

    /// Counts an object of another kind, and warns if it changes which connections are possible.
    fn other_kind(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        (group, api_version): (&str, &str),
        kind: &str,
    ) {
        self.pass_over(kind);
        self.caller(cx, at, group, kind);
        self.config_map(cx, at, api_version, kind);
        if let Some(cure) = foreign::makes_pods(group, kind) {
            self.gathered.pod_makers.add(cx.names.name(group), cx.names.name(kind), cure);
        }
        if let Some(message) = foreign::warning(group, api_version, kind) {
            cx.object = Some(provisional_name(kind, at));
            cx.warn(&at.get("kind").unwrap_or(*at), Code::NotEvaluated, message);
        }
        if let Some((policy, place)) = embedded::policy(at).filter(|_| !cx.text.is_of_cluster()) {
            cx.object = Some(provisional_name(kind, at));
            if kind == "Template" {
                let message = format!("a {policy} inside a Template is not read");
                let help = "render the template: oc process --local -f FILE";
                let diagnostic = Diagnostic::new(Severity::Error, Code::NotEvaluated, message);
                cx.report_span(place, diagnostic.with_help(help));
            } else {
                let message = format!(
                    "a {policy} inside an object of this kind is not read: it exists only once something makes it; add a \
                     snapshot of the cluster to see its effect"
                );
                cx.report_span(place, Diagnostic::new(Severity::Warning, Code::NotEvaluated, message));
            }
        }
    }

    /// Keeps what an object says about who connects to pods.
    fn caller(&mut self, cx: &Context<'_>, at: &At<'_>, group: &str, kind: &str) {
        let Some(key) = callers::key(at, kind, self.default_namespace) else { return };
        let targets = callers::targets(group, kind, at, &key.namespace);
        if !targets.is_empty() {
            let kind = cx.names.name(kind);
            self.gathered.callers.push(Caller { kind, key, origin: cx.origin(at), targets });
        }
    }

    /// Keeps the hosts that a ConfigMap names.
    fn config_map(&mut self, cx: &mut Context<'_>, at: &At<'_>, api_version: &str, kind: &str) {
        if !self.references || (api_version, kind) != ("v1", "ConfigMap") {
            return;
        }
        if let Some(key) = callers::key(at, kind, self.default_namespace) {
            cx.object = Some(provisional_name(kind, at));
            self.gathered.references.add_config_map(cx, at, key);
        }
    }

    /// Counts an object with an error. If it is a policy, keeps what stands for it.
    fn reject(&mut self, cx: &mut Context<'_>, at: &At<'_>, kind: &'static ResourceKind) {
        *self.counts.rejected.entry(kind.called.to_owned()).or_default() += 1;
        if kind.is_policy() {
            let substitute = refused::substitute(cx, at, kind, self.default_namespace);
            self.gathered.refused.push(substitute);
        }
    }

    /// Counts the elements of a broken list, and keeps what stands for the policies among them.
    fn reject_elements(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        (version, kind): (&str, &str),
        items: bool,
    ) {
        for field in list::hidden_elements(at, items) {
            for element in field.items().chain(matches!(field.value(), Value::Mapping(_)).then_some(field)) {
                if let Some(kind) = list::kind_of_element(&element, version, kind) {
                    self.reject(cx, &element, kind);
                }
            }
        }
    }

    fn pass_over(&mut self, kind: &str) {
        *self.counts.passed_over.entry(kind.to_owned()).or_default() += 1;
    }
}

/// Reports a kind that the API server doesn't have, in its words.
fn no_matches(cx: &mut Context<'_>, at: &At<'_>, api_version: &str, kind: &str, help: Option<String>) {
    cx.object = Some(provisional_name(kind, at));
    let message = match api_version.matches('/').count() {
        0 | 1 => format!("no matches for kind \"{kind}\" in version \"{api_version}\""),
        _ => format!("unexpected GroupVersion string: {api_version}"),
    };
    let diagnostic = Diagnostic::new(Severity::Error, Code::UnknownVersion, message);
    let place = at.get("apiVersion").unwrap_or(*at);
    cx.report(&place, Diagnostic { help, ..diagnostic });
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

/// Returns the noun with its article.
pub(crate) fn article(noun: &str) -> String {
    match noun {
        "null" => noun.to_owned(),
        "array" | "object" => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}
