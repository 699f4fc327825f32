//! The dashboard and the alerts use only metrics that the agent has, and the documentation lists all of them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{file, objects};

/// Labels that Prometheus adds, and that of a histogram's buckets.
const OTHER_LABELS: [&str; 3] = ["instance", "job", "le"];
/// The one metric that Prometheus generates itself.
const UP: &str = "up";

/// A metric, as operations.md documents it.
pub(crate) struct Documented {
    /// As scraped.
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    /// `gauge`, `counter` or `histogram`.
    pub(crate) kind: String,
}

/// Every metric in operations.md.
pub(crate) fn documented() -> Vec<Documented> {
    let text = file("docs/operations.md");
    let metric = |line: &str| {
        let (cell, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (name, labels) = cell.split_once('{').unwrap_or((cell, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty());
        let is_metric = ["palisade_", "process_"].iter().any(|prefix| name.starts_with(prefix));
        is_metric.then(|| Documented {
            name: name.to_owned(),
            labels: labels.map(str::to_owned).collect(),
            kind: rest.split(' ').next().unwrap().to_owned(),
        })
    };
    text.lines().filter_map(metric).collect()
}

/// The words of an expression that could be names: of metrics, labels or functions.
pub(crate) fn names(expression: &str) -> BTreeSet<&str> {
    // Text in quotes is a value.
    let outside = expression.split('"').step_by(2);
    outside.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
}

/// The words in the parentheses after `by`, `on` and `group_left`, and those before `=` in braces.
fn labels(expression: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for keyword in ["by (", "on (", "group_left (", "label_values("] {
        for part in expression.split(keyword).skip(1) {
            let inside = part.split(')').next().unwrap().split(',').map(str::trim);
            labels.extend(inside.filter(|l| !l.contains("palisade_")).map(str::to_owned));
        }
    }
    for part in expression.split('{').skip(1) {
        for selector in part.split('}').next().unwrap().split(',') {
            labels.insert(selector.split(['=', '!']).next().unwrap().trim().to_owned());
        }
    }
    labels
}

#[track_caller]
fn check(expression: &str) {
    let documented = documented();
    let base = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        base.unwrap_or(name).to_owned()
    };
    let used: Vec<String> = names(expression)
        .into_iter()
        .filter(|name| name.starts_with("palisade_") || name.starts_with("process_") || *name == UP)
        .map(base)
        .collect();
    assert!(!used.is_empty(), "no metric in {expression}");
    let mut known: BTreeSet<&str> = OTHER_LABELS.into();
    for name in &used {
        let metric = documented.iter().find(|metric| metric.name == *name);
        assert!(metric.is_some() || name == UP, "the agent has no {name}: {expression}");
        known.extend(metric.into_iter().flat_map(|metric| &metric.labels).map(String::as_str));
    }
    for label in labels(expression) {
        assert!(known.contains(&*label), "no metric in it has the label {label}: {expression}");
    }
    let count = |c| expression.matches(c).count();
    assert_eq!((count('('), count('{')), (count(')'), count('}')), "{expression}");
}

pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&file("deploy/grafana/palisade.json")).unwrap()
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let dashboard = dashboard();
    let mut seen = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            check(target["expr"].as_str().unwrap());
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            seen += 1;
        }
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["description"].is_string(), "{} says not what it shows", panel["title"]);
    }
    assert!(seen > 20);
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(definition) = variable["definition"].as_str() {
            check(definition);
        }
    }
}

#[test]
fn panels_stand_beside_each_other() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the number {}", panel["id"]);
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is too wide", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
    }
}

/// The dashboard shows every documented metric.
#[test]
fn the_dashboard_leaves_nothing_out() {
    let text = file("deploy/grafana/palisade.json");
    for metric in documented() {
        assert!(text.contains(&metric.name), "no panel shows {}", metric.name);
    }
}

pub(crate) fn alerts() -> Vec<Value> {
    let groups = &objects("deploy/prometheus/alerts.yaml")[0]["groups"];
    groups.as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap()).cloned().collect()
}

#[test]
fn alerts_ask_for_metrics_that_exist_and_say_what_to_do() {
    let operations = file("docs/operations.md");
    let sections: Vec<&str> = operations.lines().filter_map(|l| l.strip_prefix("### ")).collect();
    let alerts = alerts();
    assert!(alerts.len() > 8);
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        check(alert["expr"].as_str().unwrap());
        let text =
            |key: &str| alert["annotations"][key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"));
        assert!(text("description").len() > text("summary").len(), "{name}");
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert_eq!(text("runbook"), format!("docs/operations.md#{}", name.to_lowercase()));
        assert!(sections.contains(&name), "operations.md says nothing about {name}");
        // The texts may use the labels that the expression's result has.
        for label in ["summary", "description"].iter().flat_map(|k| text(k).split("$labels.").skip(1)) {
            let label = label.split([' ', '}']).next().unwrap();
            let expression = alert["expr"].as_str().unwrap();
            let from_metric = documented().iter().any(|metric| {
                names(expression).contains(&*metric.name) && metric.labels.iter().any(|l| l == label)
            });
            assert!(labels(expression).contains(label) || from_metric, "{name} has no label {label}");
        }
    }
    let named: BTreeSet<&str> = alerts.iter().map(|a| a["alert"].as_str().unwrap()).collect();
    let gone: Vec<_> =
        sections.iter().filter(|s| s.starts_with("Palisade") && !named.contains(**s)).collect();
    assert!(gone.is_empty(), "operations.md speaks of alerts that there are not: {gone:?}");
}
