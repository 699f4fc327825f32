//! The agent itself: its metrics are those that are documented, and it accepts the settings that the chart generates.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use palisade_agent::metrics::{
    DirectionLabel, DropLabels, KindLabel, Metrics, ResultLabel, ScopeLabel, StageLabel, WorkloadLabels,
};
use palisade_policy::Direction;
use serde_json::Value;

use crate::{file, kind, metrics::documented, name, rendered};

/// Every metric with a value, as Prometheus reads it.
pub(crate) fn exposed() -> String {
    let metrics = Metrics::new("1.2.3", "node-1");
    let kind = || KindLabel { kind: "Pod" };
    let direction = || DirectionLabel { direction: "ingress" };
    metrics.policies.get_or_create(&kind()).set(1);
    metrics.pods.get_or_create(&ScopeLabel { scope: "local" }).set(1);
    metrics.isolated_pods.get_or_create(&direction()).set(1);
    metrics.cut_off_pods.get_or_create(&direction()).set(1);
    metrics.not_enforced_pods.get_or_create(&direction()).set(1);
    metrics.over_budget_pods.get_or_create(&direction()).set(1);
    metrics.commits.get_or_create(&ResultLabel { result: "ok" }).inc();
    metrics.drops.get_or_create(&DropLabels::unknown(Direction::Ingress)).inc();
    metrics.audited.get_or_create(&DropLabels::unknown(Direction::Ingress)).inc();
    metrics.workload_drops.get_or_create(&WorkloadLabels::all_other(Direction::Ingress)).inc();
    metrics.workload_audited.get_or_create(&WorkloadLabels::all_other(Direction::Ingress)).inc();
    metrics.audited_pods.get_or_create(&direction()).set(1);
    metrics.errors.get_or_create(&StageLabel { stage: "source" }).inc();
    metrics.unusable_objects.get_or_create(&kind()).set(1);
    metrics.watch_up.get_or_create(&kind()).set(1);
    metrics.watch_restarts.get_or_create(&kind()).inc();
    metrics.watch_events.get_or_create(&kind()).inc();
    metrics.watch_last_event.get_or_create(&kind()).set(1.0);
    metrics.text().unwrap()
}

/// Type and labels of each metric, by its name as scraped.
pub(crate) fn metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = exposed();
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut found = BTreeMap::new();
    for sample in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, rest) = sample.split_once(['{', ' ']).unwrap();
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|l| l.split_once('=')).map(|(label, _)| label.to_owned());
        let of = |suffix: &str| name.strip_suffix(suffix).and_then(|base| Some((base, *types.get(base)?)));
        let (name, kind) = if let Some((base, "histogram")) =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| of(suffix))
        {
            (base, "histogram")
        } else if of("_total").is_some() {
            (name, "counter")
        } else {
            (name, "gauge")
        };
        let entry = found.entry(name.to_owned()).or_insert_with(|| (kind.to_owned(), BTreeSet::new()));
        entry.1.extend(labels.filter(|l| l != "le"));
    }
    found
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let there = metrics();
    let written: BTreeMap<_, _> = documented()
        .into_iter()
        .map(|metric| (metric.name, (metric.kind, metric.labels.into_iter().collect())))
        .collect();
    assert_eq!(there, written, "left what the agent has, right what docs/operations.md says");
}

/// The comparison above is complete: the list of metrics has as many names.
#[test]
fn every_metric_of_the_list_was_seen() {
    let source = file("crates/agent/src/metrics.rs");
    let list = source.split("#[cfg(test)]").next().unwrap();
    let names: BTreeSet<&str> = list
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| ["palisade_", "process_"].iter().any(|prefix| text.starts_with(prefix)))
        .collect();
    assert_eq!(names.len(), metrics().len(), "{names:?}");
}

/// The program reads the file that the chart generates, and its settings are those of the file.
#[test]
fn the_agent_takes_the_settings() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut seen = 0;
    for (path, objects) in rendered() {
        for map in objects.iter().filter(|o| kind(o) == "ConfigMap" && name(o) == "palisade-agent") {
            let settings = map["data"]["agent.yaml"].as_str().unwrap();
            let at = dir.path().join("agent.yaml");
            std::fs::write(&at, settings).unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_palisade"))
                .args(["agent", "--print-config", "--config"])
                .arg(&at)
                .env_clear()
                .output()
                .unwrap();
            assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
            let taken: Value = serde_saphyr::from_slice(&output.stdout).unwrap();
            let settings: BTreeMap<String, Value> = serde_saphyr::from_str(settings).unwrap();
            for (key, value) in &settings {
                assert_eq!(taken[key], *value, "{path}: {key}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen}");
}

/// The default socket, config file and port of the program are those of the DaemonSet.
#[test]
fn paths_are_the_programs_defaults() {
    assert_eq!(palisade_agent::config::DEFAULT_SOCKET, "/run/palisade/agent.sock");
    assert_eq!(palisade_agent::config::DEFAULT_FILE, "/etc/palisade/agent.yaml");
}

/// Every setting is documented: each key that the program prints has its row.
#[test]
fn every_setting_is_documented() {
    let printed = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["agent", "--print-config"])
        .env_clear()
        .output()
        .unwrap();
    let settings: BTreeMap<String, Value> = serde_saphyr::from_slice(&printed.stdout).unwrap();
    let text = file("docs/operations.md");
    let section = text.split("## Settings").nth(1).unwrap().split("\n## ").next().unwrap();
    assert!(settings.len() > 8);
    for key in settings.keys() {
        assert!(section.contains(&format!("`{key}`")), "operations.md has no row for {key}");
        let variable = format!("PALISADE_{}", key.to_uppercase().replace('-', "_"));
        assert!(section.contains(&format!("`{variable}`")), "operations.md doesn't name {variable}");
    }
}
