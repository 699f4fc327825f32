//! Recognizes the pods that scrape metrics.

use palisade_policy::Pod;

/// The labels of what scrapes: Prometheus as its operator, its charts and its examples make it, and two that read the same
/// monitors.
const SCRAPERS: [(&str, &str); 4] = [
    ("app.kubernetes.io/name", "prometheus"),
    ("app", "prometheus"),
    ("app.kubernetes.io/name", "vmagent"),
    ("app.kubernetes.io/name", "alloy"),
];

/// Returns whether a pod scrapes metrics, by its labels.
#[must_use]
pub fn is_scraper(pod: &Pod) -> bool {
    SCRAPERS.iter().any(|(key, value)| pod.labels.get(key) == Some(*value))
}
