//! docs/reference/metrics.md is written from what the agent exposes, the alerts and the dashboard. `PALISADE_BLESS=1` updates it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use serde_json::Value;

use crate::{
    agent::{exposed, metrics},
    file,
    metrics::{alerts, dashboard, names},
    root,
};

/// The page, from the repository's root.
const PAGE: &str = "docs/reference/metrics.md";

/// The help text of each metric, by its name as registered.
fn helps(exposed: &str) -> BTreeMap<&str, &str> {
    exposed.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect()
}

/// The panels of the dashboard that show a metric.
fn panels(dashboard: &Value, name: &str) -> Vec<String> {
    let shows = |panel: &&Value| {
        let mut targets = panel["targets"].as_array().into_iter().flatten();
        targets.any(|target| uses(target["expr"].as_str().unwrap(), name))
    };
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(shows);
    panels.map(|panel| panel["title"].as_str().unwrap().to_owned()).collect()
}

/// How an expression gets the name of the node, which says nothing about the metric that has it.
const JOIN: &str = "group_left (node) palisade_build_info";

fn uses(expression: &str, name: &str) -> bool {
    let expression = expression.replace(JOIN, "");
    let base = |word: &str| {
        ["_bucket", "_sum", "_count"].iter().any(|suffix| word.strip_suffix(suffix) == Some(name))
    };
    names(&expression).into_iter().any(|word| word == name || base(word))
}

fn page() -> String {
    let exposed = exposed();
    let (helps, alerts, dashboard) = (helps(&exposed), alerts(), dashboard());
    let mut page = "# Metrics and alerts\n\n\
         <!-- Written from crates/agent/src/metrics.rs and deploy by crates/palisade/tests/deploy. -->\n\n\
         [operations.md](../operations.md#metrics) explains them and says what to do if an alert fires.\n\n\
         ## Metrics\n\n| metric | type | help text | used by alerts and panels |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for (name, (kind, labels)) in metrics() {
        let registered = ["_total", "_info"].iter().find_map(|suffix| helps.get(name.strip_suffix(suffix)?));
        let help = helps.get(&*name).or(registered).unwrap_or_else(|| panic!("{name} has no help text"));
        let labels = labels.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let shown = if labels.is_empty() { name.clone() } else { format!("{name}{{{labels}}}") };
        let fired = alerts.iter().filter(|alert| uses(alert["expr"].as_str().unwrap(), &name));
        let fired: BTreeSet<&str> = fired.map(|alert| alert["alert"].as_str().unwrap()).collect();
        let fired = fired.iter().map(|alert| format!("[{alert}](../operations.md#{})", alert.to_lowercase()));
        let panels = panels(&dashboard, &name).into_iter().map(|panel| format!("\"{panel}\""));
        let used = fired.chain(panels).collect::<Vec<_>>().join(", ");
        writeln!(page, "| `{shown}` | {kind} | {} | {used} |", help.trim_end_matches('.')).unwrap();
    }
    page += "\n## Alerts\n\n| alert | severity | fires after | if |\n| --- | --- | --- | --- |\n";
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap();
        let after = alert["for"].as_str().unwrap_or("at once");
        let expression = alert["expr"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let expression = expression.replace('|', "\\|");
        let link = format!("[{name}](../operations.md#{})", name.to_lowercase());
        writeln!(page, "| {link} | {severity} | {after} | `{expression}` |").unwrap();
    }
    page
}

#[test]
fn the_page_of_metrics_is_what_the_agent_exposes() {
    let page = page();
    if std::env::var_os("PALISADE_BLESS").is_some() {
        fs::write(root().join(PAGE), page).unwrap();
    } else {
        assert!(
            file(PAGE) == page,
            "{PAGE} is stale. To update it: PALISADE_BLESS=1 cargo test -p palisade --test deploy reference"
        );
    }
}
