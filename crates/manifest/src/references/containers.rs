//! The settings in a pod spec.

use palisade_policy::Name;

use super::{Container, From, Into, Object, Place, Setting};
use crate::{
    decode::Context,
    scalar::Scalar,
    tree::{At, Value},
};

/// The fields of a container by which the kubelet probes it.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Reads the settings of the containers in an object with a pod spec, by kind.
pub(crate) fn of_pod_spec(cx: &Context<'_>, object: &At<'_>, kind: &str) -> Vec<Container> {
    let path: &[&str] = match kind {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => &["spec", "template", "spec"],
    };
    below(object, path, &mut |spec| pod(cx, spec)).unwrap_or_default()
}

fn below<T>(at: &At<'_>, path: &[&str], read: &mut dyn FnMut(&At<'_>) -> T) -> Option<T> {
    match path {
        [] => Some(read(at)),
        [field, rest @ ..] => below(&at.get(field)?, rest, read),
    }
}

fn pod(cx: &Context<'_>, spec: &At<'_>) -> Vec<Container> {
    let mut out = Vec::new();
    for list in ["initContainers", "containers"] {
        let Some(list) = spec.get(list) else { continue };
        out.extend(list.items().map(|at| container(cx, &at)));
    }
    if let Some(volumes) = spec.get("volumes") {
        let mut of_volumes = Container::default();
        for volume in volumes.items() {
            add_volume(cx, &volume, &mut of_volumes);
        }
        out.push(of_volumes);
    }
    out
}

fn container(cx: &Context<'_>, at: &At<'_>) -> Container {
    let is_probed = PROBES.iter().any(|probe| at.get(probe).is_some());
    let mut out = Container { is_probed, ..Container::default() };
    if let Some(env) = at.get("env") {
        for variable in env.items() {
            add_variable(cx, &variable, &mut out);
        }
    }
    if let Some(list) = at.get("envFrom") {
        for one in list.items() {
            let prefix = text(&one, "prefix").unwrap_or_default();
            for (field, object) in [("configMapRef", Object::ConfigMap), ("secretRef", Object::Secret)] {
                if let Some(name) = one.get(field).and_then(|at| text(&at, "name")) {
                    let into = Into::Variables { prefix: prefix.clone() };
                    out.from.push(From { object, name: Name::from(&*name), into, origin: cx.origin(&one) });
                }
            }
        }
    }
    add_arguments(cx, at, &mut out);
    out
}

fn add_variable(cx: &Context<'_>, at: &At<'_>, out: &mut Container) {
    let Some(name) = text(at, "name") else { return };
    if let Some(setting) = at.get("value").and_then(|value| Setting::of(cx, &value)) {
        out.own.push((Place::Variable(name.clone()), setting));
    }
    let Some(from) = at.get("valueFrom") else { return };
    for (field, object) in [("configMapKeyRef", Object::ConfigMap), ("secretKeyRef", Object::Secret)] {
        let Some(reference) = from.get(field) else { continue };
        if let (Some(of), Some(key)) = (text(&reference, "name"), text(&reference, "key")) {
            let into = Into::Variable { variable: name.clone(), key };
            out.from.push(From { object, name: Name::from(&*of), into, origin: cx.origin(at) });
        }
    }
}

/// Reads `--db-host=db`, `--db-host db` and `http://db`.
fn add_arguments(cx: &Context<'_>, at: &At<'_>, out: &mut Container) {
    let mut number = 0;
    for list in ["command", "args"] {
        let Some(list) = at.get(list) else { continue };
        let mut option: Option<String> = None;
        for at in list.items() {
            number += 1;
            let Value::Scalar(Scalar::Str(text)) = at.value() else { continue };
            let is_option = text.starts_with('-');
            let own = if is_option { text.split_once('=') } else { None };
            let setting = Setting::of_text(cx, &at, own.map_or(text, |(_, value)| value));
            let named = own.map(|(option, _)| option.to_owned()).or_else(|| option.take());
            option = (is_option && own.is_none()).then(|| text.to_string());
            if let Some(setting) = setting {
                out.own.push((Place::Argument(number, named), setting));
            }
        }
    }
}

fn add_volume(cx: &Context<'_>, volume: &At<'_>, out: &mut Container) {
    let projected = volume.get("projected");
    let sources = projected.as_ref().and_then(|at| at.get("sources"));
    let of_sources = sources.iter().flat_map(At::items).filter_map(|source| named_config_map(cx, &source));
    out.from.extend(named_config_map(cx, volume).into_iter().chain(of_sources));
}

/// Returns the ConfigMap of a volume or of a part of a projected one.
fn named_config_map(cx: &Context<'_>, at: &At<'_>) -> Option<From> {
    let of = at.get("configMap")?;
    let name = text(&of, "name")?;
    Some(From {
        object: Object::ConfigMap,
        name: Name::from(&*name),
        into: Into::Volume,
        origin: cx.origin(&of),
    })
}

fn text(at: &At<'_>, field: &str) -> Option<String> {
    match at.get(field)?.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
        _ => None,
    }
}
